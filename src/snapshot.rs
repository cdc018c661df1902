//! A snapshot: routes as one string of bytes, as they lie in Envoy's shared data.
//!
//! The store keeps the route map in 256 of them ([`crate::store`]). A worker looks ids up in these bytes; there is nothing to decode but the header. All numbers are little-endian:
//!
//! ```text
//! header   magic "PXR1" | epoch u64 | generation u64 | routes u32 | log2 of the slots u32
//! slots    u32 each: offset of an entry in `entries` plus 1, or 0 where the slot is free (linear probing)
//! entries  port u16 | state u8 | length of the id u8 | id     (in ascending order of the ids)
//! ```

use crate::deployment_id::DeploymentId;
use crate::route::{Route, RouteState};
use std::fmt;

mod write;

pub use write::{edit, encode};

const MAGIC: [u8; 4] = *b"PXR1";
const HEADER_LEN: usize = 28;
const ENTRY_HEAD_LEN: usize = 4;

/// Routes in their stored form, over owned or borrowed bytes.
#[derive(Clone, Debug)]
pub struct Snapshot<B> {
    bytes: B,
    epoch: u64,
    generation: u64,
    len: usize,
    slot_mask: u32,
    entries_at: usize,
}

impl<B: AsRef<[u8]>> Snapshot<B> {
    /// Takes bytes that [`encode`] made.
    ///
    /// Only the header is checked; a damaged body makes look-ups find nothing, it never makes them fail.
    ///
    /// # Errors
    /// [`InvalidSnapshot`] where the header is not one of this version, or the slots do not fit into the bytes.
    pub fn parse(bytes: B) -> Result<Self, InvalidSnapshot> {
        let all = bytes.as_ref();
        if all.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(InvalidSnapshot::Magic);
        }
        let header = (u64_at(all, 4), u64_at(all, 12), u32_at(all, 20), u32_at(all, 24));
        let (Some(epoch), Some(generation), Some(len), Some(slot_bits)) = header else {
            return Err(InvalidSnapshot::Truncated);
        };
        let slots = 1_u32.checked_shl(slot_bits).ok_or(InvalidSnapshot::Truncated)?;
        let entries_at = usize::try_from(slots)
            .ok()
            .and_then(|slots| slots.checked_mul(4))
            .and_then(|slot_bytes| slot_bytes.checked_add(HEADER_LEN))
            .filter(|entries_at| *entries_at <= all.len())
            .ok_or(InvalidSnapshot::Truncated)?;
        let len = usize::try_from(len).map_err(|_| InvalidSnapshot::Truncated)?;
        Ok(Self { bytes, epoch, generation, len, slot_mask: slots - 1, entries_at })
    }

    /// The value drawn when the first map of this Envoy process was stored.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The generation of the map that these routes were written for.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The route of an id.
    #[must_use]
    pub fn find(&self, id: DeploymentId<'_>) -> Option<Route> {
        let id = id.as_str().as_bytes();
        self.find_hashed(id, hash_bytes(id))
    }

    /// The route of the id that is made of the bytes `wanted`, whose [`hash_bytes`] is known already.
    #[must_use]
    pub fn find_hashed(&self, wanted: &[u8], hash: u32) -> Option<Route> {
        let bytes = self.bytes.as_ref();
        let mut slot = hash & self.slot_mask;
        // A well-formed table always has a free slot; the bound is for a damaged one.
        for _ in 0..=self.slot_mask {
            let at = HEADER_LEN.checked_add(usize::try_from(slot).ok()?.checked_mul(4)?)?;
            let offset = u32_at(bytes, at)?.checked_sub(1)?;
            let entry = Entry::at(bytes, self.entries_at.checked_add(usize::try_from(offset).ok()?)?)?;
            if entry.id == wanted {
                return entry.route();
            }
            slot = slot.wrapping_add(1) & self.slot_mask;
        }
        None
    }

    /// All routes, in ascending order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (DeploymentId<'_>, Route)> {
        self.entries().map_while(|entry| Some((DeploymentId::parse(entry.id).ok()?, entry.route()?)))
    }

    /// The id that a port is given to. Only the one that is found is looked at as an id, which is most of what [`Self::iter`] costs.
    #[must_use]
    pub fn owner(&self, port: u16) -> Option<DeploymentId<'_>> {
        let entry = self.entries().find(|entry| entry.port == port)?;
        DeploymentId::parse(entry.id).ok()
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let bytes = self.bytes.as_ref();
        let mut at = self.entries_at;
        std::iter::from_fn(move || {
            let entry = Entry::at(bytes, at)?;
            at = at.checked_add(ENTRY_HEAD_LEN)?.checked_add(entry.id.len())?;
            Some(entry)
        })
    }
}

/// One route as it lies in the bytes.
struct Entry<'a> {
    port: u16,
    state: u8,
    id: &'a [u8],
}

impl<'a> Entry<'a> {
    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let id_at = at.checked_add(ENTRY_HEAD_LEN)?;
        let &[port_low, port_high, state, len] = bytes.get(at..id_at)? else { return None };
        let id = bytes.get(id_at..id_at.checked_add(usize::from(len))?)?;
        Some(Self { port: u16::from_le_bytes([port_low, port_high]), state, id })
    }

    fn route(&self) -> Option<Route> {
        let state = match self.state {
            0 => RouteState::Active,
            1 => RouteState::Draining,
            _ => return None,
        };
        Some(Route { port: self.port, state })
    }
}

/// The hash of an id: FNV-1a over eight bytes at a time. The top eight bits choose the shard, the low ones the slot in it. What is
/// stored depends on it, so another hash is another format, with another magic.
///
/// Callers choose the ids they ask for, but not the ids in the table, so they cannot build collisions.
#[must_use]
pub fn hash(id: DeploymentId<'_>) -> u32 {
    hash_bytes(id.as_str().as_bytes())
}

/// The same for bytes of which nobody knows yet whether they are an id.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> u32 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
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
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

/// Why some bytes are not a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSnapshot {
    /// They do not begin with this version's magic.
    Magic,
    /// They are shorter than their header says.
    Truncated,
}

impl fmt::Display for InvalidSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "the stored route map is not of this version",
            Self::Truncated => "the stored route map is cut off",
        })
    }
}

impl std::error::Error for InvalidSnapshot {}

/// There are more routes than a snapshot can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the routes do not fit into a snapshot (4 GiB)")
    }
}

impl std::error::Error for TooLarge {}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const ROUTE: Route = Route { port: 50054, state: RouteState::Active };

    fn id(text: &str) -> DeploymentId<'_> {
        DeploymentId::parse(text.as_bytes()).expect("a valid id")
    }

    fn encoded(ids: &[String]) -> Vec<u8> {
        encode(7, 3, ids.iter().map(|text| (id(text), ROUTE))).expect("it fits")
    }

    #[test]
    fn finds_what_was_stored_and_nothing_else() {
        for count in [0, 1, 2, 3, 100, 1000] {
            let mut ids: Vec<String> = (0..count).map(|n| format!("deployment-{n}")).collect();
            ids.sort();
            let snapshot = Snapshot::parse(encoded(&ids)).expect("parses");
            assert_eq!((snapshot.epoch(), snapshot.generation(), snapshot.len()), (7, 3, ids.len()));
            assert!(ids.iter().all(|text| snapshot.find(id(text)) == Some(ROUTE)));
            assert!(snapshot.iter().map(|(id, _)| id.as_str()).eq(ids.iter().map(String::as_str)));
            assert_eq!(snapshot.find(id("deployment-x")), None);
        }
    }

    #[test]
    fn keeps_the_state() {
        let draining = Route { port: 1, state: RouteState::Draining };
        let bytes = encode(0, 1, [(id("a"), draining)].into_iter()).expect("it fits");
        assert_eq!(Snapshot::parse(bytes).expect("parses").find(id("a")), Some(draining));
    }

    #[test]
    fn refuses_what_is_not_a_snapshot() {
        let bytes = encoded(&["a".to_owned()]);
        for cut in 0..HEADER_LEN + 4 {
            assert!(Snapshot::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Snapshot::parse(b"PXR2............").err(), Some(InvalidSnapshot::Magic));
        let mut huge = bytes;
        huge[24..28].copy_from_slice(&31_u32.to_le_bytes());
        assert_eq!(Snapshot::parse(huge).err(), Some(InvalidSnapshot::Truncated));
    }

    #[test]
    fn a_damaged_body_finds_nothing() {
        let bytes = encoded(&["a".to_owned(), "b".to_owned()]);
        for at in HEADER_LEN..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = 0xff;
            if let Ok(snapshot) = Snapshot::parse(damaged) {
                let _ = snapshot.find(id("a"));
                assert!(snapshot.iter().count() <= 2);
            }
        }
    }
}
