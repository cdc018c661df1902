//! The stored map as one head shows it, fetched shard by shard as it is asked for.

use super::SharedData;
use super::head::{Head, ID_SHARDS, KEY, Reference, SlotKey, id_shard, port_shard};
use super::ports::PortTable;
use crate::deployment_id::DeploymentId;
use crate::route::Route;
use crate::snapshot::{Snapshot, hash};
use std::cell::OnceCell;

/// The map of one moment. A look-up that finds a shard already replaced says so, and its caller begins again with a new head.
pub struct StoredMap<'a, D> {
    data: &'a D,
    head: Option<Head>,
    shards: [OnceCell<Box<Group>>; ID_SHARDS / GROUP],
}

/// Neighbouring shards, in memory from the first of them that is asked for: most writes concern one shard of the 256.
type Group = [OnceCell<Snapshot<Vec<u8>>>; GROUP];

const GROUP: usize = 16;

/// A newer map has taken the place of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved;

impl<'a, D: SharedData> StoredMap<'a, D> {
    /// The map as it is now.
    pub fn now(data: &'a D) -> Self {
        Self::with_number(data).0
    }

    /// The map as it is now, and the number to swap the head with.
    pub(super) fn with_number(data: &'a D) -> (Self, u32) {
        let (bytes, cas) = data.get(KEY);
        (Self { data, head: Head::parse(bytes), shards: [const { OnceCell::new() }; _] }, cas)
    }

    /// Whether a map has been stored since Envoy started.
    #[must_use]
    pub const fn is_loaded(&self) -> bool {
        self.head.is_some()
    }

    /// Epoch and generation; 0 both where no map is stored.
    #[must_use]
    pub fn version(&self) -> (u64, u64) {
        self.head.as_ref().map_or((0, 0), |head| (head.epoch(), head.generation()))
    }

    /// Number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.as_ref().map_or(0, |head| usize::try_from(head.len()).unwrap_or(usize::MAX))
    }

    /// Whether there are no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The route of an id.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn find(&self, id: DeploymentId<'_>) -> Result<Option<Route>, Moved> {
        Ok(self.shard(id_shard(hash(id)))?.and_then(|shard| shard.find(id)))
    }

    /// The id that owns a port.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn owner(&self, port: u16) -> Result<Option<DeploymentId<'_>>, Moved> {
        let Some(table) = self.port_table(port_shard(port))? else { return Ok(None) };
        let Some(shard) = table.owner(port) else { return Ok(None) };
        Ok(self.shard(shard)?.and_then(|shard| shard.owner(port)))
    }

    /// All routes, in no particular order.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn routes(&self) -> Result<Vec<(DeploymentId<'_>, Route)>, Moved> {
        // No capacity from the head's number: what is stored may claim anything, and too much of it would be a trap.
        let mut routes = Vec::new();
        for shard in 0..ID_SHARDS {
            routes.extend(self.shard(shard)?.into_iter().flat_map(Snapshot::iter));
        }
        Ok(routes)
    }

    pub(super) const fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// A shard of routes; `None` where it is empty.
    pub(super) fn shard(&self, shard: usize) -> Result<Option<&Snapshot<Vec<u8>>>, Moved> {
        let (Some(head), Some(group)) = (&self.head, self.shards.get(shard / GROUP)) else { return Ok(None) };
        let group = group.get_or_init(|| Box::new([const { OnceCell::new() }; GROUP]));
        let Some(cell) = group.get(shard % GROUP) else { return Ok(None) };
        if let Some(fetched) = cell.get() {
            return Ok(Some(fetched));
        }
        match fetch(self.data, shard, head.reference(shard))? {
            Some(fetched) => Ok(Some(cell.get_or_init(|| fetched))),
            None => Ok(None),
        }
    }

    /// A shard of ports; `None` where nobody owns one of them.
    pub(super) fn port_table(&self, shard: usize) -> Result<Option<PortTable>, Moved> {
        let Some(head) = &self.head else { return Ok(None) };
        let reference = head.reference(shard);
        let Some(generation) = reference.generation() else { return Ok(None) };
        let bytes = self.data.get(SlotKey::new(shard, reference.slot()).as_str()).0;
        PortTable::parse(bytes, generation).map(Some).ok_or(Moved)
    }
}

/// Fetches the shard of routes that a head refers to; `None` where it is empty.
pub(super) fn fetch(data: &impl SharedData, shard: usize, reference: Reference) -> Result<Option<Snapshot<Vec<u8>>>, Moved> {
    let Some(generation) = reference.generation() else { return Ok(None) };
    let snapshot = Snapshot::parse(data.get(SlotKey::new(shard, reference.slot()).as_str()).0).map_err(|_| Moved)?;
    if snapshot.generation() == generation { Ok(Some(snapshot)) } else { Err(Moved) }
}
