//! A port table: for 1,024 neighbouring ports, in which id shard the port's owner is.
//!
//! ```text
//! generation u64 | u16 a port: id shard plus 1, or 0 where nobody owns the port      (little-endian)
//! ```

const PORTS: usize = 1024;
const TABLE_AT: usize = 8;

/// The owners of 1,024 ports, by shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortTable(Vec<u8>);

impl PortTable {
    /// A table in which nobody owns anything.
    pub(super) fn new() -> Self {
        Self(vec![0; TABLE_AT + PORTS * 2])
    }

    /// Reads a stored table; `None` where it is not the one that `generation` wrote.
    pub(super) fn parse(bytes: Vec<u8>, generation: u64) -> Option<Self> {
        let whole = bytes.len() == TABLE_AT + PORTS * 2 && bytes.starts_with(&generation.to_le_bytes());
        whole.then_some(Self(bytes))
    }

    /// The stored form, as written by `generation`.
    pub(super) fn stamp(&mut self, generation: u64) -> &[u8] {
        if let Some(tag) = self.0.first_chunk_mut() {
            *tag = generation.to_le_bytes();
        }
        &self.0
    }

    /// The id shard of the port's owner.
    pub(super) fn owner(&self, port: u16) -> Option<usize> {
        let at = Self::at(port);
        let entry = self.0.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)?;
        Some(usize::from(entry.checked_sub(1)?))
    }

    /// Says in which id shard the port's owner is from now on.
    pub(super) fn set(&mut self, port: u16, owner: Option<usize>) {
        let entry = owner.and_then(|shard| u16::try_from(shard + 1).ok()).unwrap_or_default();
        let at = Self::at(port);
        if let Some(place) = self.0.get_mut(at..at + 2) {
            place.copy_from_slice(&entry.to_le_bytes());
        }
    }

    const fn at(port: u16) -> usize {
        TABLE_AT + (port as usize % PORTS) * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn keeps_owners() {
        let mut table = PortTable::new();
        for port in [0, 1, 1023, 1024 + 7, u16::MAX - 1] {
            assert_eq!(table.owner(port), None);
            table.set(port, Some(255));
            assert_eq!(table.owner(port), Some(255));
        }
        table.set(1023, Some(0));
        table.set(1, None);
        let read = PortTable::parse(table.stamp(5).to_vec(), 5).expect("parses");
        assert_eq!((read.owner(1023), read.owner(1), read.owner(0)), (Some(0), None, Some(255)));
    }

    #[test]
    fn refuses_another_generation_or_length() {
        let bytes = PortTable::new().stamp(5).to_vec();
        assert!(PortTable::parse(bytes.clone(), 6).is_none());
        assert!(PortTable::parse(bytes[1..].to_vec(), 5).is_none());
        assert!(PortTable::parse(Vec::new(), 0).is_none());
    }
}
