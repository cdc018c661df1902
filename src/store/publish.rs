//! Publishing: a change becomes the map that everybody sees.

use super::claim::Claim;
use super::head::{Head, KEY, Reference, SlotKey, id_shard, port_shard};
use super::map::{Moved, StoredMap};
use super::ports::PortTable;
use super::{ChangeSignal, SharedData};
use crate::change::Applied;
use crate::deployment_id::DeploymentId;
use crate::route::Route;
use crate::snapshot::{TooLarge, edit, hash};

/// How often a writer that lost the race starts over. Writers are worker threads, each in one write at a time, so losing
/// this often in a row means that something else is wrong.
const MAX_ATTEMPTS: usize = 16;

/// What to do with the map, decided from what it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Make this change.
    Store(Applied),
    /// Leave the map alone; this is what would have changed.
    Keep(Applied),
}

/// Why an update was not decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// The map moved on under it; it is asked again.
    Moved,
    /// It refuses.
    Refused(E),
}

impl<E> From<Moved> for Stop<E> {
    fn from(_: Moved) -> Self {
        Self::Moved
    }
}

/// What was done, and the version of the map since then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// See [`StoredMap::version`].
    pub epoch: u64,
    /// See [`StoredMap::version`].
    pub generation: u64,
    /// What changed, or would have.
    pub applied: Applied,
    /// Whether a new map was stored.
    pub stored: bool,
}

/// Why a change was not published. The map is untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError<E> {
    /// The update itself refused.
    Refused(E),
    /// A shard would be larger than a snapshot can be.
    TooLarge,
    /// Other writers were faster every time.
    RetriesExhausted,
}

/// Makes the change that `update` decides on, however often it has to be asked because another writer was faster.
///
/// # Errors
/// [`PublishError`]
pub fn publish<D: SharedData, E>(
    data: &D,
    signal: &impl ChangeSignal,
    new_epoch: fn() -> u64,
    mut update: impl FnMut(&StoredMap<'_, D>) -> Result<Update, Stop<E>>,
) -> Result<Published, PublishError<E>> {
    // Claimed before the head is read: whatever an earlier holder of these slots has published is in the head then, so the slots
    // that the head does not name are free indeed.
    let Some(claim) = Claim::take(data) else { return Err(PublishError::RetriesExhausted) };
    let attempt = |_| attempt(data, signal, new_epoch, claim, &mut update).transpose();
    let result = (0..MAX_ATTEMPTS).find_map(attempt).unwrap_or(Err(PublishError::RetriesExhausted));
    claim.release(data);
    result
}

/// One attempt; `None` where another writer was faster.
fn attempt<D: SharedData, E>(
    data: &D,
    signal: &impl ChangeSignal,
    new_epoch: fn() -> u64,
    claim: Claim,
    update: &mut impl FnMut(&StoredMap<'_, D>) -> Result<Update, Stop<E>>,
) -> Result<Option<Published>, PublishError<E>> {
    let (map, number) = StoredMap::with_number(data);
    let applied = match update(&map) {
        Err(Stop::Moved) => return Ok(None),
        Err(Stop::Refused(error)) => return Err(PublishError::Refused(error)),
        Ok(Update::Keep(applied)) => {
            let (epoch, generation) = map.version();
            return Ok(Some(Published { epoch, generation, applied, stored: false }));
        }
        Ok(Update::Store(applied)) => applied,
    };
    let head = match write_shards(data, claim, &map, new_epoch, &applied) {
        Ok(head) => head,
        Err(Fault::Moved) => return Ok(None),
        Err(Fault::TooLarge) => return Err(PublishError::TooLarge),
    };
    if data.set(KEY, head.as_bytes(), number).is_err() {
        return Ok(None);
    }
    signal.raise();
    Ok(Some(Published { epoch: head.epoch(), generation: head.generation(), applied, stored: true }))
}

enum Fault {
    Moved,
    TooLarge,
}

impl From<Moved> for Fault {
    fn from(_: Moved) -> Self {
        Self::Moved
    }
}

impl From<TooLarge> for Fault {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

/// Writes the shards that change into free slots, and gives the head that names them.
fn write_shards<D: SharedData>(
    data: &D,
    claim: Claim,
    map: &StoredMap<'_, D>,
    new_epoch: fn() -> u64,
    applied: &Applied,
) -> Result<Head, Fault> {
    let mut head = map.head().cloned().unwrap_or_else(|| Head::new(new_epoch()));
    let generation = head.generation() + 1;
    let len = (map.len() + applied.added).saturating_sub(applied.removed.len());
    head.advance(generation, u32::try_from(len).map_err(|_| Fault::TooLarge)?);
    let mut owners = Vec::with_capacity(applied.set.len() + applied.removed.len());
    for changes in by_shard(applied).chunk_by(|one, next| one.0 == next.0) {
        let Some((shard, ..)) = changes.first().copied() else { continue };
        let before = map.shard(shard)?;
        for (_, id, route) in changes {
            owners.extend(before.and_then(|before| before.find(*id)).map(|old| (old.port, None)));
            owners.extend(route.map(|route| (route.port, Some(shard))));
        }
        let changes = changes.iter().map(|(_, id, route)| (*id, *route));
        let bytes = edit(before, head.epoch(), generation, changes)?;
        store(data, claim, &mut head, shard, bytes.as_deref());
    }
    // A port that changes hands in this write is set by its new owner, which is why it comes last.
    owners.sort_unstable();
    for owners in owners.chunk_by(|(one, _), (next, _)| port_shard(*one) == port_shard(*next)) {
        let Some(shard) = owners.first().map(|(port, _)| port_shard(*port)) else { continue };
        let mut table = map.port_table(shard)?.unwrap_or_else(PortTable::new);
        for (port, owner) in owners {
            table.set(*port, *owner);
        }
        store(data, claim, &mut head, shard, Some(table.stamp(generation)));
    }
    Ok(head)
}

/// Puts a shard into a slot that the present head does not name, and lets the new head name it.
fn store(data: &impl SharedData, claim: Claim, head: &mut Head, shard: usize, bytes: Option<&[u8]>) {
    let reference = bytes.map_or_else(Reference::default, |bytes| {
        let now = head.reference(shard);
        let slot = claim.slot(now.generation().map(|_| now.slot()));
        // An unconditional write cannot mismatch.
        let _ = data.set(SlotKey::new(shard, slot).as_str(), bytes, 0);
        Reference::new(head.generation(), slot)
    });
    head.refer(shard, reference);
}

/// What happens to an id: its shard, the id, and its route from now on, none where it is removed.
type Changed<'a> = (usize, DeploymentId<'a>, Option<Route>);

/// The changes in the order of the shards, and of the ids in each.
fn by_shard(applied: &Applied) -> Vec<Changed<'_>> {
    let mut changes = Vec::with_capacity(applied.set.len() + applied.removed.len());
    let set = applied.set.iter().map(|(id, route)| (id.as_id(), Some(*route)));
    changes.extend(
        set.chain(applied.removed.iter().map(|id| (id.as_id(), None))).map(|(id, route)| (id_shard(hash(id)), id, route)),
    );
    changes.sort_unstable_by_key(|(shard, id, _)| (*shard, *id));
    changes
}
