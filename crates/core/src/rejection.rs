//! A rejection: a response that the filter makes instead of forwarding the request.

use crate::deployment_id::DeploymentId;
use crate::problem::Problem;
use std::borrow::Cow;

/// Header that distinguishes a rejection from a response of the agent; its value is [`Rejection::code`].
pub const ERROR_HEADER: &str = "x-pixell-error";

/// Why a request is not forwarded. (Envoy itself has further codes, for requests that were forwarded: see envoy.yaml.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection<'a> {
    /// The request names no deployment.
    MissingDeploymentId,
    /// The same, for a request that is meant for the route API.
    NotTheRouteApi,
    /// What it names is not an id, or it names several different ones.
    InvalidDeploymentId,
    /// The route map has no such id.
    UnknownDeployment(DeploymentId<'a>),
    /// The route has no such endpoint, and no default applies.
    UnknownEndpoint(DeploymentId<'a>),
    /// The deployment takes no new requests.
    DeploymentDraining(DeploymentId<'a>),
    /// The deployment got another port while the request waited for the agent at the old one. The request is not retried there, because
    /// another agent may have that port by now.
    DeploymentMoved,
    /// No route map has been pushed since Envoy started.
    RouteMapNotLoaded,
    /// The host did not set the upstream; a defect of this filter or of its configuration.
    Internal,
    /// The agent has not accepted a connection for as long as attempts are made.
    AgentUnreachable,
    /// The request has waited for a connection to its agent for as long as it may: all connections are busy.
    Overloaded,
    /// No peer that serves the deployment has accepted a connection.
    PeerUnreachable,
    /// The client's token does not allow it to call the deployment.
    NotAllowed(DeploymentId<'a>),
}

impl Rejection<'_> {
    /// Every code, for counting by code.
    pub const CODES: [&'static str; 12] = [
        "missing_deployment_id",
        "invalid_deployment_id",
        "unknown_deployment",
        "unknown_endpoint",
        "deployment_draining",
        "deployment_moved",
        "route_map_not_loaded",
        "internal",
        "overloaded",
        "agent_unreachable",
        "not_allowed",
        "peer_unreachable",
    ];

    /// The machine-readable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        let [
            missing,
            invalid,
            unknown,
            endpoint,
            draining,
            moved,
            not_loaded,
            internal,
            overloaded,
            unreachable,
            not_allowed,
            no_peer,
        ] = Self::CODES;
        match self {
            Self::MissingDeploymentId | Self::NotTheRouteApi => missing,
            Self::InvalidDeploymentId => invalid,
            Self::UnknownDeployment(_) => unknown,
            Self::UnknownEndpoint(_) => endpoint,
            Self::DeploymentDraining(_) => draining,
            Self::DeploymentMoved => moved,
            Self::RouteMapNotLoaded => not_loaded,
            Self::Internal => internal,
            Self::Overloaded => overloaded,
            Self::AgentUnreachable => unreachable,
            Self::NotAllowed(_) => not_allowed,
            Self::PeerUnreachable => no_peer,
        }
    }

    /// HTTP status for clients that do not speak gRPC.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::MissingDeploymentId | Self::NotTheRouteApi | Self::InvalidDeploymentId => 400,
            Self::NotAllowed(_) => 403,
            Self::UnknownDeployment(_) | Self::UnknownEndpoint(_) => 404,
            Self::DeploymentDraining(_)
            | Self::DeploymentMoved
            | Self::RouteMapNotLoaded
            | Self::AgentUnreachable
            | Self::PeerUnreachable
            | Self::Overloaded => 503,
            Self::Internal => 500,
        }
    }

    /// gRPC status code for clients that do.
    #[must_use]
    pub const fn grpc_status(&self) -> GrpcStatus {
        match self {
            Self::MissingDeploymentId | Self::NotTheRouteApi | Self::InvalidDeploymentId => GrpcStatus::InvalidArgument,
            Self::NotAllowed(_) => GrpcStatus::PermissionDenied,
            Self::UnknownDeployment(_) | Self::UnknownEndpoint(_) => GrpcStatus::NotFound,
            Self::DeploymentDraining(_)
            | Self::DeploymentMoved
            | Self::RouteMapNotLoaded
            | Self::AgentUnreachable
            | Self::PeerUnreachable
            | Self::Overloaded => GrpcStatus::Unavailable,
            Self::Internal => GrpcStatus::Internal,
        }
    }

    /// The message; clients of PAR's own router match on the first and the third. If no attempt is left that the filter could reject, Envoy itself
    /// rejects the request: so some of these texts are also in `envoy/envoy.yaml` and `envoy/fleet/rejections.yaml`, and a test compares them.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::MissingDeploymentId => "Missing x-deployment-id header".into(),
            Self::NotTheRouteApi => {
                "Missing x-deployment-id header. This port leads to agents; the route API is on port 9901".into()
            }
            Self::InvalidDeploymentId => "Invalid x-deployment-id header".into(),
            Self::UnknownDeployment(id) => format!("Deployment {id} not found or not ready").into(),
            Self::UnknownEndpoint(id) => format!("Deployment {id} has no such endpoint").into(),
            Self::DeploymentDraining(id) => format!("Deployment {id} is draining and takes no new requests").into(),
            Self::DeploymentMoved => "The deployment moved while the request waited for it, try again".into(),
            Self::RouteMapNotLoaded => "Route map not loaded".into(),
            Self::Internal => "The request could not be forwarded".into(),
            Self::AgentUnreachable => "The agent of this deployment cannot be reached".into(),
            Self::PeerUnreachable => "No task that serves this deployment can be reached".into(),
            Self::NotAllowed(id) => format!("The token does not allow deployment {id}").into(),
            Self::Overloaded => "All connections to the agent are busy, try again later".into(),
        }
    }

    /// The body for clients that do not speak gRPC.
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
    /// 7
    PermissionDenied,
    /// 13
    Internal,
    /// 14
    Unavailable,
}

impl GrpcStatus {
    /// The status code as the header `grpc-status` has it.
    #[must_use]
    pub const fn digits(self) -> &'static str {
        match self {
            Self::InvalidArgument => "3",
            Self::NotFound => "5",
            Self::PermissionDenied => "7",
            Self::Internal => "13",
            Self::Unavailable => "14",
        }
    }
}

/// The protocol of a client, by the content type of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// `application/grpc`, alone or followed by `+` and a message format.
    Grpc,
    /// `application/grpc` followed by `;` and a parameter. This is gRPC, although Envoy does not recognise it. Nor does Envoy recognise the gRPC
    /// that it has converted from gRPC-Web.
    GrpcWithParameter,
    /// Anything else. (`application/grpc-web` is another protocol, which Envoy has already converted to gRPC.)
    Http,
}

impl Client {
    /// The client that sends this content type; an empty one stands for none.
    #[must_use]
    pub fn of(content_type: &[u8]) -> Self {
        let Some(rest) = content_type.strip_prefix(b"application/grpc") else { return Self::Http };
        match rest.first() {
            None | Some(b'+') => Self::Grpc,
            Some(b';' | b' ' | b'\t') if rest.trim_ascii_start().starts_with(b";") => Self::GrpcWithParameter,
            Some(_) => Self::Http,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn responds_as_the_contract_says() {
        #[track_caller]
        fn check(rejection: Rejection<'_>, code: &str, http: u16, grpc: GrpcStatus, message: &str) {
            let found = (rejection.code(), rejection.http_status(), rejection.grpc_status(), rejection.message());
            assert_eq!(found, (code, http, grpc, message.into()));
            let title = match http {
                400 => "Bad Request",
                403 => "Forbidden",
                404 => "Not Found",
                500 => "Internal Server Error",
                503 => "Service Unavailable",
                _ => panic!("no rejection has this status"),
            };
            let json = rejection.problem().to_json();
            assert!(json.contains(&format!(r#""title":"{title}""#)), "{json}");
        }
        let id = DeploymentId::parse(b"a-1").expect("valid");
        use GrpcStatus::{Internal, InvalidArgument, NotFound, PermissionDenied, Unavailable};
        let missing = "Missing x-deployment-id header";
        check(Rejection::MissingDeploymentId, "missing_deployment_id", 400, InvalidArgument, missing);
        let other_port = "Missing x-deployment-id header. This port leads to agents; the route API is on port 9901";
        check(Rejection::NotTheRouteApi, "missing_deployment_id", 400, InvalidArgument, other_port);
        let invalid = "Invalid x-deployment-id header";
        check(Rejection::InvalidDeploymentId, "invalid_deployment_id", 400, InvalidArgument, invalid);
        let unknown = "Deployment a-1 not found or not ready";
        check(Rejection::UnknownDeployment(id), "unknown_deployment", 404, NotFound, unknown);
        let endpoint = "Deployment a-1 has no such endpoint";
        check(Rejection::UnknownEndpoint(id), "unknown_endpoint", 404, NotFound, endpoint);
        let draining = "Deployment a-1 is draining and takes no new requests";
        check(Rejection::DeploymentDraining(id), "deployment_draining", 503, Unavailable, draining);
        let moved = "The deployment moved while the request waited for it, try again";
        check(Rejection::DeploymentMoved, "deployment_moved", 503, Unavailable, moved);
        check(Rejection::RouteMapNotLoaded, "route_map_not_loaded", 503, Unavailable, "Route map not loaded");
        let unreachable = "The agent of this deployment cannot be reached";
        check(Rejection::AgentUnreachable, "agent_unreachable", 503, Unavailable, unreachable);
        let internal = "The request could not be forwarded";
        check(Rejection::Internal, "internal", 500, Internal, internal);
        let not_allowed = "The token does not allow deployment a-1";
        check(Rejection::NotAllowed(id), "not_allowed", 403, PermissionDenied, not_allowed);
        let no_peer = "No task that serves this deployment can be reached";
        check(Rejection::PeerUnreachable, "peer_unreachable", 503, Unavailable, no_peer);
        let busy = "All connections to the agent are busy, try again later";
        check(Rejection::Overloaded, "overloaded", 503, Unavailable, busy);
    }

    /// The codes and texts of the rejections that Envoy makes itself, as far as the filter makes the same ones.
    #[test]
    fn envoy_s_own_rejections_have_the_same_texts() {
        let texts = [include_str!("../../../envoy/envoy.yaml"), include_str!("../../../envoy/fleet/rejections.yaml")];
        let parts = texts.iter().flat_map(|text| text.split("key: x-pixell-error, value: ").skip(1));
        let written = parts.map(|part| {
            let (code, rest) = part.split_once(' ').expect("a code");
            let text = ["inline_string: ", "grpc-message, value: "].iter().filter_map(|before| rest.split_once(before));
            let text = text.min_by_key(|(between, _)| between.len()).and_then(|(_, text)| text.lines().next());
            (code, text.expect("a text").trim_matches(['"', '{', '}', ' ']))
        });
        let mut found: Vec<_> = written.filter(|(code, _)| Rejection::CODES.contains(code)).collect();
        found.sort_unstable();
        // The limits that Envoy enforces are others.
        let limit = ("overloaded", "The proxy has reached a limit, try again later");
        let same = [Rejection::AgentUnreachable, Rejection::PeerUnreachable, Rejection::DeploymentMoved];
        let same = same.map(|rejection| (rejection.code(), rejection.message()));
        let expected = [limit].into_iter().chain(same.iter().map(|(code, text)| (*code, text.as_ref())));
        // In HTTP and gRPC, and in gRPC that Envoy does not recognise.
        let mut expected: Vec<_> = expected.flat_map(|rejection| [rejection; 2]).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn tells_clients_by_content_type() {
        #[track_caller]
        fn check(content_type: &str, expected: Client) {
            assert_eq!(Client::of(content_type.as_bytes()), expected, "{content_type}");
        }
        check("application/grpc", Client::Grpc);
        check("application/grpc+proto", Client::Grpc);
        check("application/grpc+json; charset=utf-8", Client::Grpc);
        check("application/grpc;charset=utf-8", Client::GrpcWithParameter);
        check("application/grpc \t; x=y", Client::GrpcWithParameter);
        for other in
            ["", "application/json", "application/grpc-web", "application/grpcx", "text/application/grpc", "application/grpc x"]
        {
            check(other, Client::Http);
        }
    }
}
