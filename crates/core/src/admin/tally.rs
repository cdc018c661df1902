//! What the route API counts, whatever host keeps the metrics.

use super::reply::Outcome;
use crate::routes::LAYOUT;
use crate::store::{ChangeSignal, SharedData, Stored};

/// How often the gauges are set once more because the map moved on meanwhile; then the writer that moved it sets them.
const MAX_SETTLING: usize = 16;

/// A gauge about the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// [`crate::metrics::ROUTES`]
    Routes,
    /// [`crate::metrics::GENERATION`]
    Generation,
    /// [`crate::metrics::LAST_PUSH`]
    LastPush,
}

/// Where the metrics are kept.
pub trait Metrics {
    /// Counts a write that changed the map.
    fn count_publish(&self);

    /// Counts routes that lost their port to another id.
    fn count_displaced(&self, routes: usize);

    /// Counts a write that was rejected with this code.
    fn count_rejected_write(&self, code: &str);

    /// Sets a gauge.
    fn set(&self, gauge: Gauge, value: u64);

    /// Unix time in seconds.
    fn now(&self) -> u64;
}

/// Counts how a request ended.
pub fn record(outcome: Outcome, metrics: &impl Metrics, data: &impl SharedData, signal: &impl ChangeSignal) {
    match outcome {
        Outcome::Read => {}
        Outcome::Published { displaced } => {
            metrics.count_publish();
            metrics.count_displaced(displaced);
            metrics.set(Gauge::LastPush, metrics.now());
            settle(metrics, data, signal);
        }
        Outcome::Confirmed => metrics.set(Gauge::LastPush, metrics.now()),
        Outcome::Rejected(code) => metrics.count_rejected_write(code),
    }
}

/// Makes the gauges tell of the map as it is now. Two writers may get here in another order than that of their maps, so each looks
/// whether the map has moved on since it set the gauges.
pub fn settle(metrics: &impl Metrics, data: &impl SharedData, signal: &impl ChangeSignal) {
    for _ in 0..MAX_SETTLING {
        let seen = signal.read();
        let map = Stored::now(data, &LAYOUT);
        metrics.set(Gauge::Routes, map.len() as u64);
        metrics.set(Gauge::Generation, map.version().generation);
        if signal.read() == seen {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        fn count_publish(&self) {
            self.words.borrow_mut().push("publish".to_owned());
        }

        fn count_displaced(&self, routes: usize) {
            if routes > 0 {
                self.words.borrow_mut().push(format!("displaced {routes}"));
            }
        }

        fn count_rejected_write(&self, code: &str) {
            self.words.borrow_mut().push(code.to_owned());
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
        record(outcome, &kept, &map_of(&[("a", Route::active(1))]), &kept.signal);
        kept.words.into_inner()
    }

    #[test]
    fn each_outcome_is_counted() {
        assert!(words(Outcome::Read, false).is_empty());
        let published = |displaced| words(Outcome::Published { displaced }, false);
        assert_eq!(published(0), ["publish", "LastPush 99", "Routes 1", "Generation 1"]);
        assert_eq!(published(2), ["publish", "displaced 2", "LastPush 99", "Routes 1", "Generation 1"]);
        assert_eq!(words(Outcome::Confirmed, false), ["LastPush 99"]);
        assert_eq!(words(Outcome::Rejected("not_found"), false), ["not_found"]);
    }

    #[test]
    fn gauges_settle_on_the_map_that_is_last() {
        let expected = ["publish", "LastPush 99", "Routes 1", "Generation 1", "Routes 1", "Generation 1"];
        // The rival comes while LastPush is set, before the map is looked at.
        assert_eq!(words(Outcome::Published { displaced: 0 }, true), expected[..4]);
        let kept = Kept { rival: true, ..Kept::default() };
        settle(&kept, &map_of(&[("a", Route::active(1))]), &kept.signal);
        assert_eq!(kept.words.into_inner(), expected[2..]);
    }
}
