//! A rejection: an answer that the filter gives itself instead of forwarding the request.

use crate::deployment_id::DeploymentId;
use crate::problem::Problem;
use std::borrow::Cow;

/// Header that tells a rejection from an answer of the agent; its value is [`Rejection::code`].
pub const ERROR_HEADER: &str = "x-pixell-error";

/// Why a request is not forwarded. (`agent_unreachable`, the remaining code of the header, is Envoy's own answer: see envoy.yaml.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection<'a> {
    /// The request names no deployment.
    MissingDeploymentId,
    /// What it names is not an id, or it names several different ones.
    InvalidDeploymentId,
    /// The route map has no such id.
    UnknownDeployment(DeploymentId<'a>),
    /// The deployment takes no new requests.
    DeploymentDraining(DeploymentId<'a>),
    /// The deployment got another port while the request waited for the agent at the old one, which is not asked any more: the port
    /// may be somebody else's by now.
    DeploymentMoved,
    /// No route map has been pushed since Envoy started.
    RouteMapNotLoaded,
    /// The host refused to set the upstream; a fault of this filter or of its configuration.
    Internal,
}

impl Rejection<'_> {
    /// Every code, for whoever counts by code.
    pub const CODES: [&'static str; 7] = [
        "missing_deployment_id",
        "invalid_deployment_id",
        "unknown_deployment",
        "deployment_draining",
        "deployment_moved",
        "route_map_not_loaded",
        "internal",
    ];

    /// The machine-readable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        let [missing, invalid, unknown, draining, moved, not_loaded, internal] = Self::CODES;
        match self {
            Self::MissingDeploymentId => missing,
            Self::InvalidDeploymentId => invalid,
            Self::UnknownDeployment(_) => unknown,
            Self::DeploymentDraining(_) => draining,
            Self::DeploymentMoved => moved,
            Self::RouteMapNotLoaded => not_loaded,
            Self::Internal => internal,
        }
    }

    /// HTTP status for callers that do not speak gRPC.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::MissingDeploymentId | Self::InvalidDeploymentId => 400,
            Self::UnknownDeployment(_) => 404,
            Self::DeploymentDraining(_) | Self::DeploymentMoved | Self::RouteMapNotLoaded => 503,
            Self::Internal => 500,
        }
    }

    /// gRPC status code for callers that do.
    #[must_use]
    pub const fn grpc_status(&self) -> GrpcStatus {
        match self {
            Self::MissingDeploymentId | Self::InvalidDeploymentId => GrpcStatus::InvalidArgument,
            Self::UnknownDeployment(_) => GrpcStatus::NotFound,
            Self::DeploymentDraining(_) | Self::DeploymentMoved | Self::RouteMapNotLoaded => GrpcStatus::Unavailable,
            Self::Internal => GrpcStatus::Internal,
        }
    }

    /// The message; callers of PAR's own router match on the first and the third.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::MissingDeploymentId => "Missing x-deployment-id header".into(),
            Self::InvalidDeploymentId => "Invalid x-deployment-id header".into(),
            Self::UnknownDeployment(id) => format!("Deployment {id} not found or not ready").into(),
            Self::DeploymentDraining(id) => format!("Deployment {id} is draining and takes no new requests").into(),
            Self::DeploymentMoved => "The deployment moved while the request waited for it, try again".into(),
            Self::RouteMapNotLoaded => "Route map not loaded".into(),
            Self::Internal => "The request could not be forwarded".into(),
        }
    }

    /// The body for callers that do not speak gRPC.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(self.http_status(), self.code(), self.message())
    }
}

/// The gRPC status codes that rejections use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcStatus {
    /// 3
    InvalidArgument,
    /// 5
    NotFound,
    /// 13
    Internal,
    /// 14
    Unavailable,
}

/// Whether a content type is gRPC's: `application/grpc`, alone or followed by `+` (a message format) or `;` (a parameter).
///
/// `application/grpc-web` is another protocol, spoken over plain HTTP.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn answers_as_the_contract_says() {
        #[track_caller]
        fn check(rejection: Rejection<'_>, code: &str, http: u16, grpc: GrpcStatus, message: &str) {
            let found = (rejection.code(), rejection.http_status(), rejection.grpc_status(), rejection.message());
            assert_eq!(found, (code, http, grpc, message.into()));
        }
        let id = DeploymentId::parse(b"a-1").expect("valid");
        use GrpcStatus::{InvalidArgument, NotFound, Unavailable};
        let missing = "Missing x-deployment-id header";
        check(Rejection::MissingDeploymentId, "missing_deployment_id", 400, InvalidArgument, missing);
        let invalid = "Invalid x-deployment-id header";
        check(Rejection::InvalidDeploymentId, "invalid_deployment_id", 400, InvalidArgument, invalid);
        let unknown = "Deployment a-1 not found or not ready";
        check(Rejection::UnknownDeployment(id), "unknown_deployment", 404, NotFound, unknown);
        let draining = "Deployment a-1 is draining and takes no new requests";
        check(Rejection::DeploymentDraining(id), "deployment_draining", 503, Unavailable, draining);
        let moved = "The deployment moved while the request waited for it, try again";
        check(Rejection::DeploymentMoved, "deployment_moved", 503, Unavailable, moved);
        check(Rejection::RouteMapNotLoaded, "route_map_not_loaded", 503, Unavailable, "Route map not loaded");
    }

    #[test]
    fn tells_grpc_by_content_type() {
        for yes in ["application/grpc", "application/grpc+proto", "application/grpc+json", "application/grpc;charset=utf-8"] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in ["", "application/json", "application/grpc-web", "application/grpcx", "text/application/grpc"] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }
}
