//! The shards of the next route map, made from the present one and what changes.

use super::RouteMap;
use super::change::Applied;
use super::ports::{self, PortTable};
use crate::deployment_id::DeploymentId;
use crate::route::Route;
use crate::store::{Edition, ID_SHARDS, NoEdition, SharedData, TAG_LEN, id_shard};
use crate::table::{TooLarge, edit, hash};
use std::collections::BTreeMap;

/// The shards that change if `applied`, which was decided on `map`, is carried out.
///
/// # Errors
/// [`NoEdition`]
pub fn edition<D: SharedData>(map: &RouteMap<'_, D>, applied: &Applied) -> Result<Edition, NoEdition> {
    let len = (map.len() + applied.added).saturating_sub(applied.removed.len());
    let mut edition = Edition { shards: Vec::new(), len: u32::try_from(len).map_err(|_| TooLarge)? };
    let mut owners = Owners::default();
    for changes in by_table(applied).chunk_by(|(one, ..), (next, ..)| one == next) {
        let Some((number, ..)) = changes.first().copied() else { continue };
        for (_, id, route) in changes {
            if let Some(old) = map.find(*id)? {
                owners.lose(&old);
            }
            if let Some(route) = route {
                owners.gain(route, number);
            }
        }
        let values: Vec<_> = changes.iter().map(|(_, id, route)| (*id, route.map(Route::to_bytes))).collect();
        let values = values.iter().map(|(id, value)| (*id, value.as_deref()));
        edition.shards.push((number, edit(map.tables.get(number)?, &[0; TAG_LEN], values)?));
    }
    for (number, changes) in owners.by_port_table() {
        let mut table = map.ports(number)?;
        for (port, owner) in changes {
            table.set(port, owner);
        }
        edition.shards.push((ID_SHARDS + number, Some(PortTable::into_bytes(table))));
    }
    Ok(edition)
}

/// What happens to an id: its table, the id, and its route from now on; none if it is removed.
type Changed<'a> = (usize, DeploymentId<'a>, Option<&'a Route>);

/// The changes in the order of the tables, and of the ids in each.
fn by_table(applied: &Applied) -> Vec<Changed<'_>> {
    let set = applied.set.iter().map(|(id, route)| (id.as_id(), Some(route)));
    let removed = applied.removed.iter().map(|id| (id.as_id(), None));
    let table = |id: DeploymentId<'_>| id_shard(hash(id.as_str().as_bytes()));
    let mut changes: Vec<_> = set.chain(removed).map(|(id, route)| (table(id), id, route)).collect();
    changes.sort_unstable_by_key(|(table, id, _)| (*table, *id));
    changes
}

/// Who owns the ports that a change touches: a table of routes, or nobody.
#[derive(Default)]
struct Owners(BTreeMap<u16, Option<usize>>);

impl Owners {
    /// The ports of a route that goes belong to nobody, unless the change gives them to a route, before or after this.
    fn lose(&mut self, route: &Route) {
        for port in route.ports() {
            self.0.entry(port).or_insert(None);
        }
    }

    /// The ports of a route that comes belong to it.
    fn gain(&mut self, route: &Route, table: usize) {
        for port in route.ports() {
            self.0.insert(port, Some(table));
        }
    }

    /// The changes by port table.
    fn by_port_table(self) -> BTreeMap<usize, Vec<(u16, Option<usize>)>> {
        let mut tables = BTreeMap::<_, Vec<_>>::new();
        for (port, owner) in self.0 {
            tables.entry(ports::table_of(port)).or_default().push((port, owner));
        }
        tables
    }
}
