//! The head: which slots hold the map now. Swapping it is the one step in which a write happens.
//!
//! ```text
//! magic "PXH1" | epoch u64 | generation u64 | routes u32 | shard references, u64 each      (little-endian)
//! ```

/// Shared-data key of the head. A new format gets a new key.
pub(super) const KEY: &str = "pixell.head.1";

/// Shards of routes, by the top eight bits of the id's hash: 256 routes a shard in a map of 65,536.
pub(super) const ID_SHARDS: usize = 256;

/// Shards of ports, 1,024 ports each.
pub(super) const PORT_SHARDS: usize = 64;

const SHARDS: usize = ID_SHARDS + PORT_SHARDS;
const MAGIC: [u8; 4] = *b"PXH1";
const REFERENCES_AT: usize = 24;

/// The version of a map and where its shards are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Drawn when the first map of this Envoy process was stored; never 0.
    pub epoch: u64,
    /// Grows by one at each effective change; 1 for the first map.
    pub generation: u64,
    /// Number of routes.
    pub len: u32,
    references: Vec<Reference>,
}

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

    /// The slot; of no meaning where the shard is empty.
    pub(super) const fn slot(self) -> u8 {
        self.0.to_le_bytes()[0]
    }
}

impl Head {
    /// The head of an empty map, before its first generation.
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch, generation: 0, len: 0, references: vec![Reference::default(); SHARDS] }
    }

    /// Where the shard is; empty for a shard that does not exist.
    pub(super) fn reference(&self, shard: usize) -> Reference {
        self.references.get(shard).copied().unwrap_or_default()
    }

    /// Says where the shard is from now on.
    pub(super) fn refer(&mut self, shard: usize, reference: Reference) {
        if let Some(place) = self.references.get_mut(shard) {
            *place = reference;
        }
    }

    /// The head in its stored form.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(REFERENCES_AT + SHARDS * 8);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend(self.references.iter().flat_map(|reference| reference.0.to_le_bytes()));
        bytes
    }

    /// Reads the stored form; `None` where no map has been stored.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (references, []) = rest.as_chunks() else { return None };
        if references.len() != SHARDS {
            return None;
        }
        Some(Self {
            epoch: u64::from_le_bytes(*epoch),
            generation: u64::from_le_bytes(*generation),
            len: u32::from_le_bytes(*len),
            references: references.iter().map(|bytes| Reference(u64::from_le_bytes(*bytes))).collect(),
        })
    }
}

/// Shared-data key of a slot of a shard.
pub(super) fn slot_key(shard: usize, slot: u8) -> String {
    format!("pixell.shard.1.{shard}.{slot}")
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
        let mut head = Head { generation: 9, len: 3, ..Head::new(0xabc) };
        head.refer(0, Reference::new(7, 5));
        head.refer(SHARDS - 1, Reference::new(9, 127));
        let read = Head::parse(&head.encode()).expect("parses");
        assert_eq!(read, head);
        assert_eq!((read.reference(0).generation(), read.reference(0).slot()), (Some(7), 5));
        assert_eq!((read.reference(SHARDS - 1).generation(), read.reference(SHARDS - 1).slot()), (Some(9), 127));
        assert_eq!((read.reference(1).generation(), read.reference(SHARDS).generation()), (None, None));
    }

    #[test]
    fn anything_else_is_no_map() {
        let bytes = Head::new(1).encode();
        assert!((0..bytes.len()).all(|cut| Head::parse(&bytes[..cut]).is_none()));
        assert!(Head::parse(&[&bytes[..], &[0; 8]].concat()).is_none());
        assert!(Head::parse(&[b"PXH2", &bytes[4..]].concat()).is_none());
    }

    #[test]
    fn every_hash_and_every_port_has_a_shard() {
        assert_eq!((id_shard(0), id_shard(u32::MAX)), (0, ID_SHARDS - 1));
        assert_eq!((port_shard(0), port_shard(u16::MAX)), (ID_SHARDS, SHARDS - 1));
    }
}
