//! The head: which slots hold the map now. Swapping it is the one step in which a write happens.
//!
//! ```text
//! magic "PXH1" | epoch u64 | generation u64 | routes u32 | shard references, u64 each      (little-endian)
//! ```

/// Shared-data key of the head. A new format, of the head or of what it names, gets a new key.
pub(super) const KEY: &str = "pixell.head.2";

/// Shards of routes, by the top eight bits of the id's hash: 256 routes a shard in a map of 65,536.
pub(super) const ID_SHARDS: usize = 256;

/// Shards of ports, 1,024 ports each.
pub(super) const PORT_SHARDS: usize = 64;

const SHARDS: usize = ID_SHARDS + PORT_SHARDS;
const MAGIC: [u8; 4] = *b"PXH1";
const EPOCH_AT: usize = 4;
const GENERATION_AT: usize = 12;
const LEN_AT: usize = 20;
const REFERENCES_AT: usize = 24;
const LENGTH: usize = REFERENCES_AT + SHARDS * 8;

/// The version of a map and where its shards are, in the stored form: a write changes a few of the 320 references, and a reader
/// compares them all, so nothing is decoded before it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head(Vec<u8>);

/// Where a shard is: its slot and the generation that wrote it there. The generation stands in the shard too, so that a reader
/// with an old head notices when a slot was reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reference(u64);

impl Reference {
    /// The shard as `generation` wrote it into `slot`.
    pub(super) const fn new(generation: u64, slot: u8) -> Self {
        Self(generation << 8 | slot as u64)
    }

    /// The generation, or `None` where the shard is empty and has no slot.
    pub(super) const fn generation(self) -> Option<u64> {
        if self.0 == 0 { None } else { Some(self.0 >> 8) }
    }

    /// The reference in its stored form.
    pub(super) const fn stored(self) -> StoredReference {
        self.0.to_le_bytes()
    }

    /// The slot; of no meaning where the shard is empty.
    pub(super) const fn slot(self) -> u8 {
        self.0.to_le_bytes()[0]
    }
}

/// A reference as the head has it.
pub(super) type StoredReference = [u8; 8];

impl Head {
    /// The head of an empty map, before its first generation.
    pub(super) fn new(epoch: u64) -> Self {
        let mut head = Self(vec![0; LENGTH]);
        head.write(0, MAGIC);
        head.write(EPOCH_AT, epoch.to_le_bytes());
        head
    }

    /// Takes the stored form; `None` where no map has been stored.
    pub(super) fn parse(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == LENGTH && bytes.starts_with(&MAGIC)).then_some(Self(bytes))
    }

    /// The stored form.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Drawn when the first map of this Envoy process was stored; never 0.
    pub(super) fn epoch(&self) -> u64 {
        u64::from_le_bytes(self.read(EPOCH_AT))
    }

    /// Grows by one at each effective change; 1 for the first map.
    pub(super) fn generation(&self) -> u64 {
        u64::from_le_bytes(self.read(GENERATION_AT))
    }

    /// Number of routes.
    pub(super) fn len(&self) -> u32 {
        u32::from_le_bytes(self.read(LEN_AT))
    }

    /// Where the shard is; empty for a shard that does not exist.
    pub(super) fn reference(&self, shard: usize) -> Reference {
        Reference(u64::from_le_bytes(self.read(reference_at(shard))))
    }

    /// Where the shards of routes are, in their order.
    pub(super) fn id_references(&self) -> &[StoredReference] {
        self.0.get(REFERENCES_AT..).and_then(|references| references.as_chunks().0.get(..ID_SHARDS)).unwrap_or_default()
    }

    /// Says of which generation the map is from now on, and how many routes it has.
    pub(super) fn advance(&mut self, generation: u64, len: u32) {
        self.write(GENERATION_AT, generation.to_le_bytes());
        self.write(LEN_AT, len.to_le_bytes());
    }

    /// Says where the shard is from now on.
    pub(super) fn refer(&mut self, shard: usize, reference: Reference) {
        self.write(reference_at(shard), reference.stored());
    }

    /// The bytes at an offset; zeros beyond the end.
    fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    fn write<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        if let Some(place) = self.0.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = value;
        }
    }
}

const fn reference_at(shard: usize) -> usize {
    REFERENCES_AT + shard * 8
}

/// Shared-data key of a slot of a shard, made without the heap: every access to a shard needs one.
pub(super) struct SlotKey([u8; 20]);

impl SlotKey {
    /// The key of `slot` of `shard`: both in base 16 with the letters a to p as digits, which takes no table and no division.
    pub(super) fn new(shard: usize, slot: u8) -> Self {
        let digit = |shift: u32, number: usize| b'a' + (number >> shift & 15).to_le_bytes()[0];
        let slot = usize::from(slot);
        let mut text = *b"pixell.shard.2.SSSss";
        if let Some(digits) = text.last_chunk_mut() {
            *digits = [digit(8, shard), digit(4, shard), digit(0, shard), digit(4, slot), digit(0, slot)];
        }
        Self(text)
    }

    /// The key as text.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The shard that holds the routes of the ids with this hash.
pub(super) const fn id_shard(hash: u32) -> usize {
    (hash >> 24) as usize
}

/// The shard that says who owns this port.
pub(super) const fn port_shard(port: u16) -> usize {
    ID_SHARDS + (port >> 10) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn is_read_as_it_was_written() {
        let mut head = Head::new(0xabc);
        head.advance(9, 3);
        head.refer(0, Reference::new(7, 5));
        head.refer(SHARDS - 1, Reference::new(9, 127));
        let read = Head::parse(head.as_bytes().to_vec()).expect("parses");
        assert_eq!(read, head);
        assert_eq!((read.epoch(), read.generation(), read.len()), (0xabc, 9, 3));
        assert!((0..ID_SHARDS).all(|shard| read.id_references()[shard] == head.reference(shard).stored()));
        assert_eq!((read.reference(0).generation(), read.reference(0).slot()), (Some(7), 5));
        assert_eq!((read.reference(SHARDS - 1).generation(), read.reference(SHARDS - 1).slot()), (Some(9), 127));
        assert_eq!((read.reference(1).generation(), read.reference(SHARDS).generation()), (None, None));
    }

    #[test]
    fn anything_else_is_no_map() {
        let bytes = Head::new(1).0;
        assert!((0..bytes.len()).all(|cut| Head::parse(bytes[..cut].to_vec()).is_none()));
        assert!(Head::parse([&bytes[..], &[0; 8]].concat()).is_none());
        assert!(Head::parse([b"PXH2", &bytes[4..]].concat()).is_none());
    }

    #[test]
    fn every_slot_has_a_key_of_its_own() {
        let keys = (0..SHARDS).flat_map(|shard| (0..128).map(move |slot| SlotKey::new(shard, slot).as_str().to_owned()));
        assert_eq!(keys.collect::<std::collections::BTreeSet<_>>().len(), SHARDS * 128);
        assert_eq!(SlotKey::new(SHARDS - 1, 127).as_str(), "pixell.shard.2.bdphp");
    }

    #[test]
    fn every_hash_and_every_port_has_a_shard() {
        assert_eq!((id_shard(0), id_shard(u32::MAX)), (0, ID_SHARDS - 1));
        assert_eq!((port_shard(0), port_shard(u16::MAX)), (ID_SHARDS, SHARDS - 1));
    }
}
