//! The store: how a map by deployment id is kept in Envoy's shared data, how it is published, and how a worker notices.
//!
//! A map may hold 100,000 ids, and a change of one of them must be visible on every worker at its next request. So a map is cut into
//! shards, and a change moves a few kilobytes however large the map is:
//!
//! ```text
//! head     epoch, generation, turn, number of entries, and for each shard which slot holds it     [Head]
//! shards   byte strings: tables of entries by id, and whatever else a map keeps                   [Table]
//! ```
//!
//! [`layout`] has the keys of both, and what the shards of each map are.
//!
//! **Publishing.** A writer puts the shards it changes into slots that the head does not name, then swaps the head by compare-and-swap.
//! That is the one step in which a write happens, however many shards it changes. Then it raises the change signal, then it responds.
//! A reader reads the signal at each request; if it differs from what it last saw, it fetches the head and the shards that are new to it.
//! So every request that arrives after the response to a write sees that write.
//!
//! **Slots.** A guest cannot delete a key of shared data, so a shard has a fixed number of slots, and writers have to share them. The head
//! counts its swaps: the *turn*. A writer that read the head at turn `t` tags what it writes with `t + 1`, and may write to a slot if the
//! head does not name it and its tag is at most `t`:
//!
//! - a tag of `t + 1` belongs to another writer that works on the same head, and may still win;
//! - a larger tag means that the head has moved on: this writer has lost, and starts over with the new head;
//! - a smaller one was left by a writer that lost, or is no longer named.
//!
//! So two writers never share a slot, whatever the order of their steps, and a writer that dies half-way blocks a slot only until the
//! next swap. There is no lock, no clock and nothing to clean up. If every slot of a shard is taken, the writer swaps in the same head
//! with the next turn, which frees them all.

mod cache;
mod head;
pub mod layout;
pub mod memory;
mod publish;
mod stored;
mod tables;

#[cfg(test)]
pub(crate) mod tests;

pub use cache::Cache;
pub use head::Version;
pub use layout::{FLEET_MAP, ID_SHARDS, Layout, ROUTE_MAP, TAG_LEN, id_shard};
pub use publish::{Backend, Edition, NoEdition, PublishError, Published, Stop, Update, publish};
pub use stored::{Moved, Stored};
pub use tables::Tables;

/// Envoy's shared data: one process-wide map of byte strings with compare-and-swap.
pub trait SharedData {
    /// The value of a key and its compare-and-swap number; empty and 0 if the key was never set.
    fn get(&self, key: &str) -> (Vec<u8>, u32);

    /// Sets a key if its number still is `cas`; 0 sets it in any case.
    ///
    /// # Errors
    /// [`CasMismatch`] if another writer has set it meanwhile.
    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch>;
}

/// A number that all workers see and every published change moves.
pub trait ChangeSignal {
    /// The number now.
    fn read(&self) -> u64;

    /// Moves it to a value it did not have before.
    fn raise(&self);
}

/// Another writer was faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CasMismatch;

/// Makes sure that all keys of a map exist, so that their numbers are never 0: a write with 0 would be unconditional, and of two first
/// writers one would be lost. Envoy configures a VM on the main thread before any worker has one, so nobody can be writing yet.
pub fn prepare(data: &impl SharedData, layout: &Layout) {
    // The head's key is created last.
    if data.get(layout.head_key().as_str()).1 == 0 {
        for key in layout.slot_keys().chain([layout.head_key()]) {
            // An unconditional write cannot mismatch.
            let _ = data.set(key.as_str(), &[], 0);
        }
    }
}
