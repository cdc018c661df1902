//! The route map: routes by deployment id, and for each port the id that owns it.
//!
//! Its shards are tables of routes by id, each as [`StoredRoute`] reads it, and behind them a `PortTable` for each 1,024 ports
//! ([`ROUTE_MAP`]).

use crate::deployment_id::DeploymentId;
use crate::route::{Route, StoredRoute};
use crate::store::{self, Cache, ID_SHARDS, Moved, ROUTE_MAP, SharedData, Stored, Tables, Version, id_shard};
use crate::table::{Table, hash};
use ports::PortTable;

pub mod bootstrap;
pub mod change;
mod edition;
pub mod form;
pub mod limits;
mod ports;

pub use edition::edition;

#[cfg(test)]
pub(crate) mod tests;

/// The route map of one moment, fetched shard by shard as it is asked for.
pub struct RouteMap<'a, D> {
    tables: Tables<'a, D>,
}

impl<'a, D: SharedData> RouteMap<'a, D> {
    /// A view of what is stored under [`ROUTE_MAP`].
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

    /// The route of an id.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn find(&self, id: DeploymentId<'_>) -> Result<Option<Route>, Moved> {
        let table = self.tables.get(id_shard(hash(id.as_str().as_bytes())))?;
        Ok(table.and_then(|table| StoredRoute::parse(table.find(id)?)).map(|route| route.to_route()))
    }

    /// The id that owns a port.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn owner(&self, port: u16) -> Result<Option<DeploymentId<'_>>, Moved> {
        let Some(table) = self.ports(ports::table_of(port))?.owner(port) else { return Ok(None) };
        let owns = |value: &[u8]| StoredRoute::parse(value).is_some_and(|route| route.ports().any(|found| found == port));
        Ok(self.tables.get(table)?.and_then(|table| table.find_value(owns)))
    }

    /// All routes, in no particular order.
    ///
    /// # Errors
    /// [`Moved`]
    pub fn routes(&self) -> Result<Vec<(DeploymentId<'_>, Route)>, Moved> {
        // No capacity from the stored number: it may claim anything, and too much of it would be a trap.
        let mut routes = Vec::new();
        for number in 0..ID_SHARDS {
            let entries = self.tables.get(number)?.into_iter().flat_map(Table::iter);
            routes.extend(entries.filter_map(|(id, value)| Some((id, StoredRoute::parse(value)?.to_route()))));
        }
        Ok(routes)
    }

    /// The owners of 1,024 ports.
    fn ports(&self, number: usize) -> Result<PortTable, Moved> {
        Ok(self.tables.stored().shard(ID_SHARDS + number)?.and_then(PortTable::parse).unwrap_or_default())
    }
}

/// A worker's copy of the route map.
#[derive(Debug)]
pub struct RouteCache(Cache);

impl Default for RouteCache {
    fn default() -> Self {
        Self(Cache::new(&ROUTE_MAP))
    }
}

impl RouteCache {
    /// See [`Cache::refresh`].
    pub fn refresh(&mut self, data: &impl SharedData, signal: &impl store::ChangeSignal) -> bool {
        self.0.refresh(data, signal)
    }

    /// Whether a map has been stored since Envoy started.
    #[must_use]
    pub const fn is_loaded(&self) -> bool {
        self.0.is_loaded()
    }

    /// The route of the id that is made of these bytes; none if they are not an id.
    #[must_use]
    pub fn find(&self, id: &[u8]) -> Option<StoredRoute<'_>> {
        StoredRoute::parse(self.0.find(id)?)
    }
}
