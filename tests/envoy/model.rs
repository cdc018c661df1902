//! The route API as a plain map in memory: the response to each call. It is written from the contract alone, without the filter's code,
//! and kept as simple as possible.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

mod errors;

use errors::errors_of;

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    port: u16,
    draining: bool,
    endpoints: BTreeMap<&'static str, u16>,
}

impl Route {
    fn ports(&self) -> impl Iterator<Item = u16> {
        self.endpoints.values().copied().chain([self.port])
    }

    /// The members as the API shows them.
    fn shown(&self) -> Value {
        let mut shown = json!({"port": self.port, "state": STATES[usize::from(self.draining)]});
        if !self.endpoints.is_empty() {
            shown["endpoints"] = json!(self.endpoints);
        }
        shown
    }
}

/// What a body says about one id.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// `null`
    Null,
    /// A bare number.
    Bare(u32),
    /// An object with these members.
    Object { port: Option<u32>, state: Option<&'static str>, endpoints: Endpoints },
}

/// What a body says about the endpoints of a route.
#[derive(Clone, Debug)]
pub(crate) enum Endpoints {
    /// There is no such member.
    Absent,
    /// `null`
    Null,
    /// An object with these members; `None` is `null`.
    Each(Vec<(&'static str, Option<u32>)>),
}

/// The condition of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    None,
    IfMatchNow,
    IfMatchStale,
    IfNoneMatchNow,
    IfNoneMatchStale,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    GetAll,
    GetOne(&'static str),
    Status,
    Replace(Vec<(&'static str, Entry)>),
    Patch(Vec<(&'static str, Entry)>),
    PutOne(&'static str, Entry),
    Delete(&'static str),
}

/// The response: the status, and the whole body if the call succeeds, else the code and the places of all errors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) code: Option<&'static str>,
    pub(crate) places: BTreeSet<String>,
}

/// The route map and its version.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) epoch: String,
    pub(crate) generation: u64,
    pub(crate) routes: BTreeMap<String, Route>,
    /// The most routes that the configuration allows.
    pub(crate) max_routes: usize,
}

impl Model {
    /// Makes a call: changes the map and returns the response.
    pub(crate) fn respond(&mut self, call: &Call, condition: Condition, dry_run: bool) -> Response {
        match call {
            Call::GetAll | Call::GetOne(_) | Call::Status => self.read(call, condition),
            Call::Replace(entries) => self.write(entries, (true, true), condition, dry_run, "/routes", 200),
            Call::Patch(entries) => self.write(entries, (false, false), condition, dry_run, "/routes", 200),
            Call::PutOne(id, entry) => {
                let status = if self.routes.contains_key(*id) { 200 } else { 201 };
                let mut response = self.write(&[(*id, entry.clone())], (false, true), condition, dry_run, "", status);
                // The body has no ids, so errors point into the route.
                let places = std::mem::take(&mut response.places);
                let into = |place: String| place.strip_prefix(&format!("/{id}")).unwrap_or(&place).to_owned();
                Response { places: places.into_iter().map(into).collect(), ..response }
            }
            Call::Delete(id) => self.write(&[(*id, Entry::Null)], (false, false), condition, dry_run, "", 204),
        }
    }

    fn read(&self, call: &Call, condition: Condition) -> Response {
        if condition == Condition::IfMatchStale {
            return rejection(412, "precondition_failed", []);
        }
        let body = match call {
            Call::GetOne(id) => match self.routes.get(*id) {
                Some(route) => {
                    let mut shown = route.shown();
                    shown["generation"] = json!(self.generation);
                    shown
                }
                None => return rejection(404, "not_found", []),
            },
            Call::Status => {
                json!({"epoch": self.epoch, "generation": self.generation, "routes": self.routes.len(), "loaded": true,
                "version": env!("CARGO_PKG_VERSION"),
                "fleet": {"enabled": false, "loaded": false, "epoch": "0", "generation": 0, "peers": 0, "routes": 0}})
            }
            _ => {
                let routes: BTreeMap<_, _> = self.routes.iter().map(|(id, route)| (id, route.shown())).collect();
                json!({"epoch": self.epoch, "generation": self.generation, "routes": routes})
            }
        };
        if condition == Condition::IfNoneMatchNow {
            return Response { status: 304, body: Value::Null, code: None, places: BTreeSet::new() };
        }
        Response { status: 200, body, code: None, places: BTreeSet::new() }
    }

    /// A write that removes what it does not name, or does not, and whose routes are whole ones, or change what is there.
    fn write(
        &mut self,
        entries: &[(&'static str, Entry)],
        (replace, whole): (bool, bool),
        condition: Condition,
        dry_run: bool,
        at: &str,
        status: u16,
    ) -> Response {
        let places = errors_of(entries, whole, at);
        if !places.is_empty() {
            return rejection(422, "invalid_routes", places);
        }
        if matches!(condition, Condition::IfMatchStale | Condition::IfNoneMatchNow) {
            return rejection(412, "precondition_failed", []);
        }
        let mut after = if replace { BTreeMap::new() } else { self.routes.clone() };
        let (mut claims, mut incomplete, mut taken) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for (id, entry) in entries {
            let before = self.routes.get(*id).filter(|_| !whole);
            let Some(route) = routed(entry, before) else {
                after.remove(*id);
                continue;
            };
            let Some(route) = route else {
                incomplete.insert(format!("{at}/{id}"));
                continue;
            };
            let names = route.endpoints.keys().map(|name| format!("{at}/{id}/endpoints/{name}")).chain([format!("{at}/{id}")]);
            for (port, place) in route.ports().zip(names) {
                if *claims.entry(port).or_insert(*id) != *id {
                    taken.insert(place);
                }
            }
            after.insert((*id).to_owned(), route);
        }
        // An id loses its route if another id gets a port of it. (If the body names both ids, that is an error, and both routes count.)
        let named = |id: &str| entries.iter().any(|(named, _)| *named == id);
        after.retain(|id, route| named(id) || !route.ports().any(|port| claims.contains_key(&port)));
        let too_many = after.len() > self.max_routes;
        if !incomplete.is_empty() || too_many {
            incomplete.append(&mut taken);
            if too_many {
                // For a write of one route, this is the whole body.
                incomplete.insert(at.to_owned());
            }
            return rejection(422, "invalid_routes", incomplete);
        }
        if !taken.is_empty() {
            return rejection(409, "port_in_use", taken);
        }
        self.apply(after, &claims, dry_run, status)
    }

    fn apply(&mut self, after: BTreeMap<String, Route>, claims: &BTreeMap<u16, &str>, dry_run: bool, status: u16) -> Response {
        let added = after.keys().filter(|id| !self.routes.contains_key(*id)).count();
        let changed = after.iter().filter(|(id, route)| self.routes.get(*id).is_some_and(|before| before != *route)).count();
        let gone: Vec<_> = self.routes.iter().filter(|(id, _)| !after.contains_key(*id)).collect();
        let lost = |route: &Route| route.ports().any(|port| claims.contains_key(&port));
        let displaced: Vec<_> = gone.iter().filter(|(_, route)| lost(route)).map(|(id, _)| *id).collect();
        let counts = |generation: u64| json!({"epoch": self.epoch, "generation": generation, "added": added, "changed": changed, "removed": gone.len(), "displaced": displaced});
        let effective = !dry_run && added + changed + gone.len() > 0;
        let body = if status == 204 { Value::Null } else { counts(self.generation + u64::from(effective)) };
        if effective {
            self.generation += 1;
            self.routes = after;
        }
        Response { status, body, code: None, places: BTreeSet::new() }
    }

    /// The entity tag.
    pub(crate) fn tag(&self) -> String {
        format!("\"{}-{}\"", self.epoch, self.generation)
    }
}

const STATES: [&str; 2] = ["active", "draining"];

/// The most endpoints of a route.
const MOST: usize = 8;

/// The route that an entry makes of the previous one; `None` removes it, and `Some(None)` is an impossible route.
#[expect(clippy::option_option, reason = "an entry that removes a route is no error")]
fn routed(entry: &Entry, before: Option<&Route>) -> Option<Option<Route>> {
    let number = |port: u32| u16::try_from(port).unwrap();
    let (port, state, endpoints) = match entry {
        Entry::Null => return None,
        Entry::Bare(port) => return Some(Some(Route { port: number(*port), ..Route::default() })),
        Entry::Object { port, state, endpoints } => (port, state, endpoints),
    };
    let Some(port) = port.map(number).or(before.map(|route| route.port)) else { return Some(None) };
    let mut route = before.cloned().unwrap_or_default();
    route.port = port;
    route.draining = state.map_or(route.draining, |state| state == "draining");
    match endpoints {
        Endpoints::Absent => {}
        Endpoints::Null => route.endpoints.clear(),
        Endpoints::Each(members) => {
            for (name, port) in members {
                match port {
                    Some(port) => drop(route.endpoints.insert(name, number(*port))),
                    None => drop(route.endpoints.remove(name)),
                }
            }
        }
    }
    Some(Some(route).filter(|route| route.endpoints.len() <= MOST))
}

fn rejection(status: u16, code: &'static str, places: impl IntoIterator<Item = String>) -> Response {
    Response { status, body: Value::Null, code: Some(code), places: places.into_iter().collect() }
}
