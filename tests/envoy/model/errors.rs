//! The errors of a body.

use std::collections::BTreeSet;

use super::{Endpoints, Entry, MOST, STATES};

/// The places of the errors that a body has, whatever the map holds.
pub(super) fn errors_of(entries: &[(&'static str, Entry)], whole: bool, at: &str) -> BTreeSet<String> {
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
            Entry::Null if whole => drop(places.insert(place)),
            Entry::Null => {}
            Entry::Bare(port) if allowed(*port) => {}
            Entry::Bare(_) => drop(places.insert(place)),
            Entry::Object { port, state, endpoints } => {
                if port.map_or(whole, |port| !allowed(port)) {
                    places.insert(format!("{place}/port"));
                }
                if state.is_some_and(|state| !STATES.contains(&state)) {
                    places.insert(format!("{place}/state"));
                }
                let names = errors_of_endpoints(endpoints, whole, allowed);
                places.extend(names.into_iter().map(|name| format!("{place}/endpoints{name}")));
            }
        }
    }
    places
}

/// The places of the errors in the endpoints of a route.
fn errors_of_endpoints(endpoints: &Endpoints, whole: bool, allowed: impl Fn(u32) -> bool) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    match endpoints {
        Endpoints::Absent => {}
        Endpoints::Null => places.extend(whole.then(String::new)),
        Endpoints::Each(members) => {
            let mut seen = BTreeSet::new();
            for (name, port) in members {
                let characters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
                let valid = characters && (1..=16).contains(&name.len()) && !["-", "a2a"].contains(name);
                if !valid || !seen.insert(name) || port.map_or(whole, |port| !allowed(port)) {
                    places.insert(format!("/{name}"));
                }
            }
            // How many there are counts only if they are right.
            if whole && places.is_empty() && members.len() > MOST {
                places.insert(String::new());
            }
        }
    }
    places
}
