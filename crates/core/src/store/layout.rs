//! The layout of shared data: every key that there is, and how a stored map is spread over its keys.
//!
//! ```text
//! pixell.routes.3.head      the head of the route map                                          [super::head]
//! pixell.routes.3.aab2      a slot of a shard: three letters for the shard, a digit for the slot
//!                             shards 0-255      routes by id                                   [crate::table]
//!                             shards 256-319    for 1,024 ports each: where their owner is     [crate::routes]
//! pixell.fleet.2..head      the head of the fleet map
//! pixell.fleet.2..aab2      a slot of a shard
//!                             shards 0-255      routes by id, each a list of peers             [crate::fleet]
//!                             shard 256         peers by number
//! pixell.clients.1.17       a bucket of clients and what each holds                            [crate::clients]
//! pixell.era.1              the number of the era of these buckets
//! pixell.changes.1          the change signal, if Envoy's gauge is switched off
//! pixell.workers.1          how many workers have taken a request
//! ```
//!
//! A guest cannot delete a key, so their number is fixed. All keys begin with a name and the number of their format; a new format, of
//! the head or of what it names, gets a new number, and with it new keys. The dots of `pixell.fleet.2..` make both maps' beginnings equally long.

/// The keys of a map in shared data, and its shards.
#[derive(Debug)]
pub struct Layout {
    /// What the keys begin with.
    pub prefix: [u8; 16],
    /// How many shards are tables, which every worker keeps a copy of. They come first.
    pub tables: usize,
    /// How many other shards there are, which only writers read.
    pub others: usize,
}

/// Where the route map is.
pub static ROUTE_MAP: Layout = Layout { prefix: *b"pixell.routes.3.", tables: ID_SHARDS, others: PORT_SHARDS };

/// Where the fleet map is.
pub static FLEET_MAP: Layout = Layout { prefix: *b"pixell.fleet.2..", tables: PEER_SHARD + 1, others: 0 };

/// What the keys of clients' buckets begin with; the number of the bucket follows.
pub(crate) const CLIENT_BUCKETS: &str = "pixell.clients.1.";

/// The key of the number of the era of clients' buckets.
pub(crate) const CLIENT_ERA: &str = "pixell.era.1";

/// The key of the number that stands in for the gauge of changes if Envoy's configuration switches that off.
pub const CHANGES: &str = "pixell.changes.1";

/// The key of the number of workers that have taken a request.
pub const WORKERS: &str = "pixell.workers.1";

/// How many shards of a map hold entries by id: 256 entries a shard in a map of 65,536.
pub const ID_SHARDS: usize = 256;

/// How many ports a shard of ports covers.
pub(crate) const PORTS_PER_SHARD: usize = 1_024;

/// How many shards of the route map hold owners of ports. They follow those by id.
const PORT_SHARDS: usize = 65_536 / PORTS_PER_SHARD;

/// The shard of the fleet map that holds the peers. It follows those by id.
pub(crate) const PEER_SHARD: usize = ID_SHARDS;

/// The length of the tag that a stored shard begins with, in bytes: the turn that wrote it.
pub const TAG_LEN: usize = 8;

/// How many slots a shard has: one that the head names, and seven for writers at work on the same turn.
pub(super) const SLOTS: u8 = 8;

/// The shard that holds the ids with this hash.
#[must_use]
pub const fn id_shard(hash: u32) -> usize {
    (hash >> 24) as usize
}

impl Layout {
    /// The number of shards.
    #[must_use]
    pub const fn shards(&self) -> usize {
        self.tables + self.others
    }

    /// The keys of all slots.
    pub(super) fn slot_keys(&self) -> impl Iterator<Item = Key> {
        let slots = (0..self.shards()).flat_map(|shard| (0..SLOTS).map(move |slot| (shard, slot)));
        slots.map(|(shard, slot)| self.slot_key(shard, slot))
    }

    pub(super) fn head_key(&self) -> Key {
        Key::new(self.prefix, *b"head")
    }

    /// The key of a slot of a shard. It has no decimal digits, because letters take neither a table nor a division.
    pub(super) fn slot_key(&self, shard: usize, slot: u8) -> Key {
        let letter = |shift: u32| b'a' + (shard >> shift & 15).to_le_bytes()[0];
        Key::new(self.prefix, [letter(8), letter(4), letter(0), b'0' + slot % 10])
    }
}

/// A key of shared data, made without the heap: every access to a shard needs one.
pub(super) struct Key([u8; 20]);

impl Key {
    fn new(prefix: [u8; 16], end: [u8; 4]) -> Self {
        let mut key = [0; 20];
        if let Some(start) = key.first_chunk_mut() {
            *start = prefix;
        }
        if let Some(place) = key.last_chunk_mut() {
            *place = end;
        }
        Self(key)
    }

    /// The key as text.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Neither the keys of two maps nor those of anything else can meet, whatever follows their beginnings.
    #[test]
    fn no_two_kinds_of_key_share_a_beginning() {
        let maps = [&ROUTE_MAP, &FLEET_MAP].map(|layout| str::from_utf8(&layout.prefix).expect("text"));
        let kinds = [maps[0], maps[1], CLIENT_BUCKETS, CLIENT_ERA, CHANGES, WORKERS];
        for (at, one) in kinds.iter().enumerate() {
            for (other_at, other) in kinds.iter().enumerate() {
                assert!(at == other_at || !one.starts_with(other), "{one} begins with {other}");
            }
        }
    }

    #[test]
    fn every_key_of_a_map_is_another_one() {
        for layout in [&ROUTE_MAP, &FLEET_MAP] {
            let keys: BTreeSet<_> = layout.slot_keys().chain([layout.head_key()]).map(|key| key.as_str().to_owned()).collect();
            assert_eq!(keys.len(), 1 + layout.shards() * usize::from(SLOTS));
            assert!(keys.iter().all(|key| key.as_bytes().starts_with(&layout.prefix) && key.len() == 20));
        }
    }

    /// The keys that the picture above shows.
    #[test]
    fn keys_are_as_described() {
        assert_eq!(ROUTE_MAP.head_key().as_str(), "pixell.routes.3.head");
        assert_eq!(ROUTE_MAP.slot_key(1, 2).as_str(), "pixell.routes.3.aab2");
        assert_eq!(ROUTE_MAP.slot_key(319, 7).as_str(), "pixell.routes.3.bdp7");
        assert_eq!(FLEET_MAP.head_key().as_str(), "pixell.fleet.2..head");
        assert_eq!((ROUTE_MAP.shards(), FLEET_MAP.shards()), (320, 257));
    }

    #[test]
    fn every_hash_has_a_shard() {
        assert_eq!((id_shard(0), id_shard(u32::MAX)), (0, ID_SHARDS - 1));
    }
}
