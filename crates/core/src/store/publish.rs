//! Publishing: a change becomes the map that everybody sees.

use super::head::{Head, Reference};
use super::layout::SLOTS;
use super::stored::{Moved, Stored, tag};
use super::{ChangeSignal, Layout, SharedData, TAG_LEN, Version};
use crate::table::TooLarge;
use crate::timestamp::Timestamp;

/// How often a writer that keeps losing the race may write a whole map. A writer of few shards may try [`SMALL`] times as often: it
/// is quick, and the other workers may be as quick.
const MAX_WHOLE_MAPS: usize = 16;

/// An attempt costs at least an eighth of a whole map, however few shards it writes.
const SMALL: usize = 8;

/// What a writer needs of its host.
pub struct Backend<'a, D, S> {
    /// Envoy's shared data.
    pub data: &'a D,
    /// What tells the workers.
    pub signal: &'a S,
    /// Draws the epoch of a first map; not 0.
    pub new_epoch: fn() -> u64,
    /// The time of day. It may be stored in the map, but never decides what is published.
    pub now: fn() -> Timestamp,
}

/// What to do with the map, decided from its present content. `T` is what the writer is told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update<T> {
    /// Store this edition.
    Store(Edition, T),
    /// Leave the map alone.
    Keep(T),
}

/// The next edition of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edition {
    /// The shards that change, each at most once; `None` for a shard that is empty from now on. The bytes begin with [`TAG_LEN`] bytes that
    /// are left to the store.
    pub shards: Vec<(usize, Option<Vec<u8>>)>,
    /// How many entries the map has.
    pub len: u32,
}

/// Why there is no next edition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEdition {
    /// The map moved on meanwhile.
    Moved,
    /// It would not fit into the store.
    TooLarge,
}

impl From<Moved> for NoEdition {
    fn from(_: Moved) -> Self {
        Self::Moved
    }
}

impl From<TooLarge> for NoEdition {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

/// Why an update was not decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// The map moved on meanwhile; the update is called again.
    Moved,
    /// The update rejects the change.
    Rejected(E),
}

impl<E> From<Moved> for Stop<E> {
    fn from(_: Moved) -> Self {
        Self::Moved
    }
}

/// What was done, and the version of the map since then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<T> {
    /// See [`Stored::version`].
    pub version: Version,
    /// What the update said.
    pub outcome: T,
    /// Whether a new map was stored.
    pub stored: bool,
}

/// Why a change was not published. The map is untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError<E> {
    /// The update rejected the change.
    Rejected(E),
    /// Other writers were faster every time.
    RetriesExhausted,
}

/// Makes the change that `update` decides on, and asks it again each time another writer was faster.
///
/// # Errors
/// [`PublishError`]
pub fn publish<D: SharedData, S: ChangeSignal, T, E>(
    backend: &Backend<'_, D, S>,
    layout: &'static Layout,
    mut update: impl FnMut(&Stored<'_, D>) -> Result<Update<T>, Stop<E>>,
) -> Result<Published<T>, PublishError<E>> {
    let least = layout.shards().div_ceil(SMALL);
    let mut left = MAX_WHOLE_MAPS * layout.shards();
    while left > 0 {
        let mut shards = 0;
        match attempt(backend, layout, &mut update, &mut shards) {
            Ok(published) => return Ok(published),
            Err(Stop::Rejected(error)) => return Err(PublishError::Rejected(error)),
            Err(Stop::Moved) => left = left.saturating_sub(shards.max(least)),
        }
    }
    Err(PublishError::RetriesExhausted)
}

/// One attempt; `shards` becomes how many shards it wrote.
fn attempt<D: SharedData, S: ChangeSignal, T, E>(
    backend: &Backend<'_, D, S>,
    layout: &'static Layout,
    update: &mut impl FnMut(&Stored<'_, D>) -> Result<Update<T>, Stop<E>>,
    shards: &mut usize,
) -> Result<Published<T>, Stop<E>> {
    let data = backend.data;
    let stored = Stored::now(data, layout);
    let (edition, outcome) = match update(&stored)? {
        Update::Keep(outcome) => return Ok(Published { version: stored.version(), outcome, stored: false }),
        Update::Store(edition, outcome) => (edition, outcome),
    };
    *shards = edition.shards.len();
    let mut head = stored.head().cloned().unwrap_or_else(|| Head::new(layout, (backend.new_epoch)()));
    head.next_turn();
    let swap = |head: &Head| data.set(layout.head_key().as_str(), head.as_bytes(), stored.number()).map_err(|_| Moved);
    let mut next = head.clone();
    for (shard, bytes) in edition.shards {
        let reference = match bytes {
            None => Reference::default(),
            Some(bytes) => match place(data, layout, shard, &head, bytes) {
                Ok(reference) => reference,
                Err(Unplaced::Moved) => return Err(Stop::Moved),
                Err(Unplaced::Full) => {
                    // The next turn frees every slot that the head does not name. Whether this writer or another one makes it, this
                    // attempt is over.
                    swap(&head)?;
                    return Err(Stop::Moved);
                }
            },
        };
        next.refer(shard, reference);
    }
    next.next_generation(edition.len);
    swap(&next)?;
    backend.signal.raise();
    Ok(Published { version: next.version(), outcome, stored: true })
}

enum Unplaced {
    /// The head has been swapped meanwhile.
    Moved,
    /// Every slot is taken.
    Full,
}

/// Writes a shard into a slot that the writer of the turn of `head` may use (see [`super`]).
fn place(
    data: &impl SharedData,
    layout: &Layout,
    shard: usize,
    head: &Head,
    mut bytes: Vec<u8>,
) -> Result<Reference, Unplaced> {
    let turn = head.turn();
    if let Some(place) = bytes.first_chunk_mut::<TAG_LEN>() {
        *place = turn.to_le_bytes();
    }
    let named = head.reference(shard).place().map(|(slot, _)| slot);
    for slot in (0..SLOTS).filter(|slot| named != Some(*slot)) {
        let key = layout.slot_key(shard, slot);
        let (present, number) = data.get(key.as_str());
        match tag(&present) {
            Some(tag) if tag > turn => return Err(Unplaced::Moved),
            Some(tag) if tag == turn => {}
            // A mismatch means that another writer has just taken the slot.
            Some(_) | None => {
                if data.set(key.as_str(), &bytes, number).is_ok() {
                    return Ok(Reference::new(turn, slot));
                }
            }
        }
    }
    Err(Unplaced::Full)
}
