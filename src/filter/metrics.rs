//! Envoy's metrics as the filter uses them. A metric that Envoy's configuration switches off takes every value and shows none.

use super::host::{self, HostData, Signal};
use crate::admin::reply::Outcome;
use crate::metrics::{
    BUILD_INFO, GENERATION, LAST_PUSH, OTHER, PUBLISHES, REFRESHES, REFUSAL_REASONS, REFUSED_WRITES, REJECTION_REASONS,
    REJECTIONS, ROUTES, labelled, worker_label,
};
use crate::store::{ChangeSignal, StoredMap};
use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;
use std::time::UNIX_EPOCH;

/// How often the gauges are set anew because the map moved on meanwhile; then the writer that moved it sets them.
const MAX_SETTLING: usize = 16;

/// Shared-data key of the number of workers that have taken a request.
const WORKERS_KEY: &str = "pixell.workers.1";

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
        let _ = self.0.map(|id| hostcalls::increment_metric(id, 1));
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

/// What a plugin of the data path counts. A request that is forwarded costs nothing here.
pub(super) struct RouterMetrics {
    rejections: Labelled<{ REJECTION_REASONS.len() }>,
}

impl RouterMetrics {
    pub(super) fn define() -> Self {
        host::prepare_number(WORKERS_KEY);
        Self { rejections: Labelled::define(REJECTIONS, "reason", REJECTION_REASONS) }
    }

    pub(super) fn rejected(&self, code: &str) {
        self.rejections.increment(code);
    }
}

/// Counts how often this worker's copy of the map was refreshed, whichever plugin needed it.
#[derive(Default)]
pub(super) struct Refreshes(Option<Metric>);

impl Refreshes {
    /// Counts one. The counter is named when the worker first takes a request: Envoy does not tell a VM whose it is, and one of
    /// them, the main thread's, never takes any.
    pub(super) fn count(&mut self) {
        let named = || Metric::counter(&labelled(REFRESHES, "worker", &worker_label(host::next_number(WORKERS_KEY))));
        self.0.get_or_insert_with(named).increment();
    }
}

/// What the route API counts.
pub(super) struct AdminMetrics {
    routes: Metric,
    generation: Metric,
    publishes: Metric,
    last_push: Metric,
    refused: Labelled<{ REFUSAL_REASONS.len() }>,
}

impl AdminMetrics {
    pub(super) fn define() -> Self {
        Metric::gauge(&labelled(BUILD_INFO, "version", env!("CARGO_PKG_VERSION"))).set(1);
        Self {
            routes: Metric::gauge(ROUTES),
            generation: Metric::gauge(GENERATION),
            publishes: Metric::counter(PUBLISHES),
            last_push: Metric::gauge(LAST_PUSH),
            refused: Labelled::define(REFUSED_WRITES, "reason", REFUSAL_REASONS),
        }
    }

    /// Counts how a write ended.
    pub(super) fn written(&self, outcome: Outcome, signal: Signal) {
        match outcome {
            Outcome::Read => {}
            Outcome::Published => {
                self.publishes.increment();
                self.pushed();
                self.settle(signal);
            }
            Outcome::Confirmed => self.pushed(),
            Outcome::Refused(code) => self.refused.increment(code),
        }
    }

    fn pushed(&self) {
        let now = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
        self.last_push.set(now.map_or(0, |now| now.as_secs()));
    }

    /// Makes the gauges tell of the map as it is now. Two writers may come here in another order than that of their maps, so
    /// whoever has set the gauges looks whether the map has moved on meanwhile.
    pub(super) fn settle(&self, signal: Signal) {
        for _ in 0..MAX_SETTLING {
            let seen = signal.read();
            let map = StoredMap::now(&HostData);
            self.routes.set(map.len() as u64);
            self.generation.set(map.version().1);
            if signal.read() == seen {
                break;
            }
        }
    }
}
