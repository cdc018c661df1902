//! A reply of the route API.

use super::etag::Version;
use crate::change::Applied;
use crate::deployment_id::DeploymentId;
use crate::json::quote;
use crate::problem::{self, Problem};
use crate::route::Route;
use std::fmt::Write;

/// What a reply means for the map, for whoever counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to be changed: a read or a dry run.
    #[default]
    Read,
    /// The map was replaced by another one.
    Published,
    /// A write was accepted that changed nothing.
    Confirmed,
    /// The request was refused, with this code.
    Refused(&'static str),
}

/// Status, headers and body, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty where the status has none.
    pub body: String,
    /// What it means for the map.
    pub outcome: Outcome,
}

impl Reply {
    /// A JSON document about the map at this version.
    #[must_use]
    pub fn json(status: u16, version: Version, body: String) -> Self {
        let mut reply = Self::empty(status, version);
        reply.headers.push(("content-type", "application/json".to_owned()));
        reply.body = body;
        reply
    }

    /// No body, but the version.
    #[must_use]
    pub fn empty(status: u16, version: Version) -> Self {
        Self { status, headers: vec![("etag", version.etag()), no_store()], body: String::new(), outcome: Outcome::Read }
    }

    /// An error.
    #[must_use]
    pub fn problem(problem: &Problem) -> Self {
        let mut headers = vec![("content-type", problem::CONTENT_TYPE.to_owned()), no_store()];
        headers.extend(problem.header.map(|(name, value)| (name, value.to_owned())));
        Self { status: problem.status, headers, body: problem.to_json(), outcome: Outcome::Refused(problem.code) }
    }

    /// The same with another outcome.
    #[must_use]
    pub(super) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }
}

/// Whoever reads the map wants it as it is now, not as some cache between remembers it.
fn no_store() -> (&'static str, String) {
    ("cache-control", "no-store".to_owned())
}

/// The body of `GET /v1/routes`.
pub(super) fn routes_body(version: Version, routes: &[(DeploymentId<'_>, Route)]) -> String {
    let mut json = String::with_capacity(64 + routes.len() * 80);
    // Writing into a string cannot fail, here and below. Ids need no escaping.
    let _ = write!(json, r#"{{"epoch":"{}","generation":{},"routes":{{"#, version.epoch_text(), version.generation);
    for (n, (id, route)) in routes.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(json, r#"{comma}"{id}":{{"port":{},"state":"{}"}}"#, route.port, route.state.name());
    }
    json.push_str("}}");
    json
}

/// The body of `GET /v1/routes/{id}`.
pub(super) fn route_body(version: Version, route: Route) -> String {
    format!(r#"{{"port":{},"state":"{}","generation":{}}}"#, route.port, route.state.name(), version.generation)
}

/// The body of `GET /v1/status`.
pub(super) fn status_body(version: Version, routes: usize, loaded: bool) -> String {
    format!(
        r#"{{"epoch":"{}","generation":{},"routes":{routes},"loaded":{loaded},"version":{}}}"#,
        version.epoch_text(),
        version.generation,
        quote(env!("CARGO_PKG_VERSION"))
    )
}

/// The body of every write that has one.
pub(super) fn applied_body(version: Version, applied: &Applied) -> String {
    let displaced: Vec<String> = applied.displaced.iter().map(|id| quote(id.as_id().as_str())).collect();
    format!(
        r#"{{"epoch":"{}","generation":{},"added":{},"changed":{},"removed":{},"displaced":[{}]}}"#,
        version.epoch_text(),
        version.generation,
        applied.added,
        applied.changed,
        applied.removed.len(),
        displaced.join(",")
    )
}
