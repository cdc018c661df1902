//! A port table: for 1,024 neighbouring ports, in which table of routes the port's owner is.
//!
//! ```text
//! tag | u16 a port: number of the table plus 1, or 0 if nobody owns the port      (little-endian)
//! ```

use crate::store::TAG_LEN;
use crate::store::layout::PORTS_PER_SHARD;

const OWNER_LEN: usize = 2;

/// The number of the table with this port.
pub(super) const fn table_of(port: u16) -> usize {
    port as usize / PORTS_PER_SHARD
}

/// The owners of 1,024 ports, by table of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortTable(Vec<u8>);

impl Default for PortTable {
    /// A table in which nobody owns anything.
    fn default() -> Self {
        Self(vec![0; TAG_LEN + PORTS_PER_SHARD * OWNER_LEN])
    }
}

impl PortTable {
    /// Reads a stored table; `None` if the length is wrong.
    pub(super) fn parse(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == TAG_LEN + PORTS_PER_SHARD * OWNER_LEN).then_some(Self(bytes))
    }

    /// The stored form.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The table of routes that the port's owner is in.
    pub(super) fn owner(&self, port: u16) -> Option<usize> {
        let entry = self.0.get(Self::at(port)..)?.first_chunk().map(|entry| u16::from_le_bytes(*entry))?;
        Some(usize::from(entry.checked_sub(1)?))
    }

    /// Says in which table of routes the port's owner is from now on.
    pub(super) fn set(&mut self, port: u16, owner: Option<usize>) {
        let entry = owner.and_then(|table| u16::try_from(table + 1).ok()).unwrap_or_default();
        if let Some(place) = self.0.get_mut(Self::at(port)..).and_then(<[u8]>::first_chunk_mut) {
            *place = entry.to_le_bytes();
        }
    }

    const fn at(port: u16) -> usize {
        TAG_LEN + (port as usize % PORTS_PER_SHARD) * OWNER_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn keeps_owners() {
        let mut table = PortTable::default();
        for port in [0, 1, 1023, 1024 + 7, u16::MAX - 1] {
            assert_eq!(table.owner(port), None);
            table.set(port, Some(255));
            assert_eq!(table.owner(port), Some(255));
        }
        table.set(1023, Some(0));
        table.set(1, None);
        let read = PortTable::parse(table.into_bytes()).expect("parses");
        assert_eq!((read.owner(1023), read.owner(1), read.owner(0)), (Some(0), None, Some(255)));
    }

    #[test]
    fn rejects_another_length() {
        let bytes = PortTable::default().into_bytes();
        assert!(PortTable::parse(bytes[1..].to_vec()).is_none());
        assert!(PortTable::parse([&bytes[..], &[0]].concat()).is_none());
    }

    #[test]
    fn every_port_has_a_table() {
        assert_eq!((table_of(0), table_of(1023), table_of(1024), table_of(u16::MAX)), (0, 0, 1, 63));
    }
}
