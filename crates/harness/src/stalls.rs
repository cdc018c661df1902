//! For how long this process could not run, because another one had the processor. A bound on time that the product promises is held against
//! what is left.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the thread looks whether it still runs.
const STEP: Duration = Duration::from_millis(10);
/// How late it must be to count.
const LATE: Duration = Duration::from_millis(50);

/// A thread that notes each time at which it could not run.
#[derive(Debug)]
pub struct Stalls {
    seen: Arc<Mutex<Vec<(Instant, Instant)>>>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stalls {
    /// Starts the thread, which ends with this value.
    #[must_use]
    pub fn watch() -> Self {
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let (end, ended) = channel();
        let noted = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let mut due = Instant::now() + STEP;
            while ended.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                if now.saturating_duration_since(due) > LATE {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push((due, now));
                }
                due = now + STEP;
            }
        });
        Self { seen, end: Some(end), thread: Some(thread) }
    }

    /// The sum of those between two moments.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Duration {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|(began, ended)| (*ended).min(to).saturating_duration_since((*began).max(from))).sum()
    }

    /// The time since `from` without them.
    #[must_use]
    pub fn elapsed(&self, from: Instant) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(from).saturating_sub(self.between(from, now))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_moments_counts() {
        let zero = Instant::now();
        let at = |seconds| zero + Duration::from_secs(seconds);
        let seen = Arc::new(Mutex::new(vec![(at(2), at(4)), (at(6), at(7))]));
        let stalls = Stalls { seen, end: None, thread: None };
        for (from, to, seconds) in [(0, 9, 3), (3, 9, 2), (0, 3, 1), (3, 6, 1), (4, 6, 0), (8, 9, 0), (0, 1, 0)] {
            assert_eq!(stalls.between(at(from), at(to)), Duration::from_secs(seconds), "{from} to {to}");
        }
    }
}
