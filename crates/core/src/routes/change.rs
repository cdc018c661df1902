//! A change: what one write does to the route map.

use super::RouteMap;
use crate::deployment_id::{DeploymentId, OwnedDeploymentId};
use crate::endpoint::EndpointName;
use crate::json::pointer;
use crate::problem::{FieldError, FieldErrors};
use crate::route::{Route, RouteState};
use crate::store::{SharedData, Stop};
use std::collections::{BTreeMap, BTreeSet};

/// The wanted change, as a request states it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// Whether ids without an edit are removed (the whole map is replaced) or kept.
    pub replace: bool,
    /// What happens to single ids; each id at most once.
    pub edits: Vec<(DeploymentId<'a>, Edit)>,
}

/// What happens to one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The route is exactly this.
    Set(Route),
    /// What is given replaces what was; what is not given stays (RFC 7396).
    Merge(Merge),
    /// The route goes, if there is one.
    Remove,
}

/// The members of a merge patch on one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// New port; without it, that of the present route.
    pub port: Option<u16>,
    /// New state; without it, that of the present route, or active.
    pub state: Option<RouteState>,
    /// What happens to the endpoints beside the port.
    pub endpoints: MergeEndpoints,
}

/// What a merge patch does to the endpoints of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeEndpoints {
    /// All go.
    Clear,
    /// Those named get a port, or go if it is `None`; the others stay.
    Each(BTreeMap<EndpointName, Option<u16>>),
}

impl Default for MergeEndpoints {
    /// All stay.
    fn default() -> Self {
        Self::Each(BTreeMap::new())
    }
}

/// What a change does to a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The routes that are new or another one than before.
    pub set: BTreeMap<OwnedDeploymentId, Route>,
    /// Ids that have no route any more, displaced ones included.
    pub removed: BTreeSet<OwnedDeploymentId>,
    /// How many of `set` had no route before.
    pub added: usize,
    /// How many of `set` had another port, state or endpoint.
    pub changed: usize,
    /// Those of `removed` whose port belongs to another id now.
    pub displaced: BTreeMap<OwnedDeploymentId, Taken>,
}

/// How a route was displaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The port that it lost, the lowest if there are several.
    pub port: u16,
    /// The id that has it now.
    pub by: OwnedDeploymentId,
}

/// Why a change cannot be applied; the map stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// The map it asks for is not valid.
    Routes(FieldErrors),
    /// It gives one port to several ids.
    PortInUse(FieldErrors),
}

impl Change<'_> {
    /// Finds out what the change does to the present `map`, and whether it may.
    ///
    /// # Errors
    /// [`Stop::Rejected`] with every error; [`Stop::Moved`] if the map moved on meanwhile.
    pub fn apply<D: SharedData>(&self, map: &RouteMap<'_, D>, max_routes: usize) -> Result<Applied, Stop<Invalid>> {
        let mut applied = Applied::default();
        let mut edited = BTreeSet::new();
        let mut owners: BTreeMap<u16, DeploymentId<'_>> = BTreeMap::new();
        let mut invalid = FieldErrors::default();
        let mut in_use = FieldErrors::default();
        for (id, edit) in &self.edits {
            edited.insert(*id);
            let before = map.find(*id)?;
            let route = match edit.resolve(before.as_ref()) {
                Ok(Some(route)) => route,
                Ok(None) => {
                    if before.is_some() {
                        applied.removed.insert((*id).into());
                    }
                    continue;
                }
                Err(detail) => {
                    invalid.add(|| FieldError::new(pointer("/routes", id.as_str()), detail));
                    continue;
                }
            };
            let mut claim = |port: u16, place: String| {
                let owner = *owners.entry(port).or_insert(*id);
                if owner != *id {
                    in_use.add(|| {
                        FieldError::new(place, format!("port {port} is also given to {owner}; one port serves one id"))
                    });
                }
            };
            let place = pointer("/routes", id.as_str());
            for (name, port) in &route.endpoints {
                claim(*port, pointer(&format!("{place}/endpoints"), name.as_str()));
            }
            claim(route.port, place);
            if before.as_ref() != Some(&route) {
                applied.added += usize::from(before.is_none());
                applied.changed += usize::from(before.is_some());
                applied.set.insert((*id).into(), route);
            }
        }
        if self.replace {
            let routes = map.routes()?;
            applied.removed.extend(routes.into_iter().filter(|(id, _)| !edited.contains(id)).map(|(id, _)| id.into()));
        }
        for (port, by) in &owners {
            // An id that had the port and was not given another one has lost it.
            let owner = map.owner(*port)?.filter(|owner| !edited.contains(owner) || applied.removed.contains(&(*owner).into()));
            if let Some(owner) = owner {
                applied.displaced.entry(owner.into()).or_insert_with(|| Taken { port: *port, by: (*by).into() });
            }
        }
        applied.removed.extend(applied.displaced.keys().cloned());
        let len = (map.len() + applied.added).saturating_sub(applied.removed.len());
        if len > max_routes {
            invalid.add(|| {
                FieldError::new("/routes", format!("the map would hold {len} routes; at most {max_routes} are allowed"))
            });
        }
        if !invalid.is_empty() {
            invalid.append(in_use);
            return Err(Stop::Rejected(Invalid::Routes(invalid)));
        }
        if !in_use.is_empty() {
            return Err(Stop::Rejected(Invalid::PortInUse(in_use)));
        }
        Ok(applied)
    }
}

impl Edit {
    /// The route after the edit; the error says why there is none.
    fn resolve(&self, present: Option<&Route>) -> Result<Option<Route>, String> {
        match self {
            Self::Set(route) => Ok(Some(route.clone())),
            Self::Remove => Ok(None),
            Self::Merge(merge) => merge.resolve(present).map(Some),
        }
    }
}

impl Merge {
    fn resolve(&self, present: Option<&Route>) -> Result<Route, String> {
        let port = self.port.or(present.map(|route| route.port));
        let port = port.ok_or("a route that does not exist yet needs a \"port\"")?;
        let state = self.state.or(present.map(|route| route.state)).unwrap_or_default();
        let mut endpoints = BTreeMap::new();
        if let MergeEndpoints::Each(edits) = &self.endpoints {
            endpoints = present.map(|route| route.endpoints.clone()).unwrap_or_default();
            for (name, port) in edits {
                match port {
                    Some(port) => endpoints.insert(*name, *port),
                    None => endpoints.remove(name),
                };
            }
        }
        if endpoints.len() > Route::MAX_ENDPOINTS {
            return Err(too_many_endpoints(endpoints.len()));
        }
        Ok(Route { port, state, endpoints })
    }
}

/// What is wrong with a route of so many endpoints.
#[must_use]
pub fn too_many_endpoints(count: usize) -> String {
    format!("the route would have {count} endpoints beside its port; at most {} are allowed", Route::MAX_ENDPOINTS)
}

impl Applied {
    /// Whether the map is the same as before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests;
