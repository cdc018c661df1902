//! What all filters of the process share: the route map, the change signal, and the number of workers that have taken a request.
//! Envoy loads the module once, so a static variable of the module is one of the process.

use crate::abi::Host;
use crate::metrics::{self, AdminMetrics};
use crate::waits;
use pixell_core::store::memory::{MemoryData, MemorySignal};
use pixell_core::store::{Backend, ChangeSignal};
use pixell_core::timestamp::Timestamp;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The maps.
pub(crate) static DATA: LazyLock<MemoryData> = LazyLock::new(MemoryData::default);

/// Moves with every published change.
pub(crate) static SIGNAL: LazyLock<MemorySignal> = LazyLock::new(MemorySignal::default);

static WORKERS: AtomicU64 = AtomicU64::new(0);

/// The number of a worker that takes its first request, from 1.
pub(crate) fn next_worker() -> u64 {
    WORKERS.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

/// The change signal. It also sets a gauge while there is a stream to do so, and calls the requests that wait.
#[derive(Debug)]
pub(crate) struct ShownSignal<'a> {
    pub(crate) host: &'a Host<'a>,
    pub(crate) metrics: &'a AdminMetrics,
}

impl ChangeSignal for ShownSignal<'_> {
    fn read(&self) -> u64 {
        SIGNAL.read()
    }

    fn raise(&self) {
        SIGNAL.raise();
        self.metrics.show_change(self.host);
        waits::tell_of_change();
    }
}

/// Where the maps are kept, with one of the two signals.
pub(crate) fn backend<S>(signal: &S) -> Backend<'_, MemoryData, S> {
    Backend { data: &DATA, signal, new_epoch: random, now: || Timestamp::from_unix(metrics::now()) }
}

/// A random number, never 0.
fn random() -> u64 {
    // The hasher's keys come from the system's random source; the standard library has no simpler access to it.
    RandomState::new().build_hasher().finish().max(1)
}
