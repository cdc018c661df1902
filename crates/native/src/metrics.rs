//! Envoy's metrics as the filter uses them. A metric that Envoy's configuration switches off accepts every value and shows none.
//!
//! The labels are part of the names, as in the Wasm filter, so that both show the same metrics: `stats_tags` of `envoy/envoy.yaml`
//! takes them out again.

use crate::abi::{ConfigHost, Host, Metric};
use crate::host;
use crate::shared;
use pixell_core::admin::tally::{Gauge, Map, Metrics};
use pixell_core::hop::Outcome;
use pixell_core::metrics::{
    BUILD_INFO, CARDS_UNCHANGED, CHANGES, DISPLACED, FLEET_GENERATION, FLEET_LAST_PUSH, FLEET_MISDIRECTED, FLEET_PEERS,
    FLEET_PUBLISHES, FLEET_REFUSED_WRITES, FLEET_REQUESTS, FLEET_ROUTES, GENERATION, HOPS, LAST_PUSH, OTHER, PANICS,
    PEER_FAILURES, PUBLISHES, REFRESHES, REFUSED_WRITES, REJECTION_REASONS, REJECTIONS, ROUTES, WRITE_ERRORS, labelled,
    worker_label,
};
use pixell_core::responses::Unchanged;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// One counter with a label of fixed values.
#[derive(Debug)]
struct Labelled<const N: usize> {
    values: [&'static str; N],
    counters: [Option<Metric>; N],
}

impl<const N: usize> Labelled<N> {
    /// All of them exist from the start, at 0, so that a rate is right from the first increment on.
    fn define(host: &ConfigHost, name: &str, label: &str, values: [&'static str; N]) -> Self {
        Self { values, counters: values.map(|value| host.counter(&labelled(name, label, value), None)) }
    }

    fn increment(&self, host: &Host<'_>, value: &str) {
        let of = |wanted: &str| self.values.iter().zip(self.counters).find(|(known, _)| **known == wanted);
        if let Some((_, Some(counter))) = of(value).or_else(|| of(OTHER)) {
            host.count(counter, None);
        }
    }
}

/// What is counted of agent cards.
#[derive(Debug)]
pub(crate) struct CardMetrics {
    unchanged: Labelled<{ Unchanged::REASONS.len() }>,
}

impl CardMetrics {
    pub(crate) fn define(envoy: &ConfigHost) -> Self {
        Self { unchanged: Labelled::define(envoy, CARDS_UNCHANGED, "reason", Unchanged::REASONS) }
    }

    /// Counts a card that passes unchanged, and tells whether it is one of the first for this reason.
    pub(crate) fn unchanged(&self, envoy: &Host<'_>, reason: &str) -> bool {
        self.unchanged.increment(envoy, reason);
        host::is_first_card(reason)
    }
}

/// What a configuration of the data path counts. A request that is forwarded costs nothing here.
#[derive(Debug)]
pub(crate) struct RouterMetrics {
    rejections: Labelled<{ REJECTION_REASONS.len() }>,
    refreshes: Option<Metric>,
    panics: Option<Metric>,
    hops: Labelled<{ HOPS.len() }>,
    misdirected: Labelled<{ HOPS.len() }>,
    failures: Option<Metric>,
}

impl RouterMetrics {
    pub(crate) fn define(envoy: &ConfigHost) -> Self {
        Self {
            rejections: Labelled::define(envoy, REJECTIONS, "reason", REJECTION_REASONS),
            refreshes: envoy.counter(REFRESHES, Some("worker")),
            panics: envoy.counter(PANICS, None),
            hops: Labelled::define(envoy, FLEET_REQUESTS, "hop", HOPS),
            misdirected: Labelled::define(envoy, FLEET_MISDIRECTED, "hop", HOPS),
            failures: envoy.counter(PEER_FAILURES, None),
        }
    }

    pub(crate) fn count(&self, envoy: &Host<'_>, event: &Event) {
        match event {
            Event::Rejected(code) => self.rejections.increment(envoy, code),
            Event::Refreshed(worker) => count(envoy, self.refreshes, Some(worker)),
            Event::Panicked => count(envoy, self.panics, None),
            Event::Hopped(hop) => self.hops.increment(envoy, hop),
            Event::Misdirected => self.misdirected.increment(envoy, "in"),
            Event::Ended(Outcome::Returned) => self.misdirected.increment(envoy, "out"),
            Event::Ended(Outcome::Lost) => {}
            Event::PeerFailed | Event::Ended(Outcome::Unreachable) => count(envoy, self.failures, None),
        }
    }
}

/// What the data path counts.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A rejection with this code.
    Rejected(&'static str),
    /// The worker with this label has fetched the map.
    Refreshed(Rc<str>),
    /// A hook has panicked.
    Panicked,
    /// A request goes to a peer (`out`) or was sent by one (`in`).
    Hopped(&'static str),
    /// A request of a peer that another task has to serve.
    Misdirected,
    /// An attempt to reach a peer has ended.
    Ended(Outcome),
    /// A request has ended because of its peer.
    PeerFailed,
}

/// The label of a worker that takes its first request.
pub(crate) fn new_worker() -> Rc<str> {
    worker_label(shared::next_worker()).into()
}

/// What the route API counts.
#[derive(Debug)]
pub(crate) struct AdminMetrics {
    build_info: Option<Metric>,
    routes: Option<Metric>,
    generation: Option<Metric>,
    publishes: Option<Metric>,
    displaced: Option<Metric>,
    last_push: Option<Metric>,
    changes: Option<Metric>,
    panics: Option<Metric>,
    rejected_writes: Labelled<{ WRITE_ERRORS.len() }>,
    fleet: FleetMetrics,
}

/// What it counts of the fleet map.
#[derive(Debug)]
struct FleetMetrics {
    routes: Option<Metric>,
    peers: Option<Metric>,
    generation: Option<Metric>,
    publishes: Option<Metric>,
    last_push: Option<Metric>,
    rejected_writes: Labelled<{ WRITE_ERRORS.len() }>,
}

impl AdminMetrics {
    pub(crate) fn define(host: &ConfigHost) -> Self {
        Self {
            build_info: host.gauge(&labelled(BUILD_INFO, "version", env!("CARGO_PKG_VERSION"))),
            routes: host.gauge(ROUTES),
            generation: host.gauge(GENERATION),
            publishes: host.counter(PUBLISHES, None),
            displaced: host.counter(DISPLACED, None),
            last_push: host.gauge(LAST_PUSH),
            changes: host.gauge(CHANGES),
            panics: host.counter(PANICS, None),
            rejected_writes: Labelled::define(host, REFUSED_WRITES, "reason", WRITE_ERRORS),
            fleet: FleetMetrics {
                routes: host.gauge(FLEET_ROUTES),
                peers: host.gauge(FLEET_PEERS),
                generation: host.gauge(FLEET_GENERATION),
                publishes: host.counter(FLEET_PUBLISHES, None),
                last_push: host.gauge(FLEET_LAST_PUSH),
                rejected_writes: Labelled::define(host, FLEET_REFUSED_WRITES, "reason", WRITE_ERRORS),
            },
        }
    }

    pub(crate) fn show_build(&self, host: &Host<'_>) {
        set(host, self.build_info, 1);
    }

    pub(crate) fn show_change(&self, host: &Host<'_>) {
        if let Some(metric) = self.changes {
            host.raise(metric);
        }
    }

    pub(crate) fn panicked(&self, host: &Host<'_>) {
        count(host, self.panics, None);
    }
}

/// The route API's metrics during a hook, at a time in seconds since 1970.
#[derive(Debug)]
pub(crate) struct AdminRecord<'a> {
    pub(crate) metrics: &'a AdminMetrics,
    pub(crate) host: &'a Host<'a>,
    pub(crate) now: u64,
}

impl Metrics for AdminRecord<'_> {
    fn count_publish(&self, map: Map) {
        let metric = match map {
            Map::Routes => self.metrics.publishes,
            Map::Fleet => self.metrics.fleet.publishes,
        };
        count(self.host, metric, None);
    }

    fn count_displaced(&self, routes: usize) {
        for _ in 0..routes {
            count(self.host, self.metrics.displaced, None);
        }
    }

    fn count_rejected_write(&self, map: Map, code: &str) {
        let counters = match map {
            Map::Routes => &self.metrics.rejected_writes,
            Map::Fleet => &self.metrics.fleet.rejected_writes,
        };
        counters.increment(self.host, code);
    }

    fn set(&self, gauge: Gauge, value: u64) {
        let metric = match gauge {
            Gauge::Routes => self.metrics.routes,
            Gauge::Generation => self.metrics.generation,
            Gauge::LastPush => self.metrics.last_push,
            Gauge::FleetRoutes => self.metrics.fleet.routes,
            Gauge::FleetPeers => self.metrics.fleet.peers,
            Gauge::FleetGeneration => self.metrics.fleet.generation,
            Gauge::FleetLastPush => self.metrics.fleet.last_push,
        };
        set(self.host, metric, value);
    }

    fn now(&self) -> u64 {
        self.now
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

fn count(host: &Host<'_>, metric: Option<Metric>, label: Option<&str>) {
    if let Some(metric) = metric {
        host.count(metric, label);
    }
}

fn set(host: &Host<'_>, metric: Option<Metric>, value: u64) {
    if let Some(metric) = metric {
        host.set(metric, value);
    }
}
