//! The store: how a route map is published through Envoy's shared data and how a worker notices.
//!
//! A writer replaces the snapshot by compare-and-swap, then raises the change signal, then answers. A reader reads the signal at each
//! request and fetches the snapshot when the signal differs from what it last saw. So whoever asks after a write was answered sees it.

use crate::snapshot::Snapshot;

/// Shared-data key of the snapshot. A new format gets a new key.
pub const ROUTES_KEY: &str = "pixell.routes.1";

/// How often a writer that lost the race starts over. Writers are worker threads, each in one write at a time, so losing
/// this often in a row means that something else is wrong.
const MAX_ATTEMPTS: usize = 16;

/// Envoy's shared data: one process-wide map of byte strings with compare-and-swap.
pub trait SharedData {
    /// The value of a key and its compare-and-swap number; empty and 0 where the key was never set.
    fn get(&self, key: &str) -> (Vec<u8>, u32);

    /// Sets a key if its number still is `cas`; 0 sets it in any case.
    ///
    /// # Errors
    /// [`CasMismatch`] where somebody else has set it meanwhile.
    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch>;
}

/// A number that all workers see and every published change moves.
pub trait ChangeSignal {
    /// The number now.
    fn read(&self) -> u64;

    /// Moves it to a value it did not have before.
    fn raise(&self);
}

/// Somebody else was faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CasMismatch;

/// Makes sure the key exists, so that its number is never 0: a write with 0 would be unconditional, and of two first writers
/// one would be lost. Envoy configures a VM on the main thread before any worker has one, so nobody can be writing yet.
pub fn prepare(data: &impl SharedData) {
    let (_, cas) = data.get(ROUTES_KEY);
    if cas == 0 {
        // An unconditional write cannot mismatch.
        let _ = data.set(ROUTES_KEY, &[], 0);
    }
}

/// What to do with the map, decided from what it is now.
#[derive(Debug)]
pub enum Update<T> {
    /// Store these bytes, a whole encoded snapshot, and answer with the value.
    Store(Vec<u8>, T),
    /// Leave the map alone and answer with the value.
    Keep(T),
}

/// The map as it is now; `None` until the first one was stored.
pub fn load(data: &impl SharedData) -> Option<Snapshot<Vec<u8>>> {
    parse(data.get(ROUTES_KEY).0)
}

/// Replaces the map by what `update` makes of it, however often it has to be asked because another writer was faster.
///
/// # Errors
/// What `update` refuses with, or [`PublishError::RetriesExhausted`]. In both cases the map is untouched.
pub fn publish<T, E>(
    data: &impl SharedData,
    signal: &impl ChangeSignal,
    mut update: impl FnMut(Option<&Snapshot<Vec<u8>>>) -> Result<Update<T>, E>,
) -> Result<T, PublishError<E>> {
    for _ in 0..MAX_ATTEMPTS {
        let (bytes, cas) = data.get(ROUTES_KEY);
        match update(parse(bytes).as_ref()).map_err(PublishError::Refused)? {
            Update::Keep(answer) => return Ok(answer),
            Update::Store(bytes, answer) => {
                if data.set(ROUTES_KEY, &bytes, cas).is_ok() {
                    signal.raise();
                    return Ok(answer);
                }
            }
        }
    }
    Err(PublishError::RetriesExhausted)
}

fn parse(bytes: Vec<u8>) -> Option<Snapshot<Vec<u8>>> {
    Snapshot::parse(bytes).ok()
}

/// Why a map was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError<E> {
    /// The update itself refused.
    Refused(E),
    /// Other writers were faster every time.
    RetriesExhausted,
}

/// A worker's copy of the map.
#[derive(Debug, Default)]
pub struct RouteCache {
    seen: Option<u64>,
    snapshot: Option<Snapshot<Vec<u8>>>,
}

impl RouteCache {
    /// The map as of now; `None` until the first one was stored.
    ///
    /// The signal is read before the map: whatever is published in between moves the signal again, and costs one fetch too many
    /// at worst.
    pub fn current(&mut self, data: &impl SharedData, signal: &impl ChangeSignal) -> Option<&Snapshot<Vec<u8>>> {
        let now = signal.read();
        if self.seen != Some(now) {
            self.snapshot = load(data);
            self.seen = Some(now);
        }
        self.snapshot.as_ref()
    }
}

#[cfg(test)]
pub(crate) mod fake;

#[cfg(test)]
mod tests {
    use super::fake::{FakeData, FakeSignal};
    use super::*;
    use crate::snapshot::encode;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn next_generation(current: Option<&Snapshot<Vec<u8>>>) -> Result<Update<u64>, ()> {
        let generation = current.map_or(0, Snapshot::generation) + 1;
        Ok(Update::Store(encode(1, generation, std::iter::empty()).expect("fits"), generation))
    }

    #[test]
    fn nothing_is_loaded_before_the_first_publish() {
        let (data, signal) = (FakeData::default(), FakeSignal::default());
        prepare(&data);
        assert!(load(&data).is_none());
        assert!(RouteCache::default().current(&data, &signal).is_none());
    }

    #[test]
    fn preparing_again_keeps_the_map() {
        let (data, signal) = (FakeData::default(), FakeSignal::default());
        prepare(&data);
        assert_eq!(publish(&data, &signal, next_generation), Ok(1));
        prepare(&data);
        assert_eq!(load(&data).map(|map| map.generation()), Some(1));
    }

    #[test]
    fn a_writer_that_loses_every_race_once_still_lands() {
        let signal = FakeSignal::default();
        let data = FakeData::default();
        prepare(&data);
        for expected in [2, 4, 6] {
            // Another writer lands between this one's read and its write.
            data.interleave(|data| assert!(publish(data, &signal, next_generation).is_ok()));
            assert_eq!(publish(&data, &signal, next_generation), Ok(expected));
        }
        assert_eq!(load(&data).map(|map| map.generation()), Some(6));
        assert_eq!(signal.read(), 6);
    }

    #[test]
    fn gives_up_after_losing_too_often() {
        let (data, signal) = (FakeData::default(), FakeSignal::default());
        prepare(&data);
        data.always_mismatch();
        assert_eq!(publish(&data, &signal, next_generation), Err(PublishError::RetriesExhausted));
        assert!(load(&data).is_none());
        assert_eq!(signal.read(), 0);
    }

    #[test]
    fn a_refused_or_empty_update_moves_nothing() {
        let (data, signal) = (FakeData::default(), FakeSignal::default());
        prepare(&data);
        assert_eq!(publish(&data, &signal, |_| Err::<Update<()>, _>("no")), Err(PublishError::Refused("no")));
        assert_eq!(publish(&data, &signal, |_| Ok::<_, ()>(Update::Keep(5))), Ok(5));
        assert!(load(&data).is_none());
        assert_eq!(signal.read(), 0);
    }

    #[test]
    fn a_reader_fetches_once_a_change() {
        let (data, signal) = (FakeData::default(), FakeSignal::default());
        prepare(&data);
        let mut cache = RouteCache::default();
        for generation in 1..4 {
            assert_eq!(publish(&data, &signal, next_generation), Ok(generation));
            let before = data.reads();
            for _ in 0..10 {
                assert_eq!(cache.current(&data, &signal).map(Snapshot::generation), Some(generation));
            }
            assert_eq!(data.reads() - before, 1);
        }
    }

    #[test]
    fn a_reader_that_overlaps_a_writer_is_not_left_behind() {
        let (data, signal) = (FakeData::default(), FakeSignal::default());
        prepare(&data);
        let mut cache = RouteCache::default();
        // The snapshot is stored, the signal not yet raised: the reader may see either map ...
        let (_, cas) = data.get(ROUTES_KEY);
        data.set(ROUTES_KEY, &encode(1, 1, std::iter::empty()).expect("fits"), cas).expect("no race");
        let _ = cache.current(&data, &signal);
        // ... but once it is raised, that is before the write is answered, only the new one.
        signal.raise();
        assert_eq!(cache.current(&data, &signal).map(Snapshot::generation), Some(1));
    }
}
