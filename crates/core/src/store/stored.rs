//! A stored map as one head shows it.

use super::head::{Head, Reference};
use super::{Layout, SharedData, TAG_LEN, Version};

/// The map of one moment. If a shard that it needs has been replaced meanwhile, the look-up says so, and the reader starts over
/// with a new head.
#[derive(Debug)]
pub struct Stored<'a, D> {
    data: &'a D,
    layout: &'static Layout,
    head: Option<Head>,
    /// What the head can be swapped with.
    number: u32,
}

/// A newer map has taken the place of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved;

impl<'a, D: SharedData> Stored<'a, D> {
    /// The present map.
    pub fn now(data: &'a D, layout: &'static Layout) -> Self {
        let (bytes, number) = data.get(layout.head_key().as_str());
        Self { data, layout, head: Head::parse(layout, bytes), number }
    }

    pub(super) const fn layout(&self) -> &'static Layout {
        self.layout
    }

    /// Whether a map has been stored since Envoy started.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.version().generation != 0
    }

    /// Epoch and generation; 0 and 0 if no map is stored.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.as_ref().map(Head::version).filter(|version| version.generation != 0).unwrap_or_default()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.as_ref().map_or(0, |head| usize::try_from(head.len()).unwrap_or(usize::MAX))
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a shard, which begin with [`TAG_LEN`] bytes of the store's own; `None` if the shard is empty.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn shard(&self, shard: usize) -> Result<Option<Vec<u8>>, Moved> {
        let Some(head) = &self.head else { return Ok(None) };
        fetch(self.data, self.layout, shard, head.reference(shard))
    }

    pub(super) const fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }
}

/// Fetches the shard that a head refers to; `None` if it is empty.
pub(super) fn fetch(
    data: &impl SharedData,
    layout: &Layout,
    shard: usize,
    reference: Reference,
) -> Result<Option<Vec<u8>>, Moved> {
    let Some((slot, turn)) = reference.place() else { return Ok(None) };
    let bytes = data.get(layout.slot_key(shard, slot).as_str()).0;
    if tag(&bytes) == Some(turn) { Ok(Some(bytes)) } else { Err(Moved) }
}

/// The turn that wrote a stored shard; `None` if the slot was never written.
pub(super) fn tag(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk::<TAG_LEN>().map(|tag| u64::from_le_bytes(*tag))
}
