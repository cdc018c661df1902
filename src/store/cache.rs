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
        let Some(head) = Head::parse(&data.get(KEY).0) else {
            *self = Self::default();
            return true;
        };
        self.shards.resize_with(ID_SHARDS, Shard::default);
        for (number, shard) in self.shards.iter_mut().enumerate() {
            let reference = head.reference(number);
            if shard.reference == reference {
                continue;
            }
            let Ok(routes) = fetch(data, &head, number) else { return false };
            *shard = Shard { reference, routes };
        }
        self.loaded = true;
        true
    }
}
