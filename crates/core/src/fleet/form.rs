//! A fleet map as JSON: `{"peers": {"<name>": {"host": "10.0.1.7", "state": "active"}}, "routes": {"<id>": ["<name>"]}}`.

use super::change::{Change, InvalidPeerNames, PeerEdit, PeerNames, RouteEdit};
use super::limits::FleetLimits;
use super::{Peer, PeerState, Preference};
use crate::deployment_id::DeploymentId;
use crate::fields::Fields;
use crate::json::{Json, pointer};
use crate::problem::{FieldError, FieldErrors};
use crate::routes::form::{members, parse_state};
use crate::routes::limits::parse_id;
use std::net::IpAddr;

/// The body of `PUT /v1/fleet`.
///
/// # Errors
/// Every error.
pub fn replacement<'j>(json: &'j Json, limits: &FleetLimits) -> Result<Change<'j>, FieldErrors> {
    parse(json, true, limits)
}

/// The body of `PATCH /v1/fleet`, a JSON merge patch (RFC 7396).
///
/// # Errors
/// Every error.
pub fn patch<'j>(json: &'j Json, limits: &FleetLimits) -> Result<Change<'j>, FieldErrors> {
    parse(json, false, limits)
}

fn parse<'j>(json: &'j Json, replace: bool, limits: &FleetLimits) -> Result<Change<'j>, FieldErrors> {
    let mut errors = FieldErrors::default();
    let mut fields = Fields::of(json, "", &mut errors);
    let (peers, routes) = (fields.take("peers"), fields.take("routes"));
    fields.reject_the_rest();
    if replace && errors.is_empty() {
        for (name, _) in [("peers", peers), ("routes", routes)].iter().filter(|(_, member)| member.is_none()) {
            errors.add(|| FieldError::new("", format!("must have a member \"{name}\"")));
        }
    }
    let mut change = Change { replace, ..Change::default() };
    if let Some(peers) = peers {
        let name =
            |key| DeploymentId::parse(key).map_err(|error| format!("a peer is named in the form of a deployment id: {error}"));
        for (name, json) in members(peers, "/peers", "peers", name, &mut errors) {
            let edit = parse_peer(json, &pointer("/peers", name.as_str()), replace, limits, &mut errors);
            change.peers.extend(edit.map(|edit| (name, edit)));
        }
    }
    if let Some(routes) = routes {
        let routes = members(routes, "/routes", "routes", |key| parse_id(key, limits.max_id_bytes), &mut errors);
        change.routes.reserve(routes.len());
        for (id, json) in routes {
            let edit = parse_route(json, id, replace, &mut errors);
            change.routes.extend(edit.map(|edit| (id, edit)));
        }
    }
    if errors.is_empty() { Ok(change) } else { Err(errors) }
}

/// A peer: an object with `host` and `state`. In a merge patch null removes it, and what is left out stays.
fn parse_peer(json: &Json, at: &str, whole: bool, limits: &FleetLimits, errors: &mut FieldErrors) -> Option<PeerEdit> {
    match json {
        Json::Null if !whole => return Some(PeerEdit::Remove),
        Json::Object(_) => {}
        _ => {
            errors.add(|| FieldError::new(at, format!("must be a peer such as {{\"host\": \"10.0.1.7\"}}, got {json}")));
            return None;
        }
    }
    let before = errors.total();
    let mut fields = Fields::of(json, at, errors);
    let (host, state) = (fields.take("host"), fields.take("state"));
    match host {
        None if whole => fields.error("host", "is missing"),
        Some(Json::Null) if !whole => {
            fields.error("host", "cannot be removed from a peer; to remove the peer, set the whole of it to null");
        }
        _ => {}
    }
    fields.reject_the_rest();
    let host = match host {
        None => None,
        Some(Json::Null) if !whole => None,
        Some(host) => parse_host(host, &pointer(at, "host"), limits, errors),
    };
    let state = match state {
        None => None,
        // Removing the member leaves its default.
        Some(Json::Null) if !whole => Some(PeerState::default()),
        Some(state) => parse_state(state, &pointer(at, "state"), errors),
    };
    if errors.total() > before {
        return None;
    }
    if whole {
        Some(PeerEdit::Set(Peer { host: host?, state: state.unwrap_or_default() }))
    } else {
        Some(PeerEdit::Merge { host, state })
    }
}

fn parse_host(json: &Json, at: &str, limits: &FleetLimits, errors: &mut FieldErrors) -> Option<IpAddr> {
    let text = if let Json::String(text) = json { text.as_str() } else { "" };
    limits.parse_host(text).map_err(|error| errors.add(|| FieldError::new(at, format!("{error}, got {json}")))).ok()
}

/// A route: a list of names of peers. In a merge patch null removes it.
fn parse_route<'j>(json: &'j Json, id: DeploymentId<'_>, whole: bool, errors: &mut FieldErrors) -> Option<RouteEdit<'j>> {
    let at = || pointer("/routes", id.as_str());
    let names = match json {
        Json::Null if !whole => return Some(RouteEdit::Remove),
        Json::Array(names) => names,
        _ => {
            errors.add(|| FieldError::new(at(), format!("must be a list of peers such as [\"task-b\"], got {json}")));
            return None;
        }
    };
    let before = errors.total();
    let mut parsed = Vec::with_capacity(names.len());
    for (n, json) in names.iter().enumerate() {
        let name = if let Json::String(name) = json { DeploymentId::parse(name.as_bytes()).ok() } else { None };
        match name {
            Some(name) => parsed.push(name),
            None => errors.add(|| FieldError::new(place_of(&at(), n), format!("must be the name of a peer, got {json}"))),
        }
    }
    if errors.total() > before {
        return None;
    }
    match PeerNames::new(parsed) {
        Ok(names) => return Some(RouteEdit::Set(names)),
        Err(InvalidPeerNames::Count(count)) => {
            errors.add(|| FieldError::new(at(), format!("must name 1 to {} peers, got {count}", Preference::MOST)));
        }
        Err(InvalidPeerNames::Repeated(places)) => {
            for n in places {
                errors.add(|| FieldError::new(place_of(&at(), n), "names a peer a second time"));
            }
        }
    }
    None
}

fn place_of(list: &str, n: usize) -> String {
    pointer(list, &n.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    type Parser = for<'j> fn(&'j Json, &FleetLimits) -> Result<Change<'j>, FieldErrors>;

    const PUT: Parser = replacement;
    const PATCH: Parser = patch;

    fn limits() -> FleetLimits {
        let peer_cidrs = vec!["10.0.1.0/24".parse().expect("a network"), "fd00::/8".parse().expect("a network")];
        FleetLimits { peer_cidrs, max_peers: 10, max_routes: 10, max_id_bytes: 36 }
    }

    fn id(text: &str) -> DeploymentId<'_> {
        DeploymentId::parse(text.as_bytes()).expect("valid")
    }

    #[track_caller]
    fn check(parser: Parser, text: &str, peers: &[(&str, PeerEdit)], routes: &[(&str, Option<&[&str]>)]) {
        let json = Json::parse(text.as_bytes()).expect("JSON");
        let change = parser(&json, &limits()).expect("valid");
        let peers: Vec<_> = peers.iter().map(|(name, edit)| (id(name), *edit)).collect();
        assert_eq!((change.peers, change.routes.len()), (peers, routes.len()));
        for ((found, edit), (text, names)) in change.routes.iter().zip(routes) {
            let names = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            let found_names = match edit {
                RouteEdit::Set(names) => Some(names.as_slice().iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()),
                RouteEdit::Remove => None,
            };
            assert_eq!((found.as_str(), found_names), (*text, names));
        }
    }

    #[track_caller]
    fn check_errors(parser: Parser, text: &str, expected: &[&str]) {
        let json = Json::parse(text.as_bytes()).expect("JSON");
        let errors = parser(&json, &limits()).expect_err("invalid");
        assert_eq!(errors.listed().iter().map(|error| error.pointer.as_str()).collect::<Vec<_>>(), expected, "{errors:?}");
    }

    fn peer(host: &str, state: PeerState) -> PeerEdit {
        PeerEdit::Set(Peer { host: host.parse().expect("an address"), state })
    }

    #[test]
    fn reads_a_whole_map() {
        check(PUT, r#"{"peers":{},"routes":{}}"#, &[], &[]);
        let text = r#"{"routes":{"x":["b","c"],"y":["c"]},"peers":{"b":{"host":"10.0.1.7"},"c":{"state":"draining","host":"fd00::7"}}}"#;
        let peers = [("b", peer("10.0.1.7", PeerState::Active)), ("c", peer("fd00::7", PeerState::Draining))];
        check(PUT, text, &peers, &[("x", Some(&["b", "c"])), ("y", Some(&["c"]))]);
    }

    #[test]
    fn reads_merge_patches() {
        check(PATCH, "{}", &[], &[]);
        check(
            PATCH,
            r#"{"peers":{"b":null},"routes":{"x":null,"y":["b"]}}"#,
            &[("b", PeerEdit::Remove)],
            &[("x", None), ("y", Some(&["b"]))],
        );
        let merge =
            |host: Option<&str>, state| PeerEdit::Merge { host: host.map(|host| host.parse().expect("an address")), state };
        let text = r#"{"peers":{"b":{},"c":{"host":"10.0.1.8"},"d":{"state":"draining"},"e":{"state":null}}}"#;
        let peers = [
            ("b", merge(None, None)),
            ("c", merge(Some("10.0.1.8"), None)),
            ("d", merge(None, Some(PeerState::Draining))),
            ("e", merge(None, Some(PeerState::Active))),
        ];
        check(PATCH, text, &peers, &[]);
    }

    #[test]
    fn a_route_names_1_to_16_different_peers() {
        let names = |count: usize| (0..count).map(|n| format!("\"p{n}\"")).collect::<Vec<_>>().join(",");
        let body = |names: &str| format!(r#"{{"peers":{{}},"routes":{{"x":[{names}]}}}}"#);
        for parser in [PUT, PATCH] {
            check_errors(parser, &body(""), &["/routes/x"]);
            check_errors(parser, &body(&names(17)), &["/routes/x"]);
            check_errors(parser, &body(r#""b","c","b","d","c","B""#), &["/routes/x/2", "/routes/x/4"]);
            let text = body(&names(16));
            assert!(parser(&Json::parse(text.as_bytes()).expect("JSON"), &limits()).is_ok());
        }
    }

    #[test]
    fn names_every_error() {
        check_errors(PUT, "[]", &[""]);
        check_errors(PUT, "{}", &["", ""]);
        check_errors(PUT, r#"{"peers":{}}"#, &[""]);
        check_errors(PUT, r#"{"peers":[],"routes":null,"x":1}"#, &["/x", "/peers", "/routes"]);
        check_errors(PUT, r#"{"peers":{},"peers":{},"routes":{}}"#, &["/peers"]);
        let peers = r#"{"":{"host":"10.0.1.7"},"a b":{"host":"10.0.1.7"},"c":"10.0.1.7","d":null,"e":{},"f":{"host":7,"state":"up","port":50050},
            "g":{"host":"10.0.2.7"},"h":{"host":"127.0.0.1"},"i":{"host":"10.0.1.7","host":"10.0.1.7"},"j":{"host":null,"state":null}}"#;
        let places = [
            "/peers/",
            "/peers/a b",
            "/peers/c",
            "/peers/d",
            "/peers/e/host",
            "/peers/f/port",
            "/peers/f/host",
            "/peers/f/state",
            "/peers/g/host",
            "/peers/h/host",
            "/peers/i/host",
            "/peers/j/host",
            "/peers/j/state",
        ];
        check_errors(PUT, &format!(r#"{{"peers":{peers},"routes":{{}}}}"#), &places);
        let routes =
            format!(r#"{{"":["b"],"a/b":["b"],"{}":["b"],"c":"b","d":null,"e":["b",7,"","b c"],"f":{{}}}}"#, "x".repeat(37));
        let long = format!("/routes/{}", "x".repeat(37));
        let places = [
            "/routes/",
            "/routes/a~1b",
            &long,
            "/routes/c",
            "/routes/d",
            "/routes/e/1",
            "/routes/e/2",
            "/routes/e/3",
            "/routes/f",
        ];
        check_errors(PUT, &format!(r#"{{"peers":{{}},"routes":{routes}}}"#), &places);
        check_errors(
            PUT,
            r#"{"peers":{"b":{"host":"10.0.1.7"},"b":{"host":"10.0.1.8"}},"routes":{"x":["b"],"x":["b"]}}"#,
            &["/peers/b", "/routes/x"],
        );
        check_errors(PATCH, r#"{"peers":null,"routes":[]}"#, &["/peers", "/routes"]);
        check_errors(
            PATCH,
            r#"{"peers":{"b":{"host":null},"c":7,"d":{"x":1}},"routes":{"x":"b"}}"#,
            &["/peers/b/host", "/peers/c", "/peers/d/x", "/routes/x"],
        );
    }
}
