//! Envoy's metrics as the filter uses them. A metric that Envoy's configuration switches off accepts every value and shows none.
//!
//! The labels are part of the names, as in the Wasm filter, so that both show the same metrics: `stats_tags` of `envoy/envoy.yaml`
//! takes them out again.

use crate::abi::{ConfigHost, Host, Metric};
use crate::host;
use crate::shared;
use pixell_core::admin::tally::{Defined, Gauge, Map, Metrics};
use pixell_core::data_path::{Counters, Event};
use pixell_core::metrics::{BUILD_INFO, CARDS_UNCHANGED, CHANGES, Labelled, PANICS, REFRESHES, labelled, worker_label};
use pixell_core::responses::Unchanged;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is counted of agent cards.
#[derive(Debug)]
pub(crate) struct CardMetrics {
    unchanged: Labelled<Option<Metric>, { Unchanged::REASONS.len() }>,
}

impl CardMetrics {
    pub(crate) fn define(envoy: &ConfigHost) -> Self {
        let counter = |name: &str| envoy.counter(name, None);
        Self { unchanged: Labelled::define(CARDS_UNCHANGED, "reason", Unchanged::REASONS, counter) }
    }

    /// Counts a card that passes unchanged, and tells whether it is one of the first for this reason.
    pub(crate) fn unchanged(&self, envoy: &Host<'_>, reason: &str) -> bool {
        count(envoy, self.unchanged.of(reason), None);
        host::is_first_card(reason)
    }
}

/// What a configuration of the data path counts.
#[derive(Debug)]
pub(crate) struct RouterMetrics {
    counters: Counters<Option<Metric>>,
    refreshes: Option<Metric>,
    panics: Option<Metric>,
}

impl RouterMetrics {
    pub(crate) fn define(envoy: &ConfigHost) -> Self {
        Self {
            counters: Counters::define(|name| envoy.counter(name, None)),
            refreshes: envoy.counter(REFRESHES, Some("worker")),
            panics: envoy.counter(PANICS, None),
        }
    }

    pub(crate) fn count(&self, envoy: &Host<'_>, counted: &Counted) {
        match counted {
            Counted::Event(event) => count(envoy, self.counters.of(*event), None),
            Counted::Refreshed(worker) => count(envoy, Some(&self.refreshes), Some(worker)),
            Counted::Panicked => count(envoy, Some(&self.panics), None),
        }
    }
}

/// What the data path counts.
#[derive(Clone, Debug)]
pub(crate) enum Counted {
    /// What it counts on every host.
    Event(Event),
    /// The worker with this label has fetched the map.
    Refreshed(Rc<str>),
    /// A hook has panicked.
    Panicked,
}

/// The label of a worker that takes its first request.
pub(crate) fn new_worker() -> Rc<str> {
    worker_label(shared::next_worker()).into()
}

/// What the route API counts.
#[derive(Debug)]
pub(crate) struct AdminMetrics {
    defined: Defined<Option<Metric>>,
    build_info: Option<Metric>,
    changes: Option<Metric>,
    panics: Option<Metric>,
}

impl AdminMetrics {
    pub(crate) fn define(host: &ConfigHost) -> Self {
        Self {
            defined: Defined::define(|name| host.counter(name, None), |name| host.gauge(name)),
            build_info: host.gauge(&labelled(BUILD_INFO, "version", env!("CARGO_PKG_VERSION"))),
            changes: host.gauge(CHANGES),
            panics: host.counter(PANICS, None),
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
        count(host, Some(&self.panics), None);
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
        count(self.host, Some(self.metrics.defined.publishes(map)), None);
    }

    fn count_displaced(&self, routes: usize) {
        for _ in 0..routes {
            count(self.host, Some(self.metrics.defined.displaced()), None);
        }
    }

    fn count_rejected_write(&self, map: Map, code: &str) {
        count(self.host, self.metrics.defined.rejected_writes(map, code), None);
    }

    fn set(&self, gauge: Gauge, value: u64) {
        set(self.host, *self.metrics.defined.gauge(gauge), value);
    }

    fn now(&self) -> u64 {
        self.now
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// Adds 1 to a counter, if the core has it and Envoy has defined it.
fn count(host: &Host<'_>, metric: Option<&Option<Metric>>, label: Option<&str>) {
    if let Some(Some(metric)) = metric {
        host.count(*metric, label);
    }
}

fn set(host: &Host<'_>, metric: Option<Metric>, value: u64) {
    if let Some(metric) = metric {
        host.set(metric, value);
    }
}
