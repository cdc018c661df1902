//! The fleet map: which other tasks serve which deployment ids.
//!
//! Its shards are tables of routes by id, each a list of numbers of peers ([`Preference`]), and behind them the table of peers by number
//! ([`FLEET_MAP`](crate::store::FLEET_MAP)).
//!
//! A route has numbers in place of names, because 16 names do not fit into a value of a table, and a worker's copy is small with them.
//! A peer keeps its number while it exists, and a write gives a new peer no number that was in use before it.

use crate::deployment_id::DeploymentId;
use crate::store::layout::PEER_SHARD;
use crate::store::{ID_SHARDS, Moved, SharedData, Stored, Tables, Version, id_shard};
use crate::table::{Table, hash};

mod cache;
pub mod change;
mod edition;
pub mod form;
pub mod limits;
mod peer;
mod peers;
mod preference;
mod report;

pub use cache::{FleetCache, FleetPeer, FleetRoute};
pub use edition::edition;
pub use peer::{Peer, PeerState};
pub use peers::Peers;
pub use preference::Preference;
pub use report::PeerReport;

#[cfg(test)]
pub(crate) mod tests;

/// The fleet map of one moment, fetched table by table as it is asked for.
pub struct FleetMap<'a, D> {
    tables: Tables<'a, D>,
}

impl<'a, D: SharedData> FleetMap<'a, D> {
    /// A view of what is stored under [`FLEET_MAP`](crate::store::FLEET_MAP).
    #[must_use]
    pub fn new(stored: &'a Stored<'a, D>) -> Self {
        Self { tables: Tables::of(stored) }
    }

    /// Whether a map has been stored since Envoy started.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.tables.stored().is_loaded()
    }

    /// The version of the map.
    #[must_use]
    pub fn version(&self) -> Version {
        self.tables.stored().version()
    }

    /// Number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.stored().len()
    }

    /// Whether there are no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of peers.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn peer_count(&self) -> Result<usize, Moved> {
        Ok(self.tables.get(PEER_SHARD)?.map_or(0, Table::len))
    }

    /// All peers.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn peers(&self) -> Result<Peers<'_>, Moved> {
        Ok(self.tables.get(PEER_SHARD)?.map(Peers::read).unwrap_or_default())
    }

    /// The route of an id.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn find(&self, id: DeploymentId<'_>) -> Result<Option<Preference>, Moved> {
        let hash = hash(id.as_str().as_bytes());
        let table = self.tables.get(id_shard(hash))?;
        Ok(table.and_then(|table| Preference::parse(table.find_hashed(id.as_str().as_bytes(), hash)?)))
    }

    /// All routes, in no particular order.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn routes(&self) -> Result<Vec<(DeploymentId<'_>, Preference)>, Moved> {
        // No capacity from the stored number: it may claim anything, and too much of it would be a trap.
        let mut routes = Vec::new();
        for number in 0..ID_SHARDS {
            let entries = self.tables.get(number)?.into_iter().flat_map(Table::iter);
            routes.extend(entries.filter_map(|(id, value)| Some((id, Preference::parse(value)?))));
        }
        Ok(routes)
    }
}
