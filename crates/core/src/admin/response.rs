//! A response of the route API.

use crate::deployment_id::{DeploymentId, OwnedDeploymentId};
use crate::fleet::change::Counts;
use crate::fleet::{PeerReport, Peers, Preference};
use crate::json::quote;
use crate::problem::{self, Problem};
use crate::route::Route;
use crate::routes::change::{Applied, Taken};
use crate::store::Version;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What a response means for the map: what the metrics count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to be changed: a read or a dry run.
    #[default]
    Read,
    /// The map was replaced by another one.
    Published {
        /// How many routes lost their port to another id.
        displaced: usize,
    },
    /// A write was accepted that changed nothing.
    Confirmed,
    /// The request was rejected, with this code.
    Rejected(&'static str),
}

/// Status, headers and body, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty if the status has none.
    pub body: String,
    /// What it means for the map.
    pub outcome: Outcome,
}

impl Response {
    /// A JSON document about the map at this version.
    #[must_use]
    pub fn json(status: u16, version: Version, body: String) -> Self {
        let mut response = Self::empty(status, version);
        response.headers.push(("content-type", "application/json".to_owned()));
        response.body = body;
        // So that a terminal shows its prompt on a line of its own.
        response.body.push('\n');
        response
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
        Self { status: problem.status, headers, body: problem.to_json() + "\n", outcome: Outcome::Rejected(problem.code) }
    }

    /// The code of an error.
    #[must_use]
    pub(super) const fn code(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Rejected(code) => Some(code),
            Outcome::Read | Outcome::Published { .. } | Outcome::Confirmed => None,
        }
    }

    /// The same with another outcome.
    #[must_use]
    pub(super) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }
}

/// A reader must get the present map, not one from a cache in between.
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
        let _ = write!(json, r#"{comma}"{id}":{{{}}}"#, members(route));
    }
    json.push_str("}}");
    json
}

/// The body of `GET /v1/routes/{id}`.
pub(super) fn route_body(version: Version, route: &Route) -> String {
    format!(r#"{{{},"generation":{}}}"#, members(route), version.generation)
}

/// The members of a route; without `endpoints` if it has none.
fn members(route: &Route) -> String {
    let mut json = format!(r#""port":{},"state":"{}""#, route.port, route.state.name());
    for (n, (name, port)) in route.endpoints.iter().enumerate() {
        let before = if n == 0 { r#","endpoints":{"# } else { "," };
        let _ = write!(json, r#"{before}"{name}":{port}"#);
    }
    if !route.endpoints.is_empty() {
        json.push('}');
    }
    json
}

/// The body of `GET /v1/status`.
pub(super) fn status_body(version: Version, routes: usize, loaded: bool, fleet: &FleetStatus) -> String {
    let FleetStatus { enabled, version: of_fleet, peers, routes: fleet_routes } = fleet;
    format!(
        r#"{{"epoch":"{}","generation":{},"routes":{routes},"loaded":{loaded},"version":{},"fleet":{{"enabled":{enabled},"loaded":{},"epoch":"{}","generation":{},"peers":{peers},"routes":{fleet_routes}}}}}"#,
        version.epoch_text(),
        version.generation,
        quote(env!("CARGO_PKG_VERSION")),
        of_fleet.generation != 0,
        of_fleet.epoch_text(),
        of_fleet.generation,
    )
}

/// What the status says of the fleet map. All of it is 0 if the fleet is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FleetStatus {
    pub(super) enabled: bool,
    pub(super) version: Version,
    pub(super) peers: usize,
    pub(super) routes: usize,
}

/// The body of `GET /v1/fleet`.
pub(super) fn fleet_body(version: Version, peers: &Peers<'_>, routes: &[(DeploymentId<'_>, Preference)]) -> String {
    let mut json = String::with_capacity(64 + peers.len() * 96 + routes.len() * 96);
    let _ = write!(json, r#"{{"epoch":"{}","generation":{},"peers":{{"#, version.epoch_text(), version.generation);
    for (n, (name, peer)) in peers.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(json, r#"{comma}"{name}":{{"host":"{}","state":"{}"}}"#, peer.host, peer.state.name());
    }
    json.push_str(r#"},"routes":{"#);
    for (n, (id, route)) in routes.iter().enumerate() {
        json.push_str(if n == 0 { "\"" } else { ",\"" });
        json.push_str(id.as_str());
        json.push_str("\":[");
        for (n, name) in peers.names_of(route).enumerate() {
            json.push_str(if n == 0 { "\"" } else { ",\"" });
            json.push_str(name.as_str());
            json.push('"');
        }
        json.push(']');
    }
    json.push_str("}}");
    json
}

/// The body of `GET /v1/fleet/peers`.
pub(super) fn fleet_peers_body(reports: &[PeerReport<'_>]) -> String {
    let mut json = String::with_capacity(16 + reports.len() * 160);
    json.push('{');
    for (n, PeerReport { name, peer, routes, since }) in reports.iter().enumerate() {
        let (comma, host, state) = (if n == 0 { "" } else { "," }, peer.host, peer.state.name());
        let _ = write!(json, r#"{comma}"{name}":{{"host":"{host}","state":"{state}","routes":{routes},"since":"{since}"}}"#);
    }
    json.push('}');
    json
}

/// The body of every write to the fleet map.
pub(super) fn fleet_applied_body(version: Version, Counts { added, changed, removed }: Counts) -> String {
    format!(
        r#"{{"epoch":"{}","generation":{},"added":{added},"changed":{changed},"removed":{removed}}}"#,
        version.epoch_text(),
        version.generation
    )
}

/// The body of every write that has one.
pub(super) fn applied_body(version: Version, applied: &Applied) -> String {
    let displaced: Vec<String> = applied.displaced.keys().map(|id| quote(id.as_id().as_str())).collect();
    let warning = warning(&applied.displaced).map_or_else(String::new, |words| format!(r#","warning":{}"#, quote(&words)));
    format!(
        r#"{{"epoch":"{}","generation":{},"added":{},"changed":{},"removed":{},"displaced":[{}]{warning}}}"#,
        version.epoch_text(),
        version.generation,
        applied.added,
        applied.changed,
        applied.removed.len(),
        displaced.join(",")
    )
}

/// How many displaced routes a warning names, so that the warning of a large write is short, too.
const WARNED: usize = 3;

/// What to do about a displaced route.
const ADVICE: &str = "One port serves one id: if an agent that lost its route still runs, it needs another port";

/// Says in words which routes a write displaced, and what to do; nothing if there are none. True of a dry run, too.
fn warning(displaced: &BTreeMap<OwnedDeploymentId, Taken>) -> Option<String> {
    let taken = |(id, Taken { port, by }): (&OwnedDeploymentId, &Taken)| {
        format!("{} takes port {port} from {}, which loses its route", by.as_id(), id.as_id())
    };
    let mut told: Vec<String> = displaced.iter().take(WARNED).map(taken).collect();
    let more = displaced.len().saturating_sub(WARNED);
    if more > 0 {
        told.push(format!("see displaced for {more} more"));
    }
    (!told.is_empty()).then(|| format!("{}. {ADVICE}", told.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check(displaced: &[&str], expected: Option<&str>) {
        let owned = |text: &str| OwnedDeploymentId::from(DeploymentId::parse(text.as_bytes()).expect("valid"));
        let taken = |(id, port): (&&str, u16)| (owned(id), Taken { port, by: owned("new") });
        let expected = expected.map(|words| format!("{words}. {ADVICE}"));
        assert_eq!(warning(&displaced.iter().zip(5000..).map(taken).collect()), expected);
    }

    #[test]
    fn a_warning_names_both_ids_and_the_port_and_stays_short() {
        check(&[], None);
        let a = "new takes port 5000 from a, which loses its route";
        check(&["a"], Some(a));
        let three = format!("{a}; {}; {}", a.replace("5000 from a", "5001 from b"), a.replace("5000 from a", "5002 from c"));
        check(&["a", "b", "c"], Some(&three));
        check(&["a", "b", "c", "d", "e"], Some(&format!("{three}; see displaced for 2 more")));
    }
}
