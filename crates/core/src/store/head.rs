//! The head: which slots hold the map now. Swapping it is the one step in which a write happens.
//!
//! ```text
//! magic "PXH3" | epoch u64 | generation u64 | turn u64 | entries u32 | shard references, u64 each      (little-endian)
//! ```

use super::Layout;

const MAGIC: [u8; 4] = *b"PXH3";
const EPOCH_AT: usize = MAGIC.len();
const GENERATION_AT: usize = EPOCH_AT + 8;
const TURN_AT: usize = GENERATION_AT + 8;
const LEN_AT: usize = TURN_AT + 8;
const REFERENCES_AT: usize = LEN_AT + 4;
const REFERENCE_LEN: usize = 8;

/// The version of a map; 0 and 0 before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// A random number, chosen when the first map of this Envoy process was stored.
    pub epoch: u64,
    /// Grows by one with each effective change; 1 for the first map.
    pub generation: u64,
}

/// The version of a map and where its shards are, in the stored form: a write changes a few of the references, and a reader compares
/// them all, so nothing is decoded before it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head(Vec<u8>);

/// Where a shard is: its slot and the turn that wrote it there. The turn stands in the shard too, so that a reader with an old head
/// notices if a slot was reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reference {
    /// 0 if the shard is empty and has no slot.
    turn: u64,
    slot: u8,
}

impl Reference {
    /// The shard as `turn`, which is not 0, wrote it into `slot`.
    pub(super) const fn new(turn: u64, slot: u8) -> Self {
        Self { turn, slot }
    }

    /// The slot and the turn, or `None` if the shard is empty.
    pub(super) fn place(self) -> Option<(u8, u64)> {
        (self.turn != 0).then_some((self.slot, self.turn))
    }

    /// The reference as the head has it.
    pub(super) const fn stored(self) -> StoredReference {
        (self.turn << 8 | self.slot as u64).to_le_bytes()
    }

    const fn parse(stored: StoredReference) -> Self {
        let number = u64::from_le_bytes(stored);
        Self { turn: number >> 8, slot: number.to_le_bytes()[0] }
    }
}

/// A reference as the head has it.
pub(super) type StoredReference = [u8; REFERENCE_LEN];

/// The length of a head in bytes.
const fn len(layout: &Layout) -> usize {
    REFERENCES_AT + layout.shards() * REFERENCE_LEN
}

impl Head {
    /// The head of a map that has not been stored yet.
    pub(super) fn new(layout: &Layout, epoch: u64) -> Self {
        let mut head = Self(vec![0; len(layout)]);
        head.write(0, MAGIC);
        head.write(EPOCH_AT, epoch.to_le_bytes());
        head
    }

    /// Takes the stored form; `None` if there is none.
    pub(super) fn parse(layout: &Layout, bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == len(layout) && bytes.starts_with(&MAGIC)).then_some(Self(bytes))
    }

    /// The stored form.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn version(&self) -> Version {
        Version { epoch: u64::from_le_bytes(self.read(EPOCH_AT)), generation: u64::from_le_bytes(self.read(GENERATION_AT)) }
    }

    /// How often the head has been swapped.
    pub(super) fn turn(&self) -> u64 {
        u64::from_le_bytes(self.read(TURN_AT))
    }

    /// Number of entries.
    pub(super) fn len(&self) -> u32 {
        u32::from_le_bytes(self.read(LEN_AT))
    }

    /// Where the shard is; empty for a shard that does not exist.
    pub(super) fn reference(&self, shard: usize) -> Reference {
        Reference::parse(self.references().get(shard).copied().unwrap_or_default())
    }

    /// All references, by shard.
    pub(super) fn references(&self) -> &[StoredReference] {
        self.0.get(REFERENCES_AT..).unwrap_or_default().as_chunks().0
    }

    /// Makes it the head of the next turn.
    pub(super) fn next_turn(&mut self) {
        self.write(TURN_AT, (self.turn() + 1).to_le_bytes());
    }

    /// Makes it the head of the next generation, with so many entries.
    pub(super) fn next_generation(&mut self, len: u32) {
        self.write(GENERATION_AT, (self.version().generation + 1).to_le_bytes());
        self.write(LEN_AT, len.to_le_bytes());
    }

    /// Says where the shard is from now on.
    pub(super) fn refer(&mut self, shard: usize, reference: Reference) {
        self.write(REFERENCES_AT + shard * REFERENCE_LEN, reference.stored());
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

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const LAYOUT: Layout = Layout { prefix: *b"pixell.example.1", tables: 256, others: 64 };

    #[test]
    fn is_read_as_it_was_written() {
        let mut head = Head::new(&LAYOUT, 0xabc);
        assert_eq!(head.version(), Version { epoch: 0xabc, generation: 0 });
        head.next_turn();
        head.next_turn();
        head.next_generation(3);
        head.refer(0, Reference::new(1, 5));
        head.refer(319, Reference::new(u64::MAX >> 8, 7));
        let read = Head::parse(&LAYOUT, head.as_bytes().to_vec()).expect("parses");
        assert_eq!(read, head);
        assert_eq!((read.version(), read.turn(), read.len()), (Version { epoch: 0xabc, generation: 1 }, 2, 3));
        assert_eq!(read.references().len(), 320);
        assert!((0..320).all(|shard| read.references()[shard] == head.reference(shard).stored()));
        assert_eq!(read.reference(0).place(), Some((5, 1)));
        assert_eq!(read.reference(319).place(), Some((7, u64::MAX >> 8)));
        assert_eq!((read.reference(1).place(), read.reference(320).place()), (None, None));
    }

    #[test]
    fn other_bytes_are_no_head() {
        let bytes = Head::new(&LAYOUT, 1).0;
        assert!((0..bytes.len()).all(|cut| Head::parse(&LAYOUT, bytes[..cut].to_vec()).is_none()));
        assert!(Head::parse(&LAYOUT, [&bytes[..], &[0; 8]].concat()).is_none());
        assert!(Head::parse(&LAYOUT, [b"PXH2", &bytes[4..]].concat()).is_none());
    }
}
