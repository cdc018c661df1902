//! What changes do to a map of two routes.

use super::*;
use crate::routes::tests::{id, map_of, publish_change, routes_of};
use crate::store::memory::MemoryData;
use crate::store::{ROUTE_MAP, Stored};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn set(port: u16) -> Edit {
    Edit::Set(Route::active(port))
}

fn name(text: &str) -> EndpointName {
    EndpointName::parse(text.as_bytes()).expect("valid")
}

/// An active route with these endpoints beside its port.
fn with(port: u16, endpoints: &[(&str, u16)]) -> Route {
    Route { endpoints: endpoints.iter().map(|(text, port)| (name(text), *port)).collect(), ..Route::active(port) }
}

/// Changes the map `before`, with at most three routes.
fn apply(
    before: &[(&str, Route)],
    replace: bool,
    edits: &[(&str, Edit)],
) -> Result<(Applied, BTreeMap<String, Route>), Invalid> {
    let data = map_of(before);
    let change = Change { replace, edits: edits.iter().map(|(name, edit)| (id(name), edit.clone())).collect() };
    match change.apply(&RouteMap::new(&Stored::now(&data, &ROUTE_MAP)), 3) {
        Ok(applied) => {
            publish_change(&data, &change);
            owners_agree(&data);
            Ok((applied, routes_of(&data)))
        }
        Err(Stop::Rejected(invalid)) => Err(invalid),
        Err(Stop::Moved) => panic!("nobody else writes"),
    }
}

/// Every port of every route belongs to that route, and no other port to anyone.
fn owners_agree(data: &MemoryData) {
    let stored = Stored::now(data, &ROUTE_MAP);
    let map = RouteMap::new(&stored);
    let mut expected = BTreeMap::new();
    for (id, route) in map.routes().expect("nobody else writes") {
        expected.extend(route.ports().map(|port| (port, id)));
    }
    for port in 0..60 {
        assert_eq!(map.owner(port), Ok(expected.get(&port).copied()), "port {port}");
    }
}

/// The map a: 1, b: 2 (draining).
fn two() -> [(&'static str, Route); 2] {
    [("a", Route::active(1)), ("b", Route::draining(2))]
}

#[track_caller]
fn check(replace: bool, edits: &[(&str, Edit)], routes: &[(&str, Route)], counts: (usize, usize, usize), displaced: &[&str]) {
    check_on(&two(), replace, edits, routes, counts, displaced);
}

#[track_caller]
fn check_on(
    before: &[(&str, Route)],
    replace: bool,
    edits: &[(&str, Edit)],
    routes: &[(&str, Route)],
    counts: (usize, usize, usize),
    displaced: &[&str],
) {
    let (applied, after) = apply(before, replace, edits).expect("valid");
    let found: Vec<_> = after.iter().map(|(id, route)| (id.as_str(), route.clone())).collect();
    assert_eq!(found, routes);
    assert_eq!((applied.added, applied.changed, applied.removed.len()), counts);
    assert_eq!(applied.displaced.keys().map(|id| id.as_id().as_str()).collect::<Vec<_>>(), displaced);
    assert_eq!(applied.is_empty(), counts == (0, 0, 0));
}

#[track_caller]
fn check_error(before: &[(&str, Route)], edits: &[(&str, Edit)], in_use: bool, pointers: &[&str]) {
    let errors = match apply(before, false, edits).expect_err("invalid") {
        Invalid::PortInUse(errors) if in_use => errors,
        Invalid::Routes(errors) if !in_use => errors,
        other => panic!("{other:?}"),
    };
    assert_eq!(errors.listed().iter().map(|error| error.pointer.as_str()).collect::<Vec<_>>(), pointers, "{errors:?}");
}

#[test]
fn patches() {
    let [a, b] = two();
    check(false, &[], &[a.clone(), b.clone()], (0, 0, 0), &[]);
    check(false, &[("a", set(1))], &[a.clone(), b.clone()], (0, 0, 0), &[]);
    check(false, &[("x", Edit::Remove)], &[a.clone(), b.clone()], (0, 0, 0), &[]);
    check(false, &[("a", Edit::Remove)], std::slice::from_ref(&b), (0, 0, 1), &[]);
    check(false, &[("c", set(3))], &[a, b.clone(), ("c", Route::active(3))], (1, 0, 0), &[]);
    check(false, &[("a", set(3))], &[("a", Route::active(3)), b], (0, 1, 0), &[]);
}

#[test]
fn merges_members_of_a_route() {
    let merge = |port, state| Edit::Merge(Merge { port, state, ..Merge::default() });
    let [a, b] = two();
    check(false, &[("a", merge(None, Some(RouteState::Draining)))], &[("a", Route::draining(1)), b.clone()], (0, 1, 0), &[]);
    check(false, &[("b", merge(Some(3), None))], &[a.clone(), ("b", Route::draining(3))], (0, 1, 0), &[]);
    check(false, &[("c", merge(Some(3), None))], &[a, b, ("c", Route::active(3))], (1, 0, 0), &[]);
    check_error(&two(), &[("c", merge(None, None)), ("d", merge(None, None))], false, &["/routes/c", "/routes/d"]);
}

#[test]
fn merges_endpoints_one_by_one() {
    let before = [("a", with(1, &[("rest", 11), ("ui", 12)]))];
    let merge = |endpoints: &[(&str, Option<u16>)]| {
        let each = endpoints.iter().map(|(text, port)| (name(text), *port)).collect();
        Edit::Merge(Merge { endpoints: MergeEndpoints::Each(each), ..Merge::default() })
    };
    let check = |edit: Edit, after: Route, changed| {
        check_on(&before, false, &[("a", edit)], &[("a", after)], (0, changed, 0), &[]);
    };
    check(merge(&[]), before[0].1.clone(), 0);
    check(merge(&[("ui", Some(13))]), with(1, &[("rest", 11), ("ui", 13)]), 1);
    check(merge(&[("ui", None), ("x", Some(14))]), with(1, &[("rest", 11), ("x", 14)]), 1);
    check(merge(&[("absent", None)]), before[0].1.clone(), 0);
    check(Edit::Merge(Merge { endpoints: MergeEndpoints::Clear, ..Merge::default() }), Route::active(1), 1);
    let many: Vec<(String, Option<u16>)> = (0..7).map(|n| (format!("e{n}"), Some(20 + n))).collect();
    let many: Vec<(&str, Option<u16>)> = many.iter().map(|(name, port)| (name.as_str(), *port)).collect();
    check_error(&before, &[("a", merge(&many))], false, &["/routes/a"]);
    check_error(&before, &[("new", merge(&[("rest", Some(30))]))], false, &["/routes/new"]);
}

#[test]
fn a_port_taken_by_another_id_displaces_the_old_owner() {
    let b = || ("b", Route::draining(2));
    check(false, &[("c", set(1))], &[b(), ("c", Route::active(1))], (1, 0, 1), &["a"]);
    check(false, &[("a", set(2))], &[("a", Route::active(2))], (0, 1, 1), &["b"]);
    let both = [("c", Route::active(1)), ("d", Route::active(2))];
    check(false, &[("c", set(1)), ("d", set(2))], &both, (2, 0, 2), &["a", "b"]);
    // An owner that gets another port in the same write has moved, and is not displaced.
    let swapped = [("a", Route::active(2)), ("b", Route::active(1))];
    check(false, &[("a", set(2)), ("b", set(1))], &swapped, (0, 2, 0), &[]);
    check(true, &[("c", set(1))], &[("c", Route::active(1))], (1, 0, 2), &["a"]);
    check(true, &[("c", set(3))], &[("c", Route::active(3))], (1, 0, 2), &[]);
}

#[test]
fn any_endpoint_taken_displaces_the_whole_route() {
    let before = [("a", with(1, &[("rest", 11), ("ui", 12)])), ("b", Route::active(2))];
    let b = || ("b", Route::active(2));
    for taken in [1, 11, 12] {
        check_on(&before, false, &[("c", set(taken))], &[b(), ("c", Route::active(taken))], (1, 0, 1), &["a"]);
        let c = || with(40, &[("x", taken)]);
        check_on(&before, false, &[("c", Edit::Set(c()))], &[b(), ("c", c())], (1, 0, 1), &["a"]);
    }
    // A route may serve several endpoints on one port, and exchange its own ports.
    let one = with(5, &[("rest", 5), ("ui", 5)]);
    check_on(&before, false, &[("b", Edit::Set(one.clone()))], &[before[0].clone(), ("b", one)], (0, 1, 0), &[]);
    let turned = with(11, &[("rest", 1), ("ui", 12)]);
    check_on(&before, false, &[("a", Edit::Set(turned.clone()))], &[("a", turned), b()], (0, 1, 0), &[]);
    // A port that its owner gives up in the same write displaces nobody.
    let edits = [("a", set(1)), ("b", set(12))];
    check_on(&before, false, &edits, &[("a", Route::active(1)), ("b", Route::active(12))], (0, 2, 0), &[]);
}

#[test]
fn replaces() {
    let [a, b] = two();
    check(true, &[], &[], (0, 0, 2), &[]);
    check(true, &[("a", set(1)), ("b", Edit::Set(Route::draining(2)))], &[a, b], (0, 0, 0), &[]);
}

#[test]
fn one_port_for_two_ids_is_an_error() {
    let error = apply(&two(), true, &[("c", set(5)), ("d", set(5)), ("e", set(5))]).expect_err("rejected");
    let Invalid::PortInUse(errors) = error else { panic!("{error:?}") };
    assert_eq!(errors.listed().iter().map(|error| error.pointer.as_str()).collect::<Vec<_>>(), ["/routes/d", "/routes/e"]);
    // An edit that keeps its port claims it too.
    let keeps = Edit::Merge(Merge { state: Some(RouteState::Draining), ..Merge::default() });
    check_error(&two(), &[("a", keeps), ("c", set(1))], true, &["/routes/c"]);
    let both = [("c", Edit::Set(with(5, &[("rest", 6)]))), ("d", Edit::Set(with(6, &[("ui", 5)])))];
    check_error(&[], &both, true, &["/routes/d/endpoints/ui", "/routes/d"]);
}

#[test]
fn the_number_of_routes_is_limited() {
    check_error(&two(), &[("c", set(3)), ("d", set(4))], false, &["/routes"]);
    // Displacing an owner makes room.
    assert!(apply(&two(), false, &[("c", set(3)), ("d", set(1))]).is_ok());
}
