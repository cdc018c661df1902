//! Envoy's metrics as the filter uses them. A metric that Envoy's configuration switches off accepts every value and shows none.

use crate::host;
use pixell_core::admin::tally::{Defined, Gauge, Map, Metrics};
use pixell_core::data_path::{Counters, Event, FirstRejections, Rejected};
use pixell_core::metrics::{
    BUILD_INFO, CARDS_UNCHANGED, First, Labelled, PANICS, REFRESHES, REFUSED_CONNECTIONS, REJECTION_REASONS, REJECTIONS,
    labelled, worker_label,
};
use pixell_core::responses::Unchanged;
use pixell_core::store::layout::WORKERS;
use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

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

fn increment<const N: usize>(counters: &Labelled<Metric, N>, value: &str) {
    if let Some(counter) = counters.of(value) {
        counter.increment();
    }
}

/// What a plugin of the data path counts.
pub(crate) struct RouterMetrics {
    counters: Counters<Metric>,
    first: FirstRejections,
}

impl RouterMetrics {
    pub(crate) fn define() -> Self {
        host::prepare_number(WORKERS);
        Self { counters: Counters::define(Metric::counter), first: FirstRejections::of(REJECTION_REASONS) }
    }

    pub(crate) fn count(&self, event: Event) {
        if let Some(counter) = self.counters.of(event) {
            counter.increment();
        }
    }

    /// Counts a rejection, and tells whether it is logged whatever the rate.
    pub(crate) fn rejected(&self, rejected: &Rejected) -> bool {
        self.count(rejected.event());
        rejected.is_first(&self.first)
    }
}

/// What the plugin of responses counts.
pub(crate) struct CardMetrics {
    unchanged: Labelled<Metric, { Unchanged::REASONS.len() }>,
    first: First<{ Unchanged::REASONS.len() }>,
}

impl CardMetrics {
    pub(crate) fn define() -> Self {
        let unchanged = Labelled::define(CARDS_UNCHANGED, "reason", Unchanged::REASONS, Metric::counter);
        Self { unchanged, first: First::of(Unchanged::REASONS) }
    }

    /// Counts a card that passes unchanged, and tells whether it is one of this worker's first for this reason.
    pub(crate) fn unchanged(&self, reason: &str) -> bool {
        increment(&self.unchanged, reason);
        self.first.take(reason)
    }
}

/// What the plugins for clients' shares count.
pub(crate) struct ClientMetrics {
    rejections: Labelled<Metric, { REJECTION_REASONS.len() }>,
    refused: Metric,
}

impl ClientMetrics {
    pub(crate) fn define() -> Self {
        let rejections = Labelled::define(REJECTIONS, "reason", REJECTION_REASONS, Metric::counter);
        Self { rejections, refused: Metric::counter(REFUSED_CONNECTIONS) }
    }

    pub(crate) fn rejected(&self, code: &str) {
        increment(&self.rejections, code);
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
pub(crate) struct AdminMetrics(Defined<Metric>);

impl AdminMetrics {
    pub(crate) fn define() -> Self {
        // Stays at 0 here: a panic ends the VM, and Envoy counts that. It exists so that both forms of the filter have the same metrics.
        Metric::counter(PANICS);
        Metric::gauge(&labelled(BUILD_INFO, "version", env!("CARGO_PKG_VERSION"))).set(1);
        Self(Defined::define(Metric::counter, Metric::gauge))
    }
}

impl Metrics for AdminMetrics {
    fn count_publish(&self, map: Map) {
        self.0.publishes(map).increment();
    }

    fn count_displaced(&self, routes: usize) {
        if let Ok(routes @ 1..) = i64::try_from(routes) {
            self.0.displaced().add(routes);
        }
    }

    fn count_rejected_write(&self, map: Map, code: &str) {
        if let Some(counter) = self.0.rejected_writes(map, code) {
            counter.increment();
        }
    }

    fn set(&self, gauge: Gauge, value: u64) {
        self.0.gauge(gauge).set(value);
    }

    fn now(&self) -> u64 {
        host::time_of_day().as_unix()
    }
}
