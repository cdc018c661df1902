//! A change: what one write does to the route map.

use crate::deployment_id::{DeploymentId, OwnedDeploymentId};
use crate::json::pointer;
use crate::problem::Fault;
use crate::route::{Route, RouteState};
use crate::store::{SharedData, Stop, StoredMap};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The route is exactly this.
    Set(Route),
    /// What is given replaces what was; what is not given stays (RFC 7396).
    Merge {
        /// New port, or that of the present route.
        port: Option<u16>,
        /// New state, or that of the present route, or active.
        state: Option<RouteState>,
    },
    /// The route goes, if there is one.
    Remove,
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
    /// How many of `set` had another port or state.
    pub changed: usize,
    /// Those of `removed` whose port belongs to another id now.
    pub displaced: BTreeSet<OwnedDeploymentId>,
}

/// Why a change cannot be applied; the map stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The map it asks for is not valid.
    Invalid(Vec<Fault>),
    /// It gives one port to several ids.
    PortInUse(Vec<Fault>),
}

impl Change<'_> {
    /// Finds out what the change does to `map`, as it is now, and whether it may.
    ///
    /// # Errors
    /// [`Stop::Refused`] with every fault; [`Stop::Moved`] where the map moved on meanwhile.
    pub fn apply<D: SharedData>(&self, map: &StoredMap<'_, D>, max_routes: usize) -> Result<Applied, Stop<Refusal>> {
        let mut applied = Applied::default();
        let mut edited = BTreeSet::new();
        let mut owners: BTreeMap<u16, DeploymentId<'_>> = BTreeMap::new();
        let mut invalid = Vec::new();
        let mut in_use = Vec::new();
        for (id, edit) in &self.edits {
            edited.insert(*id);
            let before = map.find(*id)?;
            let route = match edit.resolve(before) {
                Ok(Some(route)) => route,
                Ok(None) => {
                    if before.is_some() {
                        applied.removed.insert((*id).into());
                    }
                    continue;
                }
                Err(NoPort) => {
                    let detail = "a route that does not exist yet needs a \"port\"";
                    invalid.push(Fault::new(pointer("/routes", id.as_str()), detail));
                    continue;
                }
            };
            if let Some(owner) = owners.insert(route.port, *id) {
                let detail = format!("port {} is also given to {owner}; one port serves one id", route.port);
                in_use.push(Fault::new(pointer("/routes", id.as_str()), detail));
            }
            if before != Some(route) {
                applied.added += usize::from(before.is_none());
                applied.changed += usize::from(before.is_some());
                applied.set.insert((*id).into(), route);
            }
        }
        if self.replace {
            let routes = map.routes()?;
            applied.removed.extend(routes.into_iter().filter(|(id, _)| !edited.contains(id)).map(|(id, _)| id.into()));
        }
        for port in owners.keys() {
            // Whoever had the port and was not given another one has lost it.
            let owner = map.owner(*port)?.filter(|owner| !edited.contains(owner) || applied.removed.contains(&(*owner).into()));
            applied.displaced.extend(owner.map(OwnedDeploymentId::from));
        }
        applied.removed.extend(applied.displaced.iter().cloned());
        let len = (map.len() + applied.added).saturating_sub(applied.removed.len());
        if len > max_routes {
            let detail = format!("the map would hold {len} routes; at most {max_routes} are allowed");
            invalid.push(Fault::new("/routes", detail));
        }
        if !invalid.is_empty() {
            invalid.append(&mut in_use);
            return Err(Stop::Refused(Refusal::Invalid(invalid)));
        }
        if !in_use.is_empty() {
            return Err(Stop::Refused(Refusal::PortInUse(in_use)));
        }
        Ok(applied)
    }
}

struct NoPort;

impl Edit {
    fn resolve(self, present: Option<Route>) -> Result<Option<Route>, NoPort> {
        match self {
            Self::Set(route) => Ok(Some(route)),
            Self::Remove => Ok(None),
            Self::Merge { port, state } => {
                let port = port.or(present.map(|route| route.port)).ok_or(NoPort)?;
                let state = state.or(present.map(|route| route.state)).unwrap_or_default();
                Ok(Some(Route { port, state }))
            }
        }
    }
}

impl Applied {
    /// Whether the map is the same as before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fake::FakeData;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn id(text: &str) -> DeploymentId<'_> {
        DeploymentId::parse(text.as_bytes()).expect("valid")
    }

    const fn active(port: u16) -> Route {
        Route { port, state: RouteState::Active }
    }

    const fn draining(port: u16) -> Route {
        Route { port, state: RouteState::Draining }
    }

    const fn set(port: u16) -> Edit {
        Edit::Set(active(port))
    }

    /// Applies to the map a: 1, b: 2 (draining), with at most three routes.
    fn apply(replace: bool, edits: &[(&str, Edit)]) -> Result<(Applied, BTreeMap<String, Route>), Refusal> {
        let data = FakeData::with([("a", active(1)), ("b", draining(2))]);
        let change = Change { replace, edits: edits.iter().map(|(name, edit)| (id(name), *edit)).collect() };
        match change.apply(&StoredMap::now(&data), 3) {
            Ok(applied) => {
                data.publish(&change);
                Ok((applied, data.routes()))
            }
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(Stop::Moved) => panic!("nobody else writes"),
        }
    }

    #[track_caller]
    fn check(
        replace: bool,
        edits: &[(&str, Edit)],
        routes: &[(&str, Route)],
        counts: (usize, usize, usize),
        displaced: &[&str],
    ) {
        let (applied, after) = apply(replace, edits).expect("valid");
        let found: Vec<_> = after.iter().map(|(id, route)| (id.as_str(), *route)).collect();
        assert_eq!(found, routes);
        assert_eq!((applied.added, applied.changed, applied.removed.len()), counts);
        assert_eq!(applied.displaced.iter().map(|id| id.as_id().as_str()).collect::<Vec<_>>(), displaced);
        assert_eq!(applied.is_empty(), counts == (0, 0, 0));
    }

    #[test]
    fn patches() {
        let (a, b) = (("a", active(1)), ("b", draining(2)));
        check(false, &[], &[a, b], (0, 0, 0), &[]);
        check(false, &[("a", set(1))], &[a, b], (0, 0, 0), &[]);
        check(false, &[("x", Edit::Remove)], &[a, b], (0, 0, 0), &[]);
        check(false, &[("a", Edit::Remove)], &[b], (0, 0, 1), &[]);
        check(false, &[("c", set(3))], &[a, b, ("c", active(3))], (1, 0, 0), &[]);
        check(false, &[("a", set(3))], &[("a", active(3)), b], (0, 1, 0), &[]);
    }

    #[test]
    fn merges_members_of_a_route() {
        let merge = |port, state| Edit::Merge { port, state };
        let b = ("b", draining(2));
        check(false, &[("a", merge(None, Some(RouteState::Draining)))], &[("a", draining(1)), b], (0, 1, 0), &[]);
        check(false, &[("b", merge(Some(3), None))], &[("a", active(1)), ("b", draining(3))], (0, 1, 0), &[]);
        check(false, &[("c", merge(Some(3), None))], &[("a", active(1)), b, ("c", active(3))], (1, 0, 0), &[]);
        let refusal = apply(false, &[("c", merge(None, None)), ("d", merge(None, None))]).expect_err("no port");
        let Refusal::Invalid(faults) = refusal else { panic!("{refusal:?}") };
        assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), ["/routes/c", "/routes/d"]);
    }

    #[test]
    fn a_port_taken_by_another_id_displaces_the_old_owner() {
        check(false, &[("c", set(1))], &[("b", draining(2)), ("c", active(1))], (1, 0, 1), &["a"]);
        check(false, &[("a", set(2))], &[("a", active(2))], (0, 1, 1), &["b"]);
        check(false, &[("c", set(1)), ("d", set(2))], &[("c", active(1)), ("d", active(2))], (2, 0, 2), &["a", "b"]);
        // An owner that gets another port in the same write has moved, and is not displaced.
        check(false, &[("a", set(2)), ("b", set(1))], &[("a", active(2)), ("b", active(1))], (0, 2, 0), &[]);
        check(true, &[("c", set(1))], &[("c", active(1))], (1, 0, 2), &["a"]);
        check(true, &[("c", set(3))], &[("c", active(3))], (1, 0, 2), &[]);
    }

    #[test]
    fn replaces() {
        check(true, &[], &[], (0, 0, 2), &[]);
        check(true, &[("a", set(1)), ("b", Edit::Set(draining(2)))], &[("a", active(1)), ("b", draining(2))], (0, 0, 0), &[]);
    }

    #[test]
    fn one_port_for_two_ids_is_refused() {
        let refusal = apply(true, &[("c", set(5)), ("d", set(5)), ("e", set(5))]).expect_err("refused");
        let Refusal::PortInUse(faults) = refusal else { panic!("{refusal:?}") };
        assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), ["/routes/d", "/routes/e"]);
        // An edit that keeps its port claims it too.
        let keeps = Edit::Merge { port: None, state: Some(RouteState::Draining) };
        assert!(matches!(apply(false, &[("a", keeps), ("c", set(1))]), Err(Refusal::PortInUse(_))));
    }

    #[test]
    fn the_number_of_routes_is_limited() {
        let refusal = apply(false, &[("c", set(3)), ("d", set(4))]).expect_err("four routes");
        let Refusal::Invalid(faults) = refusal else { panic!("{refusal:?}") };
        assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), ["/routes"]);
        // Displacing an owner makes room.
        assert!(apply(false, &[("c", set(3)), ("d", set(1))]).is_ok());
    }
}
