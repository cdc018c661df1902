//! A change: what one write does to the fleet map.

use super::peer::{Peer, PeerNumber, PeerState};
use super::peers::Entry;
use super::{FleetMap, Peers, Preference};
use crate::deployment_id::DeploymentId;
use crate::json::pointer;
use crate::problem::{FieldError, FieldErrors};
use crate::store::{ID_SHARDS, Moved, SharedData, Stop, id_shard};
use crate::table::{Table, hash};
use crate::timestamp::Timestamp;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The wanted change, as a request states it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// Whether peers and ids without an edit are removed (the whole map is replaced) or kept.
    pub replace: bool,
    /// What happens to single peers; each name at most once.
    pub peers: Vec<(DeploymentId<'a>, PeerEdit)>,
    /// What happens to single ids; each id at most once.
    pub routes: Vec<(DeploymentId<'a>, RouteEdit<'a>)>,
}

/// What happens to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEdit {
    /// The peer is exactly this.
    Set(Peer),
    /// What is given replaces what was; what is not given stays (RFC 7396).
    Merge {
        /// New address; without it, that of the present peer.
        host: Option<IpAddr>,
        /// New state; without it, that of the present peer, or active.
        state: Option<PeerState>,
    },
    /// The peer goes, if there is one.
    Remove,
}

/// What happens to one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteEdit<'a> {
    /// These peers serve it.
    Set(PeerNames<'a>),
    /// The route goes, if there is one.
    Remove,
}

/// The names of a route's peers: 1 to [`Preference::MOST`] different ones, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNames<'a>(Vec<DeploymentId<'a>>);

/// Why some names cannot be those of a route's peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidPeerNames {
    /// There are none, or too many.
    Count(usize),
    /// The names at these places stand earlier in the list, too.
    Repeated(Vec<usize>),
}

impl<'a> PeerNames<'a> {
    /// Takes the names.
    ///
    /// # Errors
    /// [`InvalidPeerNames`]
    pub fn new(names: Vec<DeploymentId<'a>>) -> Result<Self, InvalidPeerNames> {
        if !(1..=Preference::MOST).contains(&names.len()) {
            return Err(InvalidPeerNames::Count(names.len()));
        }
        let is_repeated = |(n, name): &(usize, &DeploymentId<'a>)| names.iter().take(*n).any(|earlier| earlier == *name);
        let repeated: Vec<_> = names.iter().enumerate().filter(is_repeated).map(|(n, _)| n).collect();
        if repeated.is_empty() { Ok(Self(names)) } else { Err(InvalidPeerNames::Repeated(repeated)) }
    }

    /// The names, in order of preference.
    #[must_use]
    pub fn as_slice(&self) -> &[DeploymentId<'a>] {
        &self.0
    }
}

/// What a change may make of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Most peers.
    pub peers: usize,
    /// Most routes.
    pub routes: usize,
}

/// What a change does to a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied<'m> {
    /// How many routes are different.
    pub counts: Counts,
    /// All peers from now on; `None` if they stay as they are.
    pub(super) peers: Option<Peers<'m>>,
    /// The routes that change, in the order of the tables, and of the ids in each.
    pub(super) routes: Vec<ChangedRoute<'m>>,
    /// How many routes there are from now on.
    pub(super) len: usize,
}

/// How many routes a change affects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that are new.
    pub added: usize,
    /// Those whose peers, or their order, differ from before.
    pub changed: usize,
    /// Those that are gone.
    pub removed: usize,
}

/// What happens to an id: its table, and its route from now on; none if it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangedRoute<'m> {
    pub(super) table: usize,
    pub(super) id: DeploymentId<'m>,
    pub(super) route: Option<Preference>,
}

impl Applied<'_> {
    /// Whether the map is the same as before.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.peers.is_none() && self.routes.is_empty()
    }
}

impl Change<'_> {
    /// Finds out what the change does to the present `map`, and whether it may. A peer that it adds or changes gets the time `now`.
    ///
    /// # Errors
    /// [`Stop::Rejected`] with every error; [`Stop::Moved`] if the map moved on meanwhile.
    pub fn apply<'m, D: SharedData>(
        &'m self,
        map: &'m FleetMap<'_, D>,
        most: Most,
        now: Timestamp,
    ) -> Result<Applied<'m>, Stop<FieldErrors>> {
        let mut errors = FieldErrors::default();
        let before = map.peers()?;
        let peers = self.peers_after(&before, now, &mut errors);
        let wanted = self.wanted_routes(&peers, &mut errors);
        self.check_removed_peers(map, &before, &peers, &wanted, &mut errors)?;
        let (routes, counts) = if self.replace { differences(map, &wanted)? } else { changed(map, &wanted)? };
        let len = (map.len() + counts.added).saturating_sub(counts.removed);
        for (at, what, len, most) in [("/peers", "peers", peers.len(), most.peers), ("/routes", "routes", len, most.routes)] {
            if len > most {
                let detail = || format!("the map would hold {len} {what}; at most {most} are allowed");
                errors.add(|| FieldError::new(at, detail()));
            }
        }
        if !errors.is_empty() {
            return Err(Stop::Rejected(errors));
        }
        Ok(Applied { counts, peers: (peers != before).then_some(peers), routes, len })
    }

    /// All peers after the change.
    fn peers_after<'m>(&'m self, before: &Peers<'m>, now: Timestamp, errors: &mut FieldErrors) -> Peers<'m> {
        let mut after = if self.replace { Peers::default() } else { before.clone() };
        // A worker that has got a part of the new map must not take a new peer for an old one, so no number is used again at once.
        let mut free = (0..=u16::MAX).map(PeerNumber).filter(|number| before.name(*number).is_none());
        for (name, edit) in &self.peers {
            let present = before.entry(*name);
            match edit.resolve(present.map(|entry| entry.peer)) {
                Ok(None) => after.remove(*name),
                Ok(Some(peer)) => match present.map(|entry| entry.number).or_else(|| free.next()) {
                    Some(number) => {
                        let since = present.filter(|entry| entry.peer == peer).map_or(now, |entry| entry.since);
                        after.insert(*name, Entry { number, peer, since });
                    }
                    None => errors.add(|| FieldError::new("/peers", "there are too many peers")),
                },
                Err(detail) => errors.add(|| FieldError::new(pointer("/peers", name.as_str()), detail)),
            }
        }
        after
    }

    /// The routes that the change names, as it wants them, in the order of the tables, and of the ids in each.
    fn wanted_routes<'m>(&'m self, peers: &Peers<'m>, errors: &mut FieldErrors) -> Vec<ChangedRoute<'m>> {
        let mut wanted = Vec::with_capacity(self.routes.len());
        for (id, edit) in &self.routes {
            let route = match edit {
                RouteEdit::Remove => None,
                RouteEdit::Set(PeerNames(names)) => {
                    for (n, name) in names.iter().enumerate().filter(|(_, name)| peers.number(**name).is_none()) {
                        let place = || pointer(&pointer("/routes", id.as_str()), &n.to_string());
                        errors.add(|| FieldError::new(place(), format!("there is no peer {name} in \"peers\"")));
                    }
                    Preference::of(names.iter().filter_map(|name| peers.number(*name)))
                }
            };
            wanted.push(ChangedRoute { table: id_shard(hash(id.as_str().as_bytes())), id: *id, route });
        }
        wanted.sort_unstable_by_key(|route| (route.table, route.id));
        wanted
    }

    /// Reports peers that are removed although an unchanged route names them.
    fn check_removed_peers<D: SharedData>(
        &self,
        map: &FleetMap<'_, D>,
        before: &Peers<'_>,
        after: &Peers<'_>,
        wanted: &[ChangedRoute<'_>],
        errors: &mut FieldErrors,
    ) -> Result<(), Moved> {
        let mut gone: BTreeSet<_> =
            before.iter().filter(|(name, _)| after.find(*name).is_none()).filter_map(|(name, _)| before.number(name)).collect();
        // A map that is replaced has no route that stays.
        for table in 0..ID_SHARDS {
            if gone.is_empty() || self.replace {
                break;
            }
            let wanted = of_table(wanted, table);
            for (id, value) in map.tables.get(table)?.into_iter().flat_map(Table::iter) {
                let Some(route) = Preference::parse(value).filter(|_| find(wanted, id).is_none()) else { continue };
                for number in route.numbers().filter(|number| gone.contains(number)).collect::<Vec<_>>() {
                    gone.remove(&number);
                    let Some(name) = before.name(number) else { continue };
                    let detail = || format!("cannot be removed: the route of {id} names it; change or remove that route, too");
                    errors.add(|| FieldError::new(pointer("/peers", name.as_str()), detail()));
                }
            }
        }
        Ok(())
    }
}

impl PeerEdit {
    /// The peer after the edit; the error says why there is none.
    fn resolve(self, present: Option<Peer>) -> Result<Option<Peer>, &'static str> {
        match self {
            Self::Set(peer) => Ok(Some(peer)),
            Self::Remove => Ok(None),
            Self::Merge { host, state } => {
                let host = host.or(present.map(|peer| peer.host)).ok_or("a peer that does not exist yet needs a \"host\"")?;
                let state = state.or(present.map(|peer| peer.state)).unwrap_or_default();
                Ok(Some(Peer { host, state }))
            }
        }
    }
}

/// Whether what is wanted for an id differs from what the map has, and counts how.
fn difference(present: Option<&[u8]>, wanted: Option<&Preference>, counts: &mut Counts) -> bool {
    match (present, wanted) {
        (None, None) => return false,
        (Some(present), Some(wanted)) if present == wanted.as_bytes() => return false,
        (None, Some(_)) => counts.added += 1,
        (Some(_), Some(_)) => counts.changed += 1,
        (Some(_), None) => counts.removed += 1,
    }
    true
}

/// Those of the wanted routes that differ from the map.
fn changed<'m, D: SharedData>(
    map: &'m FleetMap<'_, D>,
    wanted: &[ChangedRoute<'m>],
) -> Result<(Vec<ChangedRoute<'m>>, Counts), Moved> {
    let (mut routes, mut counts) = (Vec::new(), Counts::default());
    for route in wanted {
        let present = map.tables.get(route.table)?.and_then(|table| table.find(route.id));
        if difference(present, route.route.as_ref(), &mut counts) {
            routes.push(*route);
        }
    }
    Ok((routes, counts))
}

/// The edits that leave only the wanted routes in the map.
fn differences<'m, D: SharedData>(
    map: &'m FleetMap<'_, D>,
    wanted: &[ChangedRoute<'m>],
) -> Result<(Vec<ChangedRoute<'m>>, Counts), Moved> {
    let (mut routes, mut counts) = (Vec::with_capacity(wanted.len()), Counts::default());
    for table in 0..ID_SHARDS {
        // Both are in ascending order of their ids.
        let mut wanted = of_table(wanted, table).iter().peekable();
        let mut present = map.tables.get(table)?.into_iter().flat_map(Table::iter).peekable();
        loop {
            let first = match (present.peek(), wanted.peek()) {
                (None, None) => break,
                (Some((id, _)), None) => *id,
                (None, Some(route)) => route.id,
                (Some((id, _)), Some(route)) => (*id).min(route.id),
            };
            let present = present.next_if(|(id, _)| *id == first).map(|(_, value)| value);
            let route = wanted.next_if(|route| route.id == first).and_then(|route| route.route);
            if difference(present, route.as_ref(), &mut counts) {
                routes.push(ChangedRoute { table, id: first, route });
            }
        }
    }
    Ok((routes, counts))
}

/// Those of a table.
fn of_table<'s, 'm>(routes: &'s [ChangedRoute<'m>], table: usize) -> &'s [ChangedRoute<'m>] {
    let from = routes.partition_point(|route| route.table < table);
    let to = routes.partition_point(|route| route.table <= table);
    routes.get(from..to).unwrap_or_default()
}

/// The one of an id among those of its table.
fn find<'s, 'm>(routes: &'s [ChangedRoute<'m>], id: DeploymentId<'_>) -> Option<&'s ChangedRoute<'m>> {
    routes.get(routes.binary_search_by_key(&id, |route| route.id).ok()?)
}

#[cfg(test)]
mod tests;
