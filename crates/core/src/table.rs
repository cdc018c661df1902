//! A table: byte strings by deployment id, in one string of bytes that is searched in place.
//!
//! A map is stored as a table for each shard ([`crate::store::layout`]). A worker looks ids up in the stored bytes; there is nothing to decode
//! but the header. All numbers are little-endian:
//!
//! ```text
//! header   entries u32 | log2 of the slots u32
//! slots    u32 each: offset of an entry behind the slots plus 1, or 0 if the slot is free (linear probing)
//! entries  length of the id u8 | length of the value u8 | id | value     (in ascending order of the ids)
//! ```

use crate::deployment_id::DeploymentId;
use crate::fnv::{BASIS, PRIME};
use std::fmt;

mod write;

pub use write::edit;

const LEN_AT: usize = 0;
const SLOT_BITS_AT: usize = LEN_AT + 4;
const HEADER_LEN: usize = SLOT_BITS_AT + 4;
const SLOT_LEN: usize = 4;
const ENTRY_HEAD_LEN: usize = 2;

/// A table over owned or borrowed bytes.
#[derive(Clone, Debug)]
pub struct Table<B> {
    bytes: B,
    /// Where the header begins: a stored shard has a tag before it.
    starts_at: usize,
    len: usize,
    slot_mask: u32,
}

impl<B: AsRef<[u8]>> Table<B> {
    /// Takes bytes that [`edit`] made, from `starts_at` on.
    ///
    /// Only the header is checked; in a damaged body, look-ups find nothing.
    ///
    /// # Errors
    /// [`InvalidTable`] if the slots do not fit into the bytes.
    pub fn parse(bytes: B, starts_at: usize) -> Result<Self, InvalidTable> {
        let table = bytes.as_ref().get(starts_at..).ok_or(InvalidTable)?;
        let (len, slot_bits) = (u32_at(table, LEN_AT).ok_or(InvalidTable)?, u32_at(table, SLOT_BITS_AT).ok_or(InvalidTable)?);
        let slots = 1_u32.checked_shl(slot_bits).ok_or(InvalidTable)?;
        let entries_at = usize::try_from(slots)
            .ok()
            .and_then(|slots| slots.checked_mul(SLOT_LEN))
            .and_then(|slot_bytes| slot_bytes.checked_add(HEADER_LEN));
        if entries_at.is_none_or(|entries_at| entries_at > table.len()) {
            return Err(InvalidTable);
        }
        let len = usize::try_from(len).map_err(|_| InvalidTable)?;
        Ok(Self { bytes, starts_at, len, slot_mask: slots - 1 })
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of an id.
    #[must_use]
    pub fn find(&self, id: DeploymentId<'_>) -> Option<&[u8]> {
        let id = id.as_str().as_bytes();
        self.find_hashed(id, hash(id))
    }

    /// The value of the id that is made of the bytes `wanted`, whose [`hash`] is known already.
    #[must_use]
    pub fn find_hashed(&self, wanted: &[u8], hash: u32) -> Option<&[u8]> {
        let (slots, entries) = self.parts()?;
        let mut slot = hash & self.slot_mask;
        // A well-formed table always has a free slot; the bound is for a damaged one.
        for _ in 0..=self.slot_mask {
            let offset = u32_at(slots, usize::try_from(slot).ok()?.checked_mul(SLOT_LEN)?)?.checked_sub(1)?;
            let entry = Entry::at(entries, usize::try_from(offset).ok()?)?;
            if entry.id == wanted {
                return Some(entry.value);
            }
            slot = slot.wrapping_add(1) & self.slot_mask;
        }
        None
    }

    /// All entries, in ascending order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (DeploymentId<'_>, &[u8])> {
        self.entries().map_while(|entry| Some((DeploymentId::parse(entry.id).ok()?, entry.value)))
    }

    /// All values, in the order of their ids.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.entries().map(|entry| entry.value)
    }

    /// The id of the first entry whose value `wanted` accepts. Only that id is parsed, which is most of what [`Self::iter`] costs.
    pub fn find_value(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<DeploymentId<'_>> {
        let entry = self.entries().find(|entry| wanted(entry.value))?;
        DeploymentId::parse(entry.id).ok()
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let entries = self.parts().map_or(&[][..], |(_, entries)| entries);
        let mut at = 0_usize;
        std::iter::from_fn(move || {
            let entry = Entry::at(entries, at)?;
            at = at.checked_add(entry.stored_len())?;
            Some(entry)
        })
    }

    /// The slots and the entries behind them.
    fn parts(&self) -> Option<(&[u8], &[u8])> {
        let body = self.bytes.as_ref().get(self.starts_at.checked_add(HEADER_LEN)?..)?;
        body.split_at_checked((usize::try_from(self.slot_mask).ok()?.checked_add(1)?).checked_mul(SLOT_LEN)?)
    }

    fn stored_len(&self) -> usize {
        self.bytes.as_ref().len().saturating_sub(self.starts_at)
    }
}

/// One entry as it lies in the bytes.
#[derive(Clone, Copy)]
struct Entry<'a> {
    id: &'a [u8],
    value: &'a [u8],
}

impl<'a> Entry<'a> {
    fn at(entries: &'a [u8], at: usize) -> Option<Self> {
        let (head, rest) = entries.get(at..)?.split_first_chunk::<ENTRY_HEAD_LEN>()?;
        let [id_len, value_len] = head.map(usize::from);
        let (id, rest) = rest.split_at_checked(id_len)?;
        Some(Self { id, value: rest.get(..value_len)? })
    }

    const fn stored_len(&self) -> usize {
        ENTRY_HEAD_LEN + self.id.len() + self.value.len()
    }
}

/// The hash of the bytes of an id: FNV-1a over eight bytes at a time. The top eight bits choose the shard, the low ones the slot in it.
/// What is stored depends on it.
///
/// Clients choose the ids they ask for, but not the ids in the table, so they cannot build collisions.
#[must_use]
pub fn hash(bytes: &[u8]) -> u32 {
    let mut state = BASIS;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.try_into().map_or(0, u64::from_le_bytes);
        state = (state ^ word).wrapping_mul(PRIME);
        state ^= state >> 32;
    }
    for byte in chunks.remainder() {
        state = (state ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    state ^= state >> 29;
    #[expect(clippy::cast_possible_truncation, reason = "the low half of the state is the hash")]
    let low = (state ^ (state >> 32)) as u32;
    low
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Bytes that are not a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTable;

impl fmt::Display for InvalidTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stored bytes are not a table of this version")
    }
}

impl std::error::Error for InvalidTable {}

/// More than a table can hold: 4 GiB of entries, 255 bytes in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the entries do not fit into a table")
    }
}

impl std::error::Error for TooLarge {}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn id(text: &str) -> DeploymentId<'_> {
        DeploymentId::parse(text.as_bytes()).expect("a valid id")
    }

    /// A table of these ids behind three other bytes; each value is the id's length.
    fn encoded(ids: &[String]) -> Vec<u8> {
        let values: Vec<u8> = ids.iter().map(|id| u8::try_from(id.len()).expect("short")).collect();
        let entries = ids.iter().zip(&values).map(|(text, value)| (id(text), Some(std::slice::from_ref(value))));
        edit(None::<&Table<Vec<u8>>>, b"tag", entries).expect("it fits").unwrap_or_default()
    }

    #[test]
    fn finds_what_was_stored_and_nothing_else() {
        for count in [1, 2, 3, 100, 1000] {
            let mut ids: Vec<String> = (0..count).map(|n| format!("deployment-{n}")).collect();
            ids.sort();
            let table = Table::parse(encoded(&ids), 3).expect("parses");
            assert_eq!(table.len(), ids.len());
            for text in &ids {
                assert_eq!(table.find(id(text)).map(|value| usize::from(value[0])), Some(text.len()));
            }
            assert!(table.iter().map(|(id, _)| id.as_str()).eq(ids.iter().map(String::as_str)));
            assert_eq!(table.find(id("deployment-x")), None);
            assert_eq!(table.find_value(|value| value[0] == 12), ids.iter().find(|id| id.len() == 12).map(|text| id(text)));
            assert_eq!(table.find_value(|value| value[0] == 99), None);
        }
        assert!(encoded(&[]).is_empty(), "an empty table is not stored");
    }

    #[test]
    fn rejects_bytes_that_are_not_a_table() {
        let bytes = encoded(&["a".to_owned()]);
        for cut in 0..3 + HEADER_LEN + SLOT_LEN {
            assert!(Table::parse(&bytes[..cut], 3).is_err(), "cut at {cut}");
        }
        let mut huge = bytes;
        huge[7..11].copy_from_slice(&31_u32.to_le_bytes());
        assert!(Table::parse(&huge, 3).is_err());
        huge[7..11].copy_from_slice(&32_u32.to_le_bytes());
        assert!(Table::parse(&huge, 3).is_err());
    }

    #[test]
    fn a_damaged_body_finds_nothing_wrong() {
        let bytes = encoded(&["a".to_owned(), "b".to_owned()]);
        for at in 3 + HEADER_LEN..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = 0xff;
            if let Ok(table) = Table::parse(damaged, 3) {
                let _ = table.find(id("a"));
                assert!(table.iter().count() <= 2);
            }
        }
    }
}
