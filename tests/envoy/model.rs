//! The route API as a plain map in memory: the response to each call. It is written from the contract alone, without the filter's code,
//! and kept as simple as possible.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// A route: port, and whether it is draining.
pub(crate) type Route = (u16, bool);

/// What a body says about one id.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// `null`
    Null,
    /// A bare number.
    Bare(u32),
    /// An object with these members.
    Object { port: Option<u32>, state: Option<&'static str> },
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
            Call::Replace(entries) => self.write(Some(entries), true, condition, dry_run, "/routes", 200),
            Call::Patch(entries) => self.write(Some(entries), false, condition, dry_run, "/routes", 200),
            Call::PutOne(id, entry) => {
                let status = if self.routes.contains_key(*id) { 200 } else { 201 };
                // A single route is replaced, and it is the body itself.
                let entry = [(*id, entry.clone())];
                self.write_one(&entry, condition, dry_run, status)
            }
            Call::Delete(id) => self.write(Some(&[(*id, Entry::Null)]), false, condition, dry_run, "", 204),
        }
    }

    fn read(&self, call: &Call, condition: Condition) -> Response {
        if condition == Condition::IfMatchStale {
            return rejection(412, "precondition_failed", []);
        }
        let body = match call {
            Call::GetOne(id) => match self.routes.get(*id) {
                Some((port, draining)) => json!({"port": port, "state": state(*draining), "generation": self.generation}),
                None => return rejection(404, "not_found", []),
            },
            Call::Status => {
                json!({"epoch": self.epoch, "generation": self.generation, "routes": self.routes.len(), "loaded": true,
                "version": env!("CARGO_PKG_VERSION"),
                "fleet": {"enabled": false, "loaded": false, "epoch": "0", "generation": 0, "peers": 0, "routes": 0}})
            }
            _ => json!({"epoch": self.epoch, "generation": self.generation, "routes": self.shown()}),
        };
        if condition == Condition::IfNoneMatchNow {
            return Response { status: 304, body: Value::Null, code: None, places: BTreeSet::new() };
        }
        Response { status: 200, body, code: None, places: BTreeSet::new() }
    }

    fn write_one(&mut self, entry: &[(&'static str, Entry)], condition: Condition, dry_run: bool, status: u16) -> Response {
        let mut response = match &entry[0].1 {
            // A patch merges the route, but a PUT needs a whole one.
            Entry::Object { port: None, state } => {
                let mut places = BTreeSet::from(["/port".to_owned()]);
                if state.is_some_and(|state| !STATES.contains(&state)) {
                    places.insert("/state".to_owned());
                }
                return rejection(422, "invalid_routes", places);
            }
            Entry::Null => return rejection(422, "invalid_routes", [String::new()]),
            Entry::Object { port, state } => {
                let state = state.unwrap_or("active");
                let whole = [(entry[0].0, Entry::Object { port: *port, state: Some(state) })];
                self.write(Some(&whole), false, condition, dry_run, "", status)
            }
            Entry::Bare(_) => self.write(Some(entry), false, condition, dry_run, "", status),
        };
        // The body has no ids, so errors point into the route.
        let prefix = format!("/{}", entry[0].0);
        response.places =
            response.places.into_iter().map(|place| place.strip_prefix(&prefix).unwrap_or(&place).to_owned()).collect();
        response
    }

    fn write(
        &mut self,
        entries: Option<&[(&'static str, Entry)]>,
        replace: bool,
        condition: Condition,
        dry_run: bool,
        at: &str,
        status: u16,
    ) -> Response {
        let entries = entries.unwrap_or_default();
        let places = errors_of(entries, replace, at);
        if !places.is_empty() {
            return rejection(422, "invalid_routes", places);
        }
        if matches!(condition, Condition::IfMatchStale | Condition::IfNoneMatchNow) {
            return rejection(412, "precondition_failed", []);
        }
        let mut after = if replace { BTreeMap::new() } else { self.routes.clone() };
        let (mut claims, mut nameless, mut taken) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for (id, entry) in entries {
            let before = self.routes.get(*id).copied();
            let route = match entry {
                Entry::Null => None,
                Entry::Bare(port) => Some((u16::try_from(*port).unwrap(), false)),
                Entry::Object { port, state } if replace => {
                    Some((u16::try_from(port.unwrap()).unwrap(), *state == Some("draining")))
                }
                Entry::Object { port, state } => {
                    let port = port.map(|port| u16::try_from(port).unwrap()).or(before.map(|(port, _)| port));
                    let Some(port) = port else {
                        nameless.insert(format!("{at}/{id}"));
                        continue;
                    };
                    Some((port, state.map_or(before.is_some_and(|(_, draining)| draining), |state| state == "draining")))
                }
            };
            match route {
                None => drop(after.remove(*id)),
                Some(route) => {
                    if claims.insert(route.0, *id).is_some() {
                        taken.insert(format!("{at}/{id}"));
                    }
                    after.insert((*id).to_owned(), route);
                }
            }
        }
        // An id loses its route if another id gets its port. (If the body names both ids, that is an error, and both routes count.)
        let named = |id: &str| entries.iter().any(|(named, _)| *named == id);
        after.retain(|id, (port, _)| named(id) || !claims.contains_key(port));
        let too_many = after.len() > self.max_routes;
        if !nameless.is_empty() || too_many {
            nameless.append(&mut taken);
            if too_many {
                // For a write of one route, this is the whole body.
                nameless.insert(at.to_owned());
            }
            return rejection(422, "invalid_routes", nameless);
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
        let displaced: Vec<_> = gone.iter().filter(|(_, (port, _))| claims.contains_key(port)).map(|(id, _)| *id).collect();
        let counts = |generation: u64| json!({"epoch": self.epoch, "generation": generation, "added": added, "changed": changed, "removed": gone.len(), "displaced": displaced});
        let effective = !dry_run && added + changed + gone.len() > 0;
        let body = if status == 204 { Value::Null } else { counts(self.generation + u64::from(effective)) };
        if effective {
            self.generation += 1;
            self.routes = after;
        }
        Response { status, body, code: None, places: BTreeSet::new() }
    }

    /// The routes as `GET /v1/routes` shows them.
    fn shown(&self) -> Value {
        let routes =
            self.routes.iter().map(|(id, (port, draining))| (id.clone(), json!({"port": port, "state": state(*draining)})));
        Value::Object(routes.collect())
    }

    /// The entity tag.
    pub(crate) fn tag(&self) -> String {
        format!("\"{}-{}\"", self.epoch, self.generation)
    }
}

const STATES: [&str; 2] = ["active", "draining"];

fn state(draining: bool) -> &'static str {
    STATES[usize::from(draining)]
}

/// The places of the errors that a body has, whatever the map holds.
fn errors_of(entries: &[(&'static str, Entry)], replace: bool, at: &str) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (id, entry) in entries {
        let place = format!("{at}/{id}");
        let valid = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !valid || !seen.insert(id) {
            places.insert(place);
            continue;
        }
        let allowed = |port: u32| (1024..=65535).contains(&port) && ![50050, 50051, 50052, 8080, 9090, 9901].contains(&port);
        match entry {
            Entry::Null if replace => drop(places.insert(place)),
            Entry::Null => {}
            Entry::Bare(port) if allowed(*port) => {}
            Entry::Bare(_) => drop(places.insert(place)),
            Entry::Object { port, state } => {
                if port.map_or(replace, |port| !allowed(port)) {
                    places.insert(format!("{place}/port"));
                }
                if state.is_some_and(|state| !STATES.contains(&state)) {
                    places.insert(format!("{place}/state"));
                }
            }
        }
    }
    places
}

fn rejection(status: u16, code: &'static str, places: impl IntoIterator<Item = String>) -> Response {
    Response { status, body: Value::Null, code: Some(code), places: places.into_iter().collect() }
}
