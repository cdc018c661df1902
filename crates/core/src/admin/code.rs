//! The error codes of the route API.

use crate::problem::Problem;

/// What is wrong with a request to the route API: the member `code` of the error document, and the label of the metric that counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Other writers were faster every time.
    ConflictRetriesExhausted,
    /// The fleet is off.
    FleetDisabled,
    /// `Host` or `Origin` does not name this machine.
    ForeignOrigin,
    /// The id in the path is not a deployment id.
    InvalidDeploymentId,
    /// The body is JSON, but not a valid fleet map.
    InvalidFleet,
    /// `If-Match` or `If-None-Match` is not a list of entity tags.
    InvalidPrecondition,
    /// An unknown query parameter, or one with a wrong value.
    InvalidQuery,
    /// The body is JSON, but not a valid map or route.
    InvalidRoutes,
    /// The body is not JSON.
    MalformedJson,
    /// The path has no such method.
    MethodNotAllowed,
    /// There is no such path, or no such route.
    NotFound,
    /// Bodies that are still arriving have reached their memory limit.
    Overloaded,
    /// The body, or the map that it asks for, is too large.
    PayloadTooLarge,
    /// The body gives one port to several ids.
    PortInUse,
    /// The map does not have the version that `If-Match` or `If-None-Match` requires.
    PreconditionFailed,
    /// The bearer token is missing or wrong.
    Unauthorized,
    /// The content type of the body is not JSON.
    UnsupportedMediaType,
}

impl Code {
    /// Every code, in ascending order of the names.
    pub const ALL: [Self; 17] = [
        Self::ConflictRetriesExhausted,
        Self::FleetDisabled,
        Self::ForeignOrigin,
        Self::InvalidDeploymentId,
        Self::InvalidFleet,
        Self::InvalidPrecondition,
        Self::InvalidQuery,
        Self::InvalidRoutes,
        Self::MalformedJson,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::Overloaded,
        Self::PayloadTooLarge,
        Self::PortInUse,
        Self::PreconditionFailed,
        Self::Unauthorized,
        Self::UnsupportedMediaType,
    ];

    /// The name that programs read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name_and_status().0
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.name_and_status().1
    }

    /// An error document with this code.
    pub fn problem(self, detail: impl Into<String>) -> Problem {
        let (name, status) = self.name_and_status();
        Problem::new(status, name, detail)
    }

    const fn name_and_status(self) -> (&'static str, u16) {
        match self {
            Self::ConflictRetriesExhausted => ("conflict_retries_exhausted", 503),
            Self::FleetDisabled => ("fleet_disabled", 409),
            Self::ForeignOrigin => ("foreign_origin", 403),
            Self::InvalidDeploymentId => ("invalid_deployment_id", 400),
            Self::InvalidFleet => ("invalid_fleet", 422),
            Self::InvalidPrecondition => ("invalid_precondition", 400),
            Self::InvalidQuery => ("invalid_query", 400),
            Self::InvalidRoutes => ("invalid_routes", 422),
            Self::MalformedJson => ("malformed_json", 400),
            Self::MethodNotAllowed => ("method_not_allowed", 405),
            Self::NotFound => ("not_found", 404),
            Self::Overloaded => ("overloaded", 503),
            Self::PayloadTooLarge => ("payload_too_large", 413),
            Self::PortInUse => ("port_in_use", 409),
            Self::PreconditionFailed => ("precondition_failed", 412),
            Self::Unauthorized => ("unauthorized", 401),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_code_is_listed_once() {
        // One more does not compile until it is counted here.
        const COUNT: usize = Code::UnsupportedMediaType as usize + 1;
        assert_eq!(Code::ALL.len(), COUNT);
        assert!(Code::ALL.is_sorted_by(|one, next| one.name() < next.name()));
    }

    /// Written out by hand from docs/route-api.md.
    #[test]
    fn statuses_and_titles_are_those_of_http() {
        let expected = [
            ("conflict_retries_exhausted", 503, "Service Unavailable"),
            ("fleet_disabled", 409, "Conflict"),
            ("foreign_origin", 403, "Forbidden"),
            ("invalid_deployment_id", 400, "Bad Request"),
            ("invalid_fleet", 422, "Unprocessable Content"),
            ("invalid_precondition", 400, "Bad Request"),
            ("invalid_query", 400, "Bad Request"),
            ("invalid_routes", 422, "Unprocessable Content"),
            ("malformed_json", 400, "Bad Request"),
            ("method_not_allowed", 405, "Method Not Allowed"),
            ("not_found", 404, "Not Found"),
            ("overloaded", 503, "Service Unavailable"),
            ("payload_too_large", 413, "Content Too Large"),
            ("port_in_use", 409, "Conflict"),
            ("precondition_failed", 412, "Precondition Failed"),
            ("unauthorized", 401, "Unauthorized"),
            ("unsupported_media_type", 415, "Unsupported Media Type"),
        ];
        for (code, (name, status, title)) in Code::ALL.into_iter().zip(expected) {
            let document: serde_json::Value = serde_json::from_str(&code.problem("x").to_json()).expect("JSON");
            assert_eq!(
                document,
                serde_json::json!({"type": "about:blank", "title": title, "status": status, "detail": "x", "code": name})
            );
        }
    }
}
