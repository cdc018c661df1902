//! Envoy's metrics as the filter uses them. A metric that Envoy's configuration switches off accepts every value and shows none.

use crate::host;
use pixell_core::admin::tally::{Gauge, Map, Metrics};
use pixell_core::hop::Outcome;
use pixell_core::metrics::{
    BUILD_INFO, CARDS_UNCHANGED, DISPLACED, FIRST_LOGGED, FLEET_GENERATION, FLEET_LAST_PUSH, FLEET_MISDIRECTED, FLEET_PEERS,
    FLEET_PUBLISHES, FLEET_REFUSED_WRITES, FLEET_REQUESTS, FLEET_ROUTES, GENERATION, HOPS, LAST_PUSH, OTHER, PANICS,
    PEER_FAILURES, PUBLISHES, REFRESHES, REFUSED_CONNECTIONS, REFUSED_WRITES, REJECTION_REASONS, REJECTIONS, ROUTES,
    WRITE_ERRORS, labelled, worker_label,
};
use pixell_core::responses::Unchanged;
use pixell_core::store::layout::WORKERS;
use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;
use std::cell::Cell;

/// One of Envoy's metrics; all VMs share those of one name.
#[derive(Clone, Copy)]
struct Metric(Option<u32>);

impl Metric {
    fn define(kind: MetricType, name: &str) -> Self {
        Self(hostcalls::define_metric(kind, name).ok())
    }

    fn counter(name: &str) -> Self {
        Self::define(MetricType::Counter, name)
    }

    fn gauge(name: &str) -> Self {
        Self::define(MetricType::Gauge, name)
    }

    fn increment(self) {
        self.add(1);
    }

    fn add(self, count: i64) {
        let _ = self.0.map(|id| hostcalls::increment_metric(id, count));
    }

    fn set(self, value: u64) {
        let _ = self.0.map(|id| hostcalls::record_metric(id, value));
    }
}

/// One counter with a label of fixed values.
struct Labelled<const N: usize> {
    values: [&'static str; N],
    counters: [Metric; N],
}

impl<const N: usize> Labelled<N> {
    /// All of them exist from the start, at 0, so that a rate is right from the first increment on.
    fn define(name: &str, label: &str, values: [&'static str; N]) -> Self {
        Self { values, counters: values.map(|value| Metric::counter(&labelled(name, label, value))) }
    }

    fn increment(&self, value: &str) {
        let of = |wanted: &str| self.values.iter().zip(self.counters).find(|(known, _)| **known == wanted);
        if let Some((_, counter)) = of(value).or_else(|| of(OTHER)) {
            counter.increment();
        }
    }
}

/// How many of each kind are still to be logged whatever the rate.
struct First<const N: usize> {
    kinds: [&'static str; N],
    left: [Cell<u8>; N],
}

impl<const N: usize> First<N> {
    const fn of(kinds: [&'static str; N]) -> Self {
        Self { kinds, left: [const { Cell::new(FIRST_LOGGED) }; N] }
    }

    /// Whether this is one of the first of its kind.
    fn take(&self, kind: &str) -> bool {
        let of_kind = self.kinds.iter().zip(&self.left).find(|(known, _)| **known == kind);
        of_kind.is_some_and(|(_, left)| {
            let before = left.get();
            left.set(before.saturating_sub(1));
            before > 0
        })
    }
}

/// What a plugin of the data path counts. A request that is forwarded costs nothing here.
pub(crate) struct RouterMetrics {
    rejections: Labelled<{ REJECTION_REASONS.len() }>,
    first: First<{ REJECTION_REASONS.len() }>,
    hops: Labelled<{ HOPS.len() }>,
    misdirected: Labelled<{ HOPS.len() }>,
    failures: Metric,
}

impl RouterMetrics {
    pub(crate) fn define() -> Self {
        host::prepare_number(WORKERS);
        let first = First::of(REJECTION_REASONS);
        Self {
            rejections: Labelled::define(REJECTIONS, "reason", REJECTION_REASONS),
            first,
            hops: Labelled::define(FLEET_REQUESTS, "hop", HOPS),
            misdirected: Labelled::define(FLEET_MISDIRECTED, "hop", HOPS),
            failures: Metric::counter(PEER_FAILURES),
        }
    }

    /// Counts a request that goes to a peer (`out`) or was sent by one (`in`).
    pub(crate) fn hopped(&self, hop: &str) {
        self.hops.increment(hop);
    }

    /// Counts a request that another task has to serve, as its peer sees it (`in`) or the task that sent it (`out`).
    pub(crate) fn misdirected(&self, hop: &str) {
        self.misdirected.increment(hop);
    }

    /// Counts how an attempt to reach a peer ended.
    pub(crate) fn ended(&self, outcome: Outcome) {
        match outcome {
            Outcome::Returned => self.misdirected("out"),
            Outcome::Lost => {}
            Outcome::Unreachable => self.peer_failed(),
        }
    }

    /// Counts a peer that failed.
    pub(crate) fn peer_failed(&self) {
        self.failures.increment();
    }

    /// Counts a rejection, and tells whether it is one of this worker's first of its kind.
    pub(crate) fn rejected(&self, code: &str) -> bool {
        self.rejections.increment(code);
        self.first.take(code)
    }
}

/// What the plugin of responses counts.
pub(crate) struct CardMetrics {
    unchanged: Labelled<{ Unchanged::REASONS.len() }>,
    first: First<{ Unchanged::REASONS.len() }>,
}

impl CardMetrics {
    pub(crate) fn define() -> Self {
        let unchanged = Labelled::define(CARDS_UNCHANGED, "reason", Unchanged::REASONS);
        Self { unchanged, first: First::of(Unchanged::REASONS) }
    }

    /// Counts a card that passes unchanged, and tells whether it is one of this worker's first for this reason.
    pub(crate) fn unchanged(&self, reason: &str) -> bool {
        self.unchanged.increment(reason);
        self.first.take(reason)
    }
}

/// What the plugins for clients' shares count.
pub(crate) struct ClientMetrics {
    rejections: Labelled<{ REJECTION_REASONS.len() }>,
    refused: Metric,
}

impl ClientMetrics {
    pub(crate) fn define() -> Self {
        let rejections = Labelled::define(REJECTIONS, "reason", REJECTION_REASONS);
        Self { rejections, refused: Metric::counter(REFUSED_CONNECTIONS) }
    }

    pub(crate) fn rejected(&self, code: &str) {
        self.rejections.increment(code);
    }

    pub(crate) fn refused(&self) {
        self.refused.increment();
    }
}

/// Counts how often this worker's copy of the map was refreshed, whichever plugin needed it.
#[derive(Default)]
pub(crate) struct Refreshes(Option<Metric>);

impl Refreshes {
    /// Counts one refresh. The counter gets its name when the worker takes its first request: Envoy does not tell a VM to which worker it
    /// belongs, and the main thread's VM never takes a request.
    pub(crate) fn count(&mut self) {
        let named = || Metric::counter(&labelled(REFRESHES, "worker", &worker_label(host::next_number(WORKERS))));
        self.0.get_or_insert_with(named).increment();
    }
}

/// What the route API counts.
pub(crate) struct AdminMetrics {
    routes: Metric,
    generation: Metric,
    publishes: Metric,
    displaced: Metric,
    last_push: Metric,
    rejected_writes: Labelled<{ WRITE_ERRORS.len() }>,
    fleet: FleetMetrics,
}

/// What it counts of the fleet map.
struct FleetMetrics {
    routes: Metric,
    peers: Metric,
    generation: Metric,
    publishes: Metric,
    last_push: Metric,
    rejected_writes: Labelled<{ WRITE_ERRORS.len() }>,
}

impl AdminMetrics {
    pub(crate) fn define() -> Self {
        // Stays at 0 here: a panic ends the VM, and Envoy counts that. It exists so that both forms of the filter have the same metrics.
        Metric::counter(PANICS);
        Metric::gauge(&labelled(BUILD_INFO, "version", env!("CARGO_PKG_VERSION"))).set(1);
        Self {
            routes: Metric::gauge(ROUTES),
            generation: Metric::gauge(GENERATION),
            publishes: Metric::counter(PUBLISHES),
            displaced: Metric::counter(DISPLACED),
            last_push: Metric::gauge(LAST_PUSH),
            rejected_writes: Labelled::define(REFUSED_WRITES, "reason", WRITE_ERRORS),
            fleet: FleetMetrics {
                routes: Metric::gauge(FLEET_ROUTES),
                peers: Metric::gauge(FLEET_PEERS),
                generation: Metric::gauge(FLEET_GENERATION),
                publishes: Metric::counter(FLEET_PUBLISHES),
                last_push: Metric::gauge(FLEET_LAST_PUSH),
                rejected_writes: Labelled::define(FLEET_REFUSED_WRITES, "reason", WRITE_ERRORS),
            },
        }
    }
}

impl Metrics for AdminMetrics {
    fn count_publish(&self, map: Map) {
        match map {
            Map::Routes => self.publishes,
            Map::Fleet => self.fleet.publishes,
        }
        .increment();
    }

    fn count_displaced(&self, routes: usize) {
        if let Ok(routes @ 1..) = i64::try_from(routes) {
            self.displaced.add(routes);
        }
    }

    fn count_rejected_write(&self, map: Map, code: &str) {
        match map {
            Map::Routes => &self.rejected_writes,
            Map::Fleet => &self.fleet.rejected_writes,
        }
        .increment(code);
    }

    fn set(&self, gauge: Gauge, value: u64) {
        match gauge {
            Gauge::Routes => self.routes,
            Gauge::Generation => self.generation,
            Gauge::LastPush => self.last_push,
            Gauge::FleetRoutes => self.fleet.routes,
            Gauge::FleetPeers => self.fleet.peers,
            Gauge::FleetGeneration => self.fleet.generation,
            Gauge::FleetLastPush => self.fleet.last_push,
        }
        .set(value);
    }

    fn now(&self) -> u64 {
        host::time_of_day().as_unix()
    }
}
