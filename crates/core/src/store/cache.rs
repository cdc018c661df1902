//! A worker's copy of a map.

use super::head::{Head, Reference};
use super::stored::fetch;
use super::{ChangeSignal, Layout, SharedData, TAG_LEN, Version, id_shard};
use crate::table::{Table, hash};

/// How often a refresh starts over because the map moved on meanwhile. Each time another writer has made progress, so more restarts are
/// very unlikely; the next request goes on from there.
const MAX_ATTEMPTS: usize = 100;

/// A worker's copy of a map's tables, brought up to date when the change signal says so.
#[derive(Debug)]
pub struct Cache {
    layout: &'static Layout,
    seen: Option<u64>,
    version: Version,
    shards: Vec<Shard>,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    reference: Reference,
    table: Option<Table<Vec<u8>>>,
}

impl Cache {
    /// A copy of nothing.
    #[must_use]
    pub const fn new(layout: &'static Layout) -> Self {
        Self { layout, seen: None, version: Version { epoch: 0, generation: 0 }, shards: Vec::new() }
    }

    /// Makes sure that whatever was published before this call is here; `true` if something had to be fetched.
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
        self.version.generation != 0
    }

    /// The version of the copy.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The value of the id that is made of these bytes; none if they are not an id. Ids are in the first [`ID_SHARDS`](super::ID_SHARDS) tables.
    #[must_use]
    pub fn find(&self, id: &[u8]) -> Option<&[u8]> {
        let hash = hash(id);
        self.table(id_shard(hash))?.find_hashed(id, hash)
    }

    /// A shard that is a table; `None` if it is empty.
    #[must_use]
    pub fn table(&self, shard: usize) -> Option<&Table<Vec<u8>>> {
        self.shards.get(shard)?.table.as_ref()
    }

    /// Fetches the tables that are new since the last time; `false` if the map moved on meanwhile.
    fn fetch_changes(&mut self, data: &impl SharedData) -> bool {
        let Some(head) = Head::parse(self.layout, data.get(self.layout.head_key().as_str()).0) else {
            *self = Self::new(self.layout);
            return true;
        };
        self.shards.resize_with(self.layout.tables, Shard::default);
        let outdated = |(_, (shard, reference)): &(usize, (&mut Shard, &_))| **reference != shard.reference.stored();
        for (number, (shard, _)) in self.shards.iter_mut().zip(head.references()).enumerate().filter(outdated) {
            let reference = head.reference(number);
            let Ok(bytes) = fetch(data, self.layout, number, reference) else { return false };
            // A table that does not parse would be a defect of the writer; its ids are unknown then.
            *shard = Shard { reference, table: bytes.and_then(|bytes| Table::parse(bytes, TAG_LEN).ok()) };
        }
        self.version = head.version();
        true
    }
}
