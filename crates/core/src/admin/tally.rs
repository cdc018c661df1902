//! What the route API counts, whatever host keeps the metrics.

use super::response::Outcome;
use crate::fleet::FleetMap;
use crate::metrics::{
    DISPLACED, FLEET_GENERATION, FLEET_LAST_PUSH, FLEET_PEERS, FLEET_PUBLISHES, FLEET_REFUSED_WRITES, FLEET_ROUTES, GENERATION,
    LAST_PUSH, Labelled, PUBLISHES, REFUSED_WRITES, ROUTES, WRITE_ERRORS,
};
use crate::store::{ChangeSignal, FLEET_MAP, ROUTE_MAP, SharedData, Stored};

/// How often the gauges are set once more because the map moved on meanwhile; then the writer that moved it sets them.
const MAX_SETTLING: usize = 16;

/// One of the two maps that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Map {
    /// The route map.
    #[default]
    Routes,
    /// The fleet map.
    Fleet,
}

impl Map {
    /// The map that a request for this path is about.
    #[must_use]
    pub fn of_path(target: &[u8]) -> Self {
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        if matches!(path, b"/v1/fleet" | b"/v1/fleet/peers") { Self::Fleet } else { Self::Routes }
    }
}

/// A gauge about a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// [`crate::metrics::ROUTES`]
    Routes,
    /// [`crate::metrics::GENERATION`]
    Generation,
    /// [`crate::metrics::LAST_PUSH`]
    LastPush,
    /// [`crate::metrics::FLEET_ROUTES`]
    FleetRoutes,
    /// [`crate::metrics::FLEET_PEERS`]
    FleetPeers,
    /// [`crate::metrics::FLEET_GENERATION`]
    FleetGeneration,
    /// [`crate::metrics::FLEET_LAST_PUSH`]
    FleetLastPush,
}

/// Where the metrics are kept.
pub trait Metrics {
    /// Counts a write that changed the map.
    fn count_publish(&self, map: Map);

    /// Counts routes that lost their port to another id.
    fn count_displaced(&self, routes: usize);

    /// Counts a write that was rejected with this code.
    fn count_rejected_write(&self, map: Map, code: &str);

    /// Sets a gauge.
    fn set(&self, gauge: Gauge, value: u64);

    /// Unix time in seconds.
    fn now(&self) -> u64;
}

/// The metrics as a host has defined them. `M` is what the host has for a counter or a gauge.
#[derive(Debug)]
pub struct Defined<M> {
    routes: OfMap<M>,
    fleet: OfMap<M>,
    peers: M,
    displaced: M,
}

/// What both maps have.
#[derive(Debug)]
struct OfMap<M> {
    routes: M,
    generation: M,
    last_push: M,
    publishes: M,
    rejected_writes: Labelled<M, { WRITE_ERRORS.len() }>,
}

impl<M> Defined<M> {
    /// Defines them all; `counter` and `gauge` define one by its name.
    pub fn define(counter: impl Fn(&str) -> M, gauge: impl Fn(&str) -> M) -> Self {
        let rejected_writes = |name| Labelled::define(name, "reason", WRITE_ERRORS, &counter);
        Self {
            routes: OfMap {
                routes: gauge(ROUTES),
                generation: gauge(GENERATION),
                last_push: gauge(LAST_PUSH),
                publishes: counter(PUBLISHES),
                rejected_writes: rejected_writes(REFUSED_WRITES),
            },
            fleet: OfMap {
                routes: gauge(FLEET_ROUTES),
                generation: gauge(FLEET_GENERATION),
                last_push: gauge(FLEET_LAST_PUSH),
                publishes: counter(FLEET_PUBLISHES),
                rejected_writes: rejected_writes(FLEET_REFUSED_WRITES),
            },
            peers: gauge(FLEET_PEERS),
            displaced: counter(DISPLACED),
        }
    }

    const fn of(&self, map: Map) -> &OfMap<M> {
        match map {
            Map::Routes => &self.routes,
            Map::Fleet => &self.fleet,
        }
    }

    /// The counter of writes that changed the map.
    pub const fn publishes(&self, map: Map) -> &M {
        &self.of(map).publishes
    }

    /// The counter of routes that lost their port to another id.
    pub const fn displaced(&self) -> &M {
        &self.displaced
    }

    /// The counter of writes that were rejected with this code; `None` if there is none.
    pub fn rejected_writes(&self, map: Map, code: &str) -> Option<&M> {
        self.of(map).rejected_writes.of(code)
    }

    /// A gauge.
    pub const fn gauge(&self, gauge: Gauge) -> &M {
        match gauge {
            Gauge::Routes => &self.routes.routes,
            Gauge::Generation => &self.routes.generation,
            Gauge::LastPush => &self.routes.last_push,
            Gauge::FleetRoutes => &self.fleet.routes,
            Gauge::FleetPeers => &self.peers,
            Gauge::FleetGeneration => &self.fleet.generation,
            Gauge::FleetLastPush => &self.fleet.last_push,
        }
    }
}

/// Counts how a request about a map ended.
pub fn record(outcome: Outcome, map: Map, metrics: &impl Metrics, data: &impl SharedData, signal: &impl ChangeSignal) {
    let last_push = match map {
        Map::Routes => Gauge::LastPush,
        Map::Fleet => Gauge::FleetLastPush,
    };
    match outcome {
        Outcome::Read => {}
        Outcome::Published { displaced } => {
            metrics.count_publish(map);
            metrics.count_displaced(displaced);
            metrics.set(last_push, metrics.now());
            settle(map, metrics, data, signal);
        }
        Outcome::Confirmed => metrics.set(last_push, metrics.now()),
        Outcome::Rejected(code) => metrics.count_rejected_write(map, code),
    }
}

/// Sets the gauges from the present map. Two writers may get here in another order than that of their maps, so each checks whether
/// the map has changed since it set the gauges.
pub fn settle(map: Map, metrics: &impl Metrics, data: &impl SharedData, signal: &impl ChangeSignal) {
    for _ in 0..MAX_SETTLING {
        let seen = signal.read();
        match map {
            Map::Routes => {
                let map = Stored::now(data, &ROUTE_MAP);
                metrics.set(Gauge::Routes, map.len() as u64);
                metrics.set(Gauge::Generation, map.version().generation);
            }
            Map::Fleet => {
                let map = Stored::now(data, &FLEET_MAP);
                metrics.set(Gauge::FleetRoutes, map.len() as u64);
                // If the map has changed meanwhile, so has the signal.
                metrics.set(Gauge::FleetPeers, FleetMap::new(&map).peer_count().unwrap_or_default() as u64);
                metrics.set(Gauge::FleetGeneration, map.version().generation);
            }
        }
        if signal.read() == seen {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet;
    use crate::route::Route;
    use crate::routes::tests::map_of;
    use crate::store::memory::MemorySignal;
    use std::cell::RefCell;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// What was counted, in words; the signal is raised before the first gauge is set, as by a rival.
    #[derive(Default)]
    struct Kept {
        words: RefCell<Vec<String>>,
        signal: MemorySignal,
        rival: bool,
    }

    impl Metrics for Kept {
        fn count_publish(&self, map: Map) {
            self.words.borrow_mut().push(if map == Map::Fleet { "fleet publish" } else { "publish" }.to_owned());
        }

        fn count_displaced(&self, routes: usize) {
            if routes > 0 {
                self.words.borrow_mut().push(format!("displaced {routes}"));
            }
        }

        fn count_rejected_write(&self, map: Map, code: &str) {
            self.words.borrow_mut().push(format!("{map:?} {code}"));
        }

        fn set(&self, gauge: Gauge, value: u64) {
            if self.rival && self.signal.read() == 0 {
                self.signal.raise();
            }
            self.words.borrow_mut().push(format!("{gauge:?} {value}"));
        }

        fn now(&self) -> u64 {
            99
        }
    }

    fn words(outcome: Outcome, rival: bool) -> Vec<String> {
        let kept = Kept { rival, ..Kept::default() };
        record(outcome, Map::Routes, &kept, &map_of(&[("a", Route::active(1))]), &kept.signal);
        kept.words.into_inner()
    }

    #[test]
    fn each_metric_has_its_name() {
        let defined = Defined::define(|name| format!("counter {name}"), |name| format!("gauge {name}"));
        for (gauge, name) in [
            (Gauge::Routes, "pixell_routes"),
            (Gauge::Generation, "pixell_route_map_generation"),
            (Gauge::LastPush, "pixell_route_map_last_push_timestamp_seconds"),
            (Gauge::FleetRoutes, "pixell_fleet_routes"),
            (Gauge::FleetPeers, "pixell_fleet_peers"),
            (Gauge::FleetGeneration, "pixell_fleet_map_generation"),
            (Gauge::FleetLastPush, "pixell_fleet_map_last_push_timestamp_seconds"),
        ] {
            assert_eq!(defined.gauge(gauge), &format!("gauge {name}"));
        }
        assert_eq!(defined.displaced(), "counter pixell_displaced_routes_total");
        for (map, name) in [(Map::Routes, "pixell_route_map"), (Map::Fleet, "pixell_fleet_map")] {
            assert_eq!(defined.publishes(map), &format!("counter {name}_publishes_total"));
            let refused = format!("counter {name}_refused_writes_total.reason.");
            assert_eq!(defined.rejected_writes(map, "not_found"), Some(&(refused.clone() + "not_found")));
            assert_eq!(defined.rejected_writes(map, "no such code"), Some(&(refused + "other")));
        }
    }

    #[test]
    fn each_outcome_is_counted() {
        assert!(words(Outcome::Read, false).is_empty());
        let published = |displaced| words(Outcome::Published { displaced }, false);
        assert_eq!(published(0), ["publish", "LastPush 99", "Routes 1", "Generation 1"]);
        assert_eq!(published(2), ["publish", "displaced 2", "LastPush 99", "Routes 1", "Generation 1"]);
        assert_eq!(words(Outcome::Confirmed, false), ["LastPush 99"]);
        assert_eq!(words(Outcome::Rejected("not_found"), false), ["Routes not_found"]);
    }

    #[test]
    fn writes_to_the_fleet_map_are_counted_apart() {
        let data = fleet::tests::prepared();
        let of = |outcome| {
            let kept = Kept::default();
            record(outcome, Map::Fleet, &kept, &data, &kept.signal);
            kept.words.into_inner()
        };
        assert_eq!(of(Outcome::Confirmed), ["FleetLastPush 99"]);
        assert_eq!(of(Outcome::Rejected("invalid_fleet")), ["Fleet invalid_fleet"]);
        let change = fleet::tests::setting(true, &[("b", fleet::tests::at(2)), ("c", fleet::tests::at(3))], &[("x", &["b"])]);
        fleet::tests::publish_change(&data, &MemorySignal::default(), &change);
        let published = of(Outcome::Published { displaced: 0 });
        assert_eq!(published, ["fleet publish", "FleetLastPush 99", "FleetRoutes 1", "FleetPeers 2", "FleetGeneration 1"]);
        for (path, map) in [
            ("/v1/fleet", Map::Fleet),
            ("/v1/fleet?dry_run=true", Map::Fleet),
            ("/v1/fleet/peers", Map::Fleet),
            ("/v1/routes", Map::Routes),
            ("/v1/fleets", Map::Routes),
            ("/v1/fleet/x", Map::Routes),
        ] {
            assert_eq!(Map::of_path(path.as_bytes()), map, "{path}");
        }
    }

    #[test]
    fn gauges_settle_on_the_map_that_is_last() {
        let expected = ["publish", "LastPush 99", "Routes 1", "Generation 1", "Routes 1", "Generation 1"];
        // The rival comes while LastPush is set, before the map is looked at.
        assert_eq!(words(Outcome::Published { displaced: 0 }, true), expected[..4]);
        let kept = Kept { rival: true, ..Kept::default() };
        settle(Map::Routes, &kept, &map_of(&[("a", Route::active(1))]), &kept.signal);
        assert_eq!(kept.words.into_inner(), expected[2..]);
    }
}
