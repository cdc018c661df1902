//! A worker's copy of the map.

use super::head::{Head, ID_SHARDS, KEY, Reference, id_shard};
use super::map::fetch;
use super::{ChangeSignal, SharedData};
use crate::route::Route;
use crate::snapshot::{Snapshot, hash_bytes};

/// How often a refresh begins again because the map moved on under it. Each time somebody else has made progress, so this is a
/// bound on bad luck; the next request goes on from there.
const MAX_ATTEMPTS: usize = 100;

/// A worker's copy of the map, brought up to date when the change signal says so.
#[derive(Debug, Default)]
pub struct RouteCache {
    seen: Option<u64>,
    loaded: bool,
    shards: Vec<Shard>,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    reference: Reference,
    routes: Option<Snapshot<Vec<u8>>>,
}

impl RouteCache {
    /// Sees to it that whatever was published before this call is here; `true` where something had to be fetched.
    ///
    /// The signal is read before the map: what is published in between moves the signal again, and costs one refresh too many at
    /// worst.
    pub fn refresh(&mut self, data: &impl SharedData, signal: &impl ChangeSignal) -> bool {
        let now = signal.read();
        if self.seen == Some(now) {
            return false;
        }
        if (0..MAX_ATTEMPTS).any(|_| self.fetch_changes(data)) {
            self.seen = Some(now);
        }
        true
    }

    /// Whether a map has been stored since Envoy started.
    #[must_use]
    pub const fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The route of the id that is made of these bytes; none where they are no id.
    #[must_use]
    pub fn find(&self, id: &[u8]) -> Option<Route> {
        let hash = hash_bytes(id);
        self.shards.get(id_shard(hash))?.routes.as_ref()?.find_hashed(id, hash)
    }

    /// Fetches the shards that are new since the last time; `false` where the map moved on meanwhile.
    fn fetch_changes(&mut self, data: &impl SharedData) -> bool {
        let Some(head) = Head::parse(data.get(KEY).0) else {
            *self = Self::default();
            return true;
        };
        if self.shards.is_empty() {
            self.shards = std::iter::repeat_with(Shard::default).take(ID_SHARDS).collect();
        }
        let mut next = 0;
        while let Some(number) = self.first_outdated(&head, next) {
            let reference = head.reference(number);
            let Ok(routes) = fetch(data, number, reference) else { return false };
            if let Some(shard) = self.shards.get_mut(number) {
                *shard = Shard { reference, routes };
            }
            next = number + 1;
        }
        self.loaded = true;
        true
    }

    /// The first shard from `next` on that the head has elsewhere. As a rule one of 256 is, so this is what a refresh mostly does; as
    /// a function of its own the loop stays tight.
    fn first_outdated(&self, head: &Head, next: usize) -> Option<usize> {
        let (shards, references) = (self.shards.get(next..)?, head.id_references().get(next..)?);
        shards.iter().zip(references).position(|(shard, reference)| *reference != shard.reference.stored()).map(|at| next + at)
    }
}
