//! Ends requests that wait too long for a connection, or whose agent the map no longer names. Envoy has no limit for this, and calls a filter
//! only when something happens to its stream. So a thread of the module calls the streams that are due, on their workers, and a writer calls
//! all that may be waiting.

use crate::abi::Scheduler;
use crate::{fault, host};
use pixell_core::waiting::Waiting;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

/// How often the thread wakes. Each tenth time it looks for requests that have waited too long.
const WAKE: Duration = Duration::from_millis(100);
const WAKES_PER_TICK: u8 = 10;

/// Why a stream is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It may wait no longer.
    Due,
    /// The map has changed.
    Changed,
}

impl Call {
    /// As Envoy passes it on.
    const fn number(self) -> u64 {
        match self {
            Self::Due => 0,
            Self::Changed => 1,
        }
    }

    /// What [`Self::number`] stands for.
    pub(crate) const fn of(number: u64) -> Self {
        if number == 0 { Self::Due } else { Self::Changed }
    }
}

/// How many times after a change the thread calls the streams that were too young when the map changed. The second time they are old enough
/// (`QUEUED` in `router.rs`).
const LOOKS: u8 = 2;

/// How many are still to come.
static LOOKS_LEFT: AtomicU8 = AtomicU8::new(0);

static CLOCK: Once = Once::new();
static WORKERS: Mutex<Vec<Arc<Mutex<Waits>>>> = Mutex::new(Vec::new());

/// The streams of one worker that were forwarded.
#[derive(Debug, Default)]
struct Waits {
    /// Ticks so far.
    now: u64,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    scheduler: Scheduler,
    due: u64,
}

/// A worker's own list.
#[derive(Debug)]
pub(crate) struct Worker(Arc<Mutex<Waits>>);

/// A stream's place in the list of its worker, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    waits: Arc<Mutex<Waits>>,
    index: usize,
}

impl Worker {
    pub(crate) fn new() -> Self {
        let waits = Arc::default();
        lock(&WORKERS).push(Arc::clone(&waits));
        Self(waits)
    }

    /// Has a stream called after [`Waiting::LIMIT`] seconds, or one more.
    pub(crate) fn add(&self, scheduler: Scheduler) -> Place {
        let mut waits = lock(&self.0);
        let due = waits.now.wrapping_add(Waiting::LIMIT as u64).wrapping_add(1);
        let entry = Some(Entry { scheduler, due });
        let free = waits.free.pop();
        let index = match free.and_then(|index| Some((index, waits.entries.get_mut(index)?))) {
            Some((index, place)) => {
                *place = entry;
                index
            }
            None => {
                waits.entries.push(entry);
                waits.entries.len().saturating_sub(1)
            }
        };
        Place { waits: Arc::clone(&self.0), index }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waits = lock(&self.waits);
        let entry = waits.entries.get_mut(self.index).and_then(Option::take);
        waits.free.push(self.index);
        drop(waits);
        drop(entry);
    }
}

impl Waits {
    fn tick(&mut self) {
        self.now = self.now.wrapping_add(1);
        for entry in self.entries.iter().flatten().filter(|entry| entry.due == self.now) {
            entry.scheduler.call(Call::Due.number());
        }
    }

    /// Calls every stream that may be waiting: older ones have a connection, or were ended.
    fn tell_of_change(&self) {
        for entry in self.entries.iter().flatten().filter(|entry| entry.due > self.now) {
            entry.scheduler.call(Call::Changed.number());
        }
    }
}

/// Has all streams that may be waiting look at the map again, because it has changed.
pub(crate) fn tell_of_change() {
    LOOKS_LEFT.store(LOOKS, Ordering::Relaxed);
    for_each(|waits| waits.tell_of_change());
}

fn for_each(act: impl Fn(&mut Waits)) {
    let workers = lock(&WORKERS).clone();
    for waits in workers {
        act(&mut lock(&waits));
    }
}

/// Starts the thread, once in a process.
pub(crate) fn start_clock() {
    CLOCK.call_once(|| {
        let clock = std::thread::Builder::new().name("pixell-clock".to_owned()).spawn(|| {
            for wake in (1..=WAKES_PER_TICK).cycle() {
                std::thread::sleep(WAKE);
                if catch_unwind(|| look(wake == WAKES_PER_TICK)).is_err() {
                    fault::tell("the clock");
                }
            }
        });
        if let Err(error) = clock {
            host::error(&format!("requests wait for a connection without a limit: no thread for the clock: {error}"));
        }
    });
}

fn look(is_tick: bool) {
    if is_tick {
        fault::point(|| "thread", "clock");
        for_each(Waits::tick);
    }
    let less = |left: u8| left.checked_sub(1);
    if LOOKS_LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
        for_each(|waits| waits.tell_of_change());
    }
}

/// Every change is one step, so a panic elsewhere leaves nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
