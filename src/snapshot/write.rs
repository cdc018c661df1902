//! Writing a snapshot, whole or from the one before.

use super::{ENTRY_HEAD_LEN, Entry, HEADER_LEN, MAGIC, Snapshot, TooLarge, hash_bytes};
use crate::deployment_id::DeploymentId;
use crate::route::{Route, RouteState};
use std::cmp::Ordering;

/// Writes routes as a snapshot.
///
/// The routes must come in ascending order of their ids, each id once (a `BTreeMap` gives them so).
///
/// # Errors
/// [`TooLarge`] where they do not fit into 4 GiB, the reach of an offset.
pub fn encode<'a, I>(epoch: u64, generation: u64, routes: I) -> Result<Vec<u8>, TooLarge>
where
    I: ExactSizeIterator<Item = (DeploymentId<'a>, Route)>,
{
    let mut writer = Writer::new(epoch, generation, routes.len(), routes.len().saturating_mul(44))?;
    for (id, route) in routes {
        writer.push(&entry(id, route))?;
    }
    writer.finish()
}

/// Writes the routes of `before` with changes made: an id gets a route, or has none from now on. The changes must come in ascending
/// order of their ids, each id once. `None` where no route is left.
///
/// The entries in between are copied as they are, for they are most of a shard.
///
/// # Errors
/// As [`encode`].
pub fn edit<'a, B: AsRef<[u8]>>(
    before: Option<&Snapshot<B>>,
    epoch: u64,
    generation: u64,
    changes: impl ExactSizeIterator<Item = (DeploymentId<'a>, Option<Route>)>,
) -> Result<Option<Vec<u8>>, TooLarge> {
    let (present, bytes) = before.map_or((0, 0), |before| (before.len(), before.bytes.as_ref().len()));
    // The slots are for the most there can be: an id that is changed or removed is counted as one that is added.
    let most = present.saturating_add(changes.len());
    let mut writer = Writer::new(epoch, generation, most, bytes.saturating_add(changes.len().saturating_mul(44)))?;
    let mut old = before.into_iter().flat_map(Snapshot::entries).peekable();
    for (id, route) in changes {
        let wanted = id.as_str().as_bytes();
        while let Some(entry) = old.next_if(|entry| entry.id.cmp(wanted) == Ordering::Less) {
            writer.push(&entry)?;
        }
        let _ = old.next_if(|entry| entry.id == wanted);
        if let Some(route) = route {
            writer.push(&entry(id, route))?;
        }
    }
    for entry in old {
        writer.push(&entry)?;
    }
    if writer.len == 0 { Ok(None) } else { writer.finish().map(Some) }
}

fn entry(id: DeploymentId<'_>, route: Route) -> Entry<'_> {
    Entry { port: route.port, state: u8::from(route.state == RouteState::Draining), id: id.as_str().as_bytes() }
}

/// A snapshot that grows entry by entry, in place: header, slots, entries.
struct Writer {
    bytes: Vec<u8>,
    len: u32,
    slot_mask: u32,
    entries_at: usize,
}

impl Writer {
    /// With slots for so many routes, and room for so many bytes of entries.
    fn new(epoch: u64, generation: u64, routes: usize, entry_bytes: usize) -> Result<Self, TooLarge> {
        let routes = u32::try_from(routes).map_err(|_| TooLarge)?;
        // At most two thirds full: short probes, also for ids that are not in the map.
        let slots = routes.checked_add(routes / 2).and_then(|wanted| wanted.checked_add(1)).ok_or(TooLarge)?;
        let slots = slots.checked_next_power_of_two().ok_or(TooLarge)?;
        let table = usize::try_from(slots).ok().and_then(|slots| slots.checked_mul(4)).ok_or(TooLarge)?;
        let entries_at = table.checked_add(HEADER_LEN).ok_or(TooLarge)?;
        let mut bytes = Vec::with_capacity(entries_at.saturating_add(entry_bytes));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(&generation.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&slots.trailing_zeros().to_le_bytes());
        bytes.resize(entries_at, 0);
        Ok(Self { bytes, len: 0, slot_mask: slots - 1, entries_at })
    }

    fn push(&mut self, entry: &Entry<'_>) -> Result<(), TooLarge> {
        let offset = self.bytes.len() - self.entries_at;
        let reference = u32::try_from(offset).ok().and_then(|offset| offset.checked_add(1)).ok_or(TooLarge)?;
        let slots = self.bytes.get_mut(HEADER_LEN..self.entries_at).unwrap_or_default().as_chunks_mut::<4>().0;
        let mut slot = hash_bytes(entry.id) & self.slot_mask;
        // There is a free slot; the bound is for an edited snapshot that holds more routes than its header says.
        let free = (0..=self.slot_mask).find_map(|_| {
            let at = usize::try_from(slot).ok()?;
            slot = slot.wrapping_add(1) & self.slot_mask;
            (*slots.get(at)? == [0; 4]).then_some(at)
        });
        *free.and_then(|at| slots.get_mut(at)).ok_or(TooLarge)? = reference.to_le_bytes();
        let [port_low, port_high] = entry.port.to_le_bytes();
        let head: [u8; ENTRY_HEAD_LEN] =
            [port_low, port_high, entry.state, u8::try_from(entry.id.len()).map_err(|_| TooLarge)?];
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(entry.id);
        self.len += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, TooLarge> {
        let place = self.bytes.get_mut(LEN_AT..).and_then(<[u8]>::first_chunk_mut).ok_or(TooLarge)?;
        *place = self.len.to_le_bytes();
        Ok(self.bytes)
    }
}

/// Where the header has the number of routes.
const LEN_AT: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn id(text: &str) -> DeploymentId<'_> {
        DeploymentId::parse(text.as_bytes()).expect("valid")
    }

    /// Whatever is before, between and behind the present ids, edited routes are found as routes that were written anew.
    #[test]
    fn edits_as_a_map_does() {
        let names = ["a", "b", "c", "d", "e"];
        let route = |port| Route { port, state: RouteState::Draining };
        for present in 0..32_u16 {
            let map: BTreeMap<_, _> = names
                .into_iter()
                .zip(0..)
                .filter(|(_, n)| present >> n & 1 == 1)
                .map(|(name, n)| (id(name), route(n)))
                .collect();
            let bytes = encode(7, 1, map.clone().into_iter()).expect("it fits");
            let before = Snapshot::parse(bytes).expect("parses");
            for changed in 0..243_u16 {
                // Each id is left alone, set or removed.
                let what = |n: u32| changed / 3_u16.pow(n) % 3;
                let changes: Vec<_> = names
                    .into_iter()
                    .zip(0..)
                    .filter(|(_, n)| what(*n) > 0)
                    .map(|(name, n)| (id(name), (what(n) == 1).then_some(route(100))))
                    .collect();
                let mut expected = map.clone();
                for (id, route) in &changes {
                    match route {
                        Some(route) => expected.insert(*id, *route),
                        None => expected.remove(id),
                    };
                }
                let edited = edit(Some(&before), 7, 2, changes.into_iter()).expect("it fits");
                let Some(after) = edited.map(|bytes| Snapshot::parse(bytes).expect("parses")) else {
                    assert!(expected.is_empty());
                    continue;
                };
                assert_eq!((after.epoch(), after.generation(), after.len()), (7, 2, expected.len()));
                assert!(after.iter().eq(expected.clone()), "{present} {changed}");
                assert!(names.iter().all(|name| after.find(id(name)) == expected.get(&id(name)).copied()));
            }
        }
    }

    #[test]
    fn more_routes_than_the_header_says_are_refused() {
        let names: Vec<String> = (10..99).map(|n| n.to_string()).collect();
        let all = names.iter().map(|name| (id(name), Route { port: 1, state: RouteState::Active }));
        let mut bytes = encode(7, 1, all).expect("it fits");
        bytes[LEN_AT..LEN_AT + 4].copy_from_slice(&[0; 4]);
        let before = Snapshot::parse(bytes).expect("parses");
        assert_eq!(edit(Some(&before), 7, 2, [].into_iter()), Err(TooLarge));
    }
}
