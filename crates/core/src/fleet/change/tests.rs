//! What changes do to a map of two peers and three routes.

use super::*;
use crate::fleet::tests::{
    PLENTY, Plain, at, draining, id, plain, prepared, publish_at, publish_change, publish_with, setting,
};
use crate::store::memory::{MemoryData, MemorySignal};
use crate::store::{FLEET_MAP, PublishError, Stored};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The map b: 10.0.1.2, c: 10.0.1.3 (draining); x: b, y: c and b, z: c.
fn before() -> MemoryData {
    let data = prepared();
    let peers = [("b", at(2)), ("c", draining(3))];
    let routes: [(&str, &[&str]); 3] = [("x", &["b"]), ("y", &["c", "b"]), ("z", &["c"])];
    publish_change(&data, &MemorySignal::default(), &setting(true, &peers, &routes));
    data
}

fn removing<'a>(mut change: Change<'a>, peers: &[&'a str], routes: &[&'a str]) -> Change<'a> {
    change.peers.extend(peers.iter().map(|name| (id(name), PeerEdit::Remove)));
    change.routes.extend(routes.iter().map(|text| (id(text), RouteEdit::Remove)));
    change
}

fn merging<'a>(name: &'a str, host: Option<u8>, state: Option<PeerState>) -> Change<'a> {
    let edit = PeerEdit::Merge { host: host.map(|last| at(last).host), state };
    Change { peers: vec![(id(name), edit)], ..Change::default() }
}

/// Since when each peer is as it is.
fn since(data: &MemoryData) -> Vec<(String, u64)> {
    let stored = Stored::now(data, &FLEET_MAP);
    let map = FleetMap::new(&stored);
    let reports = map.reports().expect("nobody else writes");
    reports.iter().map(|report| (report.name.as_str().to_owned(), report.since.as_unix())).collect()
}

fn expected(peers: &[(&str, Peer)], routes: &[(&str, &[&str])]) -> Plain {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    (
        peers.iter().map(|(name, peer)| ((*name).to_owned(), *peer)).collect(),
        routes.iter().map(|(text, peers)| ((*text).to_owned(), names(peers))).collect(),
    )
}

#[track_caller]
fn check(change: &Change<'_>, peers: &[(&str, Peer)], routes: &[(&str, &[&str])], counts: (usize, usize, usize)) {
    let data = before();
    let found = publish_change(&data, &MemorySignal::default(), change).outcome;
    assert_eq!(plain(&data), expected(peers, routes));
    assert_eq!((found.added, found.changed, found.removed), counts);
}

#[track_caller]
fn check_errors(change: &Change<'_>, most: Most, places: &[&str]) -> String {
    let data = before();
    match publish_with(&data, &MemorySignal::default(), change, most) {
        Err(PublishError::Rejected(errors)) => {
            assert_eq!(errors.listed().iter().map(|error| error.pointer.as_str()).collect::<Vec<_>>(), places, "{errors:?}");
            assert_eq!(plain(&data), plain(&before()));
            errors.listed().iter().map(|error| error.detail.as_str()).collect::<Vec<_>>().join("; ")
        }
        other => panic!("{other:?}"),
    }
}

const X: (&str, &[&str]) = ("x", &["b"]);
const Y: (&str, &[&str]) = ("y", &["c", "b"]);
const Z: (&str, &[&str]) = ("z", &["c"]);

#[test]
fn sets_and_removes() {
    let (b, c) = (("b", at(2)), ("c", draining(3)));
    check(&Change::default(), &[b, c], &[X, Y, Z], (0, 0, 0));
    check(&setting(false, &[], &[("x", &["c"]), ("w", &["b"])]), &[b, c], &[("w", &["b"]), ("x", &["c"]), Y, Z], (1, 1, 0));
    // Another order is a change.
    check(&setting(false, &[], &[("y", &["b", "c"])]), &[b, c], &[X, ("y", &["b", "c"]), Z], (0, 1, 0));
    check(&removing(Change::default(), &[], &["x", "w"]), &[b, c], &[Y, Z], (0, 0, 1));
    check(&setting(false, &[("d", at(4))], &[("x", &["d"])]), &[b, c, ("d", at(4))], &[("x", &["d"]), Y, Z], (0, 1, 0));
    check(&removing(setting(false, &[], &[("y", &["b"])]), &["c"], &["z"]), &[b], &[X, ("y", &["b"])], (0, 1, 1));
    // A peer that is not there is removed already.
    check(&removing(Change::default(), &["d"], &[]), &[b, c], &[X, Y, Z], (0, 0, 0));
}

#[test]
fn a_change_of_peers_changes_no_route() {
    let rest: [(&str, &[&str]); 3] = [X, Y, Z];
    check(&setting(false, &[("b", at(9))], &[]), &[("b", at(9)), ("c", draining(3))], &rest, (0, 0, 0));
    check(&merging("b", None, Some(PeerState::Draining)), &[("b", draining(2)), ("c", draining(3))], &rest, (0, 0, 0));
    check(&merging("c", Some(9), None), &[("b", at(2)), ("c", draining(9))], &rest, (0, 0, 0));
    check(&merging("d", Some(4), None), &[("b", at(2)), ("c", draining(3)), ("d", at(4))], &rest, (0, 0, 0));
    let data = before();
    let signal = MemorySignal::default();
    let published = publish_change(&data, &signal, &setting(false, &[("b", at(9))], &[]));
    assert_eq!(published.version.generation, 2);
    check_errors(&merging("d", None, Some(PeerState::Active)), PLENTY, &["/peers/d"]);
}

#[test]
fn replaces() {
    let (b, c) = (("b", at(2)), ("c", draining(3)));
    check(&setting(true, &[], &[]), &[], &[], (0, 0, 3));
    check(&setting(true, &[c, b], &[Z, Y, X]), &[b, c], &[X, Y, Z], (0, 0, 0));
    check(
        &setting(true, &[("b", at(5)), ("d", at(4))], &[X, ("w", &["d"])]),
        &[("b", at(5)), ("d", at(4))],
        &[("w", &["d"]), X],
        (1, 0, 2),
    );
}

#[test]
fn what_is_the_same_as_before_is_no_change() {
    let data = before();
    let stored = Stored::now(&data, &FLEET_MAP);
    let map = FleetMap::new(&stored);
    let same = setting(true, &[("c", draining(3)), ("b", at(2))], &[Z, Y, X]);
    assert!(same.apply(&map, PLENTY, Timestamp::default()).expect("valid").is_empty());
    assert!(!setting(false, &[("b", at(9))], &[]).apply(&map, PLENTY, Timestamp::default()).expect("valid").is_empty());
}

#[test]
fn a_peer_keeps_its_time_while_its_address_and_state_stay() {
    let (data, signal) = (before(), MemorySignal::default());
    let check = |now: u64, change: &Change<'_>, expected: &[(&str, u64)]| {
        publish_at(&data, &signal, change, PLENTY, Timestamp::from_unix(now)).expect("published");
        assert_eq!(since(&data), expected.iter().map(|(name, then)| ((*name).to_owned(), *then)).collect::<Vec<_>>(), "{now}");
    };
    // The first map is of the time 0. A new peer is known since its write; the others stay.
    check(10, &setting(false, &[("b", at(2)), ("d", at(4))], &[]), &[("b", 0), ("c", 0), ("d", 10)]);
    check(20, &merging("c", Some(3), Some(PeerState::Draining)), &[("b", 0), ("c", 0), ("d", 10)]);
    check(30, &setting(true, &[("b", at(2)), ("c", draining(3)), ("d", at(4))], &[X]), &[("b", 0), ("c", 0), ("d", 10)]);
    check(40, &setting(false, &[], &[Y]), &[("b", 0), ("c", 0), ("d", 10)]);
    // Another state, another address, and both.
    check(50, &merging("c", None, Some(PeerState::Active)), &[("b", 0), ("c", 50), ("d", 10)]);
    check(60, &merging("b", Some(9), None), &[("b", 60), ("c", 50), ("d", 10)]);
    check(70, &setting(true, &[("b", at(9)), ("c", draining(8)), ("d", at(4))], &[X]), &[("b", 60), ("c", 70), ("d", 10)]);
    // A state that has come back is a new one, even if the clock was set back.
    check(5, &merging("c", None, Some(PeerState::Active)), &[("b", 60), ("c", 5), ("d", 10)]);
    // A peer that comes back is a new one.
    check(80, &removing(Change::default(), &["d"], &[]), &[("b", 60), ("c", 5)]);
    check(90, &setting(false, &[("d", at(4))], &[]), &[("b", 60), ("c", 5), ("d", 90)]);
    // A peer that takes the address and the state of one that goes is another one.
    check(100, &removing(setting(false, &[("e", at(4))], &[]), &["d"], &[]), &[("b", 60), ("c", 5), ("e", 100)]);
}

#[test]
fn a_peer_that_a_route_names_cannot_be_removed() {
    let detail = check_errors(&removing(Change::default(), &["c"], &["z"]), PLENTY, &["/peers/c"]);
    assert!(detail.contains("the route of y names it"), "{detail}");
    // Each such peer is named once, however many routes name it.
    let detail = check_errors(&removing(Change::default(), &["b", "c"], &[]), PLENTY, &["/peers/b", "/peers/c"]);
    assert_eq!(detail.matches("the route of").count(), 2, "{detail}");
    // A route of the same write that names it.
    check_errors(&removing(setting(false, &[], &[Y]), &["c"], &["z"]), PLENTY, &["/routes/y/0"]);
    check_errors(&setting(true, &[("b", at(2))], &[X, Y, Z]), PLENTY, &["/routes/y/0", "/routes/z/0"]);
}

#[test]
fn a_route_names_peers_that_exist() {
    let names: Vec<String> = (0..16).map(|n| format!("p{n}")).collect();
    let peers: Vec<_> = names.iter().map(|name| (name.as_str(), at(1))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(publish_with(&before(), &MemorySignal::default(), &setting(false, &peers, &[("w", &names)]), PLENTY).is_ok());
    check_errors(&setting(false, &[], &[("w", &["b", "nobody", "c", "B"])]), PLENTY, &["/routes/w/1", "/routes/w/3"]);
}

#[test]
fn the_numbers_of_peers_and_routes_are_limited() {
    let most = Most { peers: 2, routes: 3 };
    check_errors(&setting(false, &[("d", at(4))], &[("w", &["b"])]), most, &["/peers", "/routes"]);
    let replacing = setting(false, &[("d", at(4))], &[("w", &["b"]), ("y", &["b"])]);
    assert!(publish_with(&before(), &MemorySignal::default(), &removing(replacing, &["c"], &["z"]), most).is_ok());
}
