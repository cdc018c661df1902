//! Writing a table: the previous one with changes.

use super::{ENTRY_HEAD_LEN, Entry, HEADER_LEN, LEN_AT, SLOT_BITS_AT, SLOT_LEN, Table, TooLarge, hash};
use crate::deployment_id::DeploymentId;

/// What an id and its value take on average, in bytes: a UUID and a port.
const USUAL_ENTRY: usize = 44;

/// Writes the entries of `before` with changes made, behind the bytes `tag`: an id gets a value, or is removed. The changes must come in
/// ascending order of their ids, each id once. `None` if no entry is left.
///
/// The entries in between are copied as they are, because they are most of a table.
///
/// # Errors
/// [`TooLarge`] if the entries do not fit into 4 GiB, the reach of an offset, or a value has more than 255 bytes.
pub fn edit<'a, B: AsRef<[u8]>>(
    before: Option<&Table<B>>,
    tag: &[u8],
    changes: impl ExactSizeIterator<Item = (DeploymentId<'a>, Option<&'a [u8]>)>,
) -> Result<Option<Vec<u8>>, TooLarge> {
    let (present, bytes) = before.map_or((0, 0), |before| (before.len(), before.stored_len()));
    // An upper bound: an id that is changed or removed counts as one that is added.
    let most = present.saturating_add(changes.len());
    let mut writer = Writer::new(tag, most, bytes.saturating_add(changes.len().saturating_mul(USUAL_ENTRY)))?;
    let mut old = before.into_iter().flat_map(Table::entries).peekable();
    for (id, value) in changes {
        let id = id.as_str().as_bytes();
        while let Some(entry) = old.next_if(|entry| entry.id < id) {
            writer.push(entry)?;
        }
        let _ = old.next_if(|entry| entry.id == id);
        if let Some(value) = value {
            writer.push(Entry { id, value })?;
        }
    }
    for entry in old {
        writer.push(entry)?;
    }
    if writer.len == 0 { Ok(None) } else { writer.finish().map(Some) }
}

/// A table that grows entry by entry, in place.
struct Writer {
    bytes: Vec<u8>,
    header_at: usize,
    entries_at: usize,
    len: u32,
    slot_mask: u32,
}

impl Writer {
    /// With slots for so many entries, and room for so many bytes of them.
    fn new(tag: &[u8], entries: usize, entry_bytes: usize) -> Result<Self, TooLarge> {
        let entries = u32::try_from(entries).map_err(|_| TooLarge)?;
        // At most two thirds full: short probes, also for ids that are not in the table.
        let slots = entries.checked_add(entries / 2).and_then(|wanted| wanted.checked_add(1)).ok_or(TooLarge)?;
        let slots = slots.checked_next_power_of_two().ok_or(TooLarge)?;
        let slot_bytes = usize::try_from(slots).ok().and_then(|slots| slots.checked_mul(SLOT_LEN)).ok_or(TooLarge)?;
        let header_at = tag.len();
        let entries_at = slot_bytes.checked_add(header_at + HEADER_LEN).ok_or(TooLarge)?;
        let mut bytes = Vec::with_capacity(entries_at.saturating_add(entry_bytes));
        bytes.extend_from_slice(tag);
        // The number of entries is known when it is finished.
        bytes.extend_from_slice(&[0; SLOT_BITS_AT - LEN_AT]);
        bytes.extend_from_slice(&slots.trailing_zeros().to_le_bytes());
        bytes.resize(entries_at, 0);
        Ok(Self { bytes, header_at, entries_at, len: 0, slot_mask: slots - 1 })
    }

    fn push(&mut self, entry: Entry<'_>) -> Result<(), TooLarge> {
        let offset = self.bytes.len() - self.entries_at;
        let reference = u32::try_from(offset).ok().and_then(|offset| offset.checked_add(1)).ok_or(TooLarge)?;
        let slots = self.bytes.get_mut(self.header_at + HEADER_LEN..self.entries_at).unwrap_or_default();
        let slots = slots.as_chunks_mut::<SLOT_LEN>().0;
        let mut slot = hash(entry.id) & self.slot_mask;
        // There is a free slot; the bound is for a damaged table that holds more entries than its header says.
        let free = (0..=self.slot_mask).find_map(|_| {
            let at = usize::try_from(slot).ok()?;
            slot = slot.wrapping_add(1) & self.slot_mask;
            (*slots.get(at)? == [0; SLOT_LEN]).then_some(at)
        });
        *free.and_then(|at| slots.get_mut(at)).ok_or(TooLarge)? = reference.to_le_bytes();
        let lengths: [u8; ENTRY_HEAD_LEN] =
            [u8::try_from(entry.id.len()).map_err(|_| TooLarge)?, u8::try_from(entry.value.len()).map_err(|_| TooLarge)?];
        self.bytes.extend_from_slice(&lengths);
        self.bytes.extend_from_slice(entry.id);
        self.bytes.extend_from_slice(entry.value);
        self.len += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, TooLarge> {
        let place = self.bytes.get_mut(self.header_at + LEN_AT..).and_then(<[u8]>::first_chunk_mut).ok_or(TooLarge)?;
        *place = self.len.to_le_bytes();
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn id(text: &str) -> DeploymentId<'_> {
        DeploymentId::parse(text.as_bytes()).expect("valid")
    }

    fn written(entries: &BTreeMap<DeploymentId<'_>, &[u8]>) -> Option<Table<Vec<u8>>> {
        let all = entries.iter().map(|(id, value)| (*id, Some(*value)));
        let bytes = edit(None::<&Table<Vec<u8>>>, b"", all).expect("it fits")?;
        Some(Table::parse(bytes, 0).expect("parses"))
    }

    /// Whatever is before, between and behind the present ids, an edited table is the table written from scratch.
    #[test]
    fn edits_as_a_map_does() {
        let names = ["a", "b", "c", "d", "e"];
        let values: [&[u8]; 6] = [b"", b"1", b"22", b"333", b"4444", b"new"];
        for present in 0..32_u16 {
            let held = names.into_iter().zip(values).zip(0..).filter(|(_, n)| present >> n & 1 == 1);
            let map: BTreeMap<_, _> = held.map(|((name, value), _)| (id(name), value)).collect();
            let before = written(&map);
            for changed in 0..243_u16 {
                // Each id is left alone, set or removed.
                let what = |n: u32| changed / 3_u16.pow(n) % 3;
                let changes: Vec<_> = names
                    .into_iter()
                    .zip(0..)
                    .filter(|(_, n)| what(*n) > 0)
                    .map(|(name, n)| (id(name), (what(n) == 1).then_some(values[5])))
                    .collect();
                let mut expected = map.clone();
                for (id, value) in &changes {
                    match value {
                        Some(value) => expected.insert(*id, value),
                        None => expected.remove(id),
                    };
                }
                let edited = edit(before.as_ref(), b"tag", changes.into_iter()).expect("it fits");
                let Some(after) = edited.map(|bytes| Table::parse(bytes, 3).expect("parses")) else {
                    assert!(expected.is_empty());
                    continue;
                };
                assert_eq!(after.len(), expected.len());
                assert!(after.iter().eq(expected.clone()), "{present} {changed}");
                assert!(names.iter().all(|name| after.find(id(name)) == expected.get(&id(name)).copied()));
            }
        }
    }

    #[test]
    fn rejects_more_entries_than_the_header_says() {
        let names: Vec<String> = (10..99).map(|n| n.to_string()).collect();
        let all = names.iter().map(|name| (id(name), Some(&b"v"[..])));
        let mut bytes = edit(None::<&Table<Vec<u8>>>, b"", all).expect("it fits").expect("not empty");
        bytes[..4].copy_from_slice(&[0; 4]);
        let before = Table::parse(bytes, 0).expect("parses");
        assert_eq!(edit(Some(&before), b"", [].into_iter()), Err(TooLarge));
    }

    #[test]
    fn rejects_a_value_above_255_bytes() {
        let write = |len| edit(None::<&Table<Vec<u8>>>, b"", [(id("a"), Some(&[7; 300][..len]))].into_iter());
        assert!(write(255).is_ok());
        assert_eq!(write(256), Err(TooLarge));
    }
}
