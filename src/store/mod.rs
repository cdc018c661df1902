//! The store: how the route map lies in Envoy's shared data, how it is published and how a worker notices.
//!
//! The map is cut into shards, so that a change of one route moves a few kilobytes however large the map is:
//!
//! ```text
//! head             epoch, generation, number of routes, and for each shard which slot holds it     [Head]
//! id shards        the routes of the ids with one hash prefix, a small snapshot each               [Snapshot]
//! port shards      for 1,024 ports each: in which id shard the port's owner is                     [PortTable]
//! ```
//!
//! A writer puts the shards it changes into slots that the head does not name, then swaps the head by compare-and-swap. That is the
//! one step in which a write happens, however many shards it touches. Then it raises the change signal, then it answers. A reader
//! reads the signal at each request; when it differs from what it last saw, it fetches the head and the shards that are new to it.
//! So whoever asks after a write was answered sees it.
//!
//! Keys are bounded, because a guest cannot delete one: a shard has two slots for each of `claim::WRITERS` writers.

mod cache;
mod claim;
mod head;
mod map;
mod ports;
mod publish;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

pub use cache::RouteCache;
pub use map::{Moved, StoredMap};
pub use publish::{PublishError, Stop, Update, publish};

/// Envoy's shared data: one process-wide map of byte strings with compare-and-swap; and its clock.
pub trait SharedData {
    /// The value of a key and its compare-and-swap number; empty and 0 where the key was never set.
    fn get(&self, key: &str) -> (Vec<u8>, u32);

    /// Sets a key if its number still is `cas`; 0 sets it in any case.
    ///
    /// # Errors
    /// [`CasMismatch`] where somebody else has set it meanwhile.
    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch>;

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> u64;
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

/// Makes sure that the keys which are swapped exist, so that their number is never 0: a write with 0 would be unconditional, and of
/// two first writers one would be lost. Envoy configures a VM on the main thread before any worker has one, so nobody can be
/// writing yet.
pub fn prepare(data: &impl SharedData) {
    for key in [head::KEY, claim::KEY] {
        let (_, cas) = data.get(key);
        if cas == 0 {
            // An unconditional write cannot mismatch.
            let _ = data.set(key, &[], 0);
        }
    }
}
