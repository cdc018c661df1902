//! The metrics that the filter keeps, by the names and labels that Prometheus sees.
//!
//! Envoy's metrics have no labels of their own: a label is part of the name, `<name>.<label>.<value>`, and `stats_tags` of
//! `envoy/envoy.yaml` takes it out again. Every label has a fixed set of values; no deployment id is ever one.

use crate::admin::code::Code;
use crate::hop::Direction;
use crate::rejection::Rejection;

mod first;
mod labelled;

pub use first::{FIRST_LOGGED, First};
pub use labelled::{Labelled, labelled};

/// Counter: requests that the filter rejected, by `reason`.
pub const REJECTIONS: &str = "pixell_rejections_total";

/// Gauge: routes in the map, draining ones too.
pub const ROUTES: &str = "pixell_routes";

/// Gauge: generation of the map; 0 until the first one was stored.
pub const GENERATION: &str = "pixell_route_map_generation";

/// Counter: writes that changed the map.
pub const PUBLISHES: &str = "pixell_route_map_publishes_total";

/// Counter: routes that are gone because a write gave their port to another id.
pub const DISPLACED: &str = "pixell_displaced_routes_total";

/// Gauge: Unix time of the last accepted write, in seconds, whether it changed anything or not; 0 until the first.
pub const LAST_PUSH: &str = "pixell_route_map_last_push_timestamp_seconds";

/// Counter: writes that the route API rejected, by `reason`.
pub const REFUSED_WRITES: &str = "pixell_route_map_refused_writes_total";

/// Gauge: routes in the fleet map.
pub const FLEET_ROUTES: &str = "pixell_fleet_routes";

/// Gauge: peers in the fleet map, draining ones too.
pub const FLEET_PEERS: &str = "pixell_fleet_peers";

/// Gauge: generation of the fleet map; 0 until the first one was stored.
pub const FLEET_GENERATION: &str = "pixell_fleet_map_generation";

/// Counter: writes that changed the fleet map.
pub const FLEET_PUBLISHES: &str = "pixell_fleet_map_publishes_total";

/// Gauge: Unix time of the last accepted write to the fleet map, in seconds, whether it changed anything or not; 0 until the first.
pub const FLEET_LAST_PUSH: &str = "pixell_fleet_map_last_push_timestamp_seconds";

/// Counter: writes to the fleet map that the route API rejected, by `reason`.
pub const FLEET_REFUSED_WRITES: &str = "pixell_fleet_map_refused_writes_total";

/// Counter: agent cards that passed unchanged although the client addressed the agent by path or host, by `reason`
/// ([`crate::responses::Unchanged::REASONS`]).
pub const CARDS_UNCHANGED: &str = "pixell_agent_cards_unchanged_total";

/// Counter: connections that were closed because their client already had the largest number.
pub const REFUSED_CONNECTIONS: &str = "pixell_client_connections_refused_total";

/// Counter: requests that another task of the fleet serves, or has sent here, by `hop` ([`HOPS`]).
pub const FLEET_REQUESTS: &str = "pixell_fleet_requests_total";

/// Counter: such requests that came back because the peer had no active route for them, or refused the stream, by `hop`.
pub const FLEET_MISDIRECTED: &str = "pixell_fleet_misdirected_total";

/// Counter: attempts to reach a peer that accepted no connection.
pub const PEER_FAILURES: &str = "pixell_fleet_peer_failures_total";

/// The values of the label `hop`: requests that leave this task, and those that peers send.
pub const HOPS: [&str; 2] = [Direction::Out.name(), Direction::In.name()];

/// Counter: how often a worker fetched the map, by `worker`.
pub const REFRESHES: &str = "pixell_route_map_refreshes_total";

/// Gauge, always 1: the filter's `version`.
pub const BUILD_INFO: &str = "pixell_build_info";

/// Gauge: the change signal, by which workers notice that the map has changed.
pub const CHANGES: &str = "pixell_route_map_changes";

/// Counter: panics of the native filter, each of which costs the request that it met; 0 if the filter is WebAssembly.
pub const PANICS: &str = "pixell_panics_total";

/// Every reason of [`REJECTIONS`].
pub const REJECTION_REASONS: [&str; Rejection::CODES.len()] = Rejection::CODES;

/// What is counted if a value outside of its set turns up, so that a label stays bounded whatever happens.
pub const OTHER: &str = "other";

/// Every reason of [`REFUSED_WRITES`] and [`FLEET_REFUSED_WRITES`]: the codes of the route API's error documents.
pub const WRITE_ERRORS: [&str; Code::ALL.len() + 1] = {
    let mut reasons = [OTHER; Code::ALL.len() + 1];
    let mut n = 0;
    while n < Code::ALL.len() {
        // A constant: an index beyond the end does not compile.
        #[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
        {
            reasons[n] = Code::ALL[n].name();
        }
        n += 1;
    }
    reasons
};

/// The most workers that an Envoy may have, and so the most values of the label `worker`. Each worker has its own VM for each module, so thousands
/// of workers are a mistake.
pub const MAX_WORKERS: u32 = 256;

/// The label of the `ordinal`-th worker that has taken a request, from 1. A worker whose VM has crashed gets a new one.
#[must_use]
pub fn worker_label(ordinal: u64) -> String {
    if (1..=u64::from(MAX_WORKERS)).contains(&ordinal) { ordinal.to_string() } else { OTHER.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn labels_are_bounded() {
        assert_eq!(labelled(REJECTIONS, "reason", "internal"), "pixell_rejections_total.reason.internal");
        for (ordinal, label) in [(1, "1"), (256, "256"), (257, "other"), (0, "other"), (u64::MAX, "other")] {
            assert_eq!(worker_label(ordinal), label);
        }
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.name()).chain([OTHER]).collect();
        assert_eq!(WRITE_ERRORS.as_slice(), codes);
    }
}
