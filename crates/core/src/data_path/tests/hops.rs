//! Requests that go to peers, come from them, and come back.

use super::*;
use crate::fleet::tests::{at, draining};
use crate::hop::tests::fleet;
use crate::hop::{Failure, MISDIRECTED_HEADER, Outcome, Trail};
use std::net::IpAddr;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const CONFIG: &[u8] = br#"{"role":"router","host_suffix":".h.test","deployments_claim":"d","fallback_port":9,
    "fleet":{"port":50050,"local":"127.0.0.1"}}"#;
/// {"d":"*"}
const EVERY: (&str, &str) = ("x-pixell-claims", "eyJkIjoiKiJ9");

/// `a` is here, `b` and `c` drain here, the fleet has `b`, `e` and `f`; of `g` it has draining peers alone.
fn worker() -> Maps {
    let peers = [("p", at(1)), ("q", at(2)), ("d", draining(3))];
    let routes: [(&str, &[&str]); 5] = [("a", &["p"]), ("b", &["p"]), ("e", &["p", "q"]), ("f", &["d", "q"]), ("g", &["d"])];
    let routes_here = [("a", Route::active(2000)), ("b", Route::draining(2001)), ("c", Route::draining(2002))];
    Maps { fleet: fleet(&peers, &routes), ..maps(&routes_here) }
}

fn host(last: u8) -> IpAddr {
    [10, 0, 1, last].into()
}

fn judged(judges: Judges, shown: &Shown, maps: &mut Maps) -> Verdict {
    DataPath::new(&RouterConfig::parse(CONFIG).expect("valid"), judges).judge(shown, maps)
}

#[track_caller]
fn hop(verdict: Verdict) -> Hop {
    let Verdict::Hop(hop) = verdict else { panic!("{verdict:?}") };
    *hop
}

fn code(verdict: &Verdict) -> &'static str {
    if let Verdict::Reject(rejected) = verdict { rejected.code } else { panic!("{verdict:?}") }
}

#[test]
fn the_edge_decides_in_the_order_of_the_contract() {
    let by = |id: &'static str, failed: &[u8]| {
        let mut maps = worker();
        failed.iter().for_each(|last| maps.failed.add(host(*last), Failure::Unreachable, Duration::ZERO));
        judged(Judges::Requests, &Shown { headers: vec![("x-deployment-id", id), EVERY], ..Shown::default() }, &mut maps)
    };
    assert!(matches!(by("a", &[]), Verdict::Forward { port: 2000, .. }), "an active route here goes first");
    assert_eq!(hop(by("b", &[])).address, "10.0.1.1:50050".parse().expect("an address"));
    assert_eq!(code(&by("b", &[1])), "deployment_draining");
    assert_eq!(code(&by("c", &[])), "deployment_draining");
    assert_eq!(hop(by("e", &[])).address.ip(), host(1));
    assert_eq!(hop(by("e", &[1])).address.ip(), host(2));
    assert_eq!(code(&by("e", &[1, 2])), "peer_unreachable");
    assert_eq!(hop(by("f", &[])).address.ip(), host(2));
    // A peer that ended a connection is tried if there is no better one.
    let closed = |id: &'static str, closed: &[u8]| {
        let mut maps = worker();
        closed.iter().for_each(|last| maps.failed.add(host(*last), Failure::Closed, Duration::ZERO));
        judged(Judges::Requests, &Shown { headers: vec![("x-deployment-id", id), EVERY], ..Shown::default() }, &mut maps)
    };
    assert_eq!(hop(closed("e", &[1])).address.ip(), host(2));
    assert_eq!(hop(closed("e", &[1, 2])).address.ip(), host(1));
    assert_eq!(hop(closed("b", &[1])).address.ip(), host(1), "a move goes on, although one connection has ended");
    assert_eq!(code(&by("g", &[])), "deployment_draining");
    assert!(matches!(by("x", &[]), Verdict::Forward { port: 9, .. }));
}

#[test]
fn without_every_map_an_unknown_id_is_not_unknown() {
    let config = br#"{"role":"router","fleet":{"port":1,"local":"::1"}}"#;
    let data_path = DataPath::new(&RouterConfig::parse(config).expect("valid"), Judges::Requests);
    let of = |id: &'static str, mut maps: Maps| {
        data_path.judge(&Shown { headers: vec![("x-deployment-id", id)], ..Shown::default() }, &mut maps)
    };
    let here = || maps(&[("a", Route::active(2000))]);
    assert!(matches!(of("a", here()), Verdict::Forward { .. }), "an active route here needs no fleet map");
    assert_eq!(code(&of("x", here())), "route_map_not_loaded");
    assert_eq!(code(&of("x", Maps { routes: RouteCache::default(), ..worker() })), "route_map_not_loaded");
    assert!(matches!(of("e", Maps { routes: RouteCache::default(), ..worker() }), Verdict::Hop(_)));
    assert_eq!(code(&of("x", worker())), "unknown_deployment");
}

#[test]
fn a_hop_says_how_the_agent_was_named() {
    let of = |headers: &[(&'static str, &'static str)], path, authority| {
        let headers = headers.iter().copied().chain([EVERY]).collect();
        hop(judged(Judges::Requests, &Shown { headers, path, authority, ..Shown::default() }, &mut worker()))
    };
    let check = |hop: Hop, id: Option<&str>, is_addressed| {
        assert_eq!((hop.id.as_deref(), hop.is_addressed), (id.map(str::as_bytes), is_addressed));
        assert_eq!(Trail::parse(&hop.trail), Some(Trail::to(host(1))));
    };
    check(of(&[("x-deployment-id", "e")], "/", ""), None, false);
    check(of(&[("x-deployment-id", "e, e")], "/agents/a", ""), Some("e"), false);
    check(of(&[("deployment-id", "e")], "/", ""), Some("e"), false);
    check(of(&[], "/agents/e/ui/x", ""), Some("e"), true);
    check(of(&[], "/", "e.h.test"), Some("e"), true);
}

#[test]
fn a_token_is_asked_before_the_fleet_map_and_by_the_edge_alone() {
    let headers = vec![("x-deployment-id", "e"), ("x-pixell-claims", "e30")];
    let shown = Shown { headers, ..Shown::default() };
    assert_eq!(code(&judged(Judges::Requests, &shown, &mut worker())), "not_allowed");
    let shown = Shown { headers: vec![("x-deployment-id", "a")], ..Shown::default() };
    assert!(matches!(judged(Judges::Incoming, &shown, &mut worker()), Verdict::Forward { port: 2000, .. }));
}

#[test]
fn the_owner_serves_its_own_active_routes_and_sends_nothing_on() {
    let by = |id: &'static str| {
        judged(Judges::Incoming, &Shown { headers: vec![("x-deployment-id", id)], ..Shown::default() }, &mut worker())
    };
    assert!(matches!(by("a"), Verdict::Forward { port: 2000, .. }));
    for id in ["b", "c", "e", "g", "x"] {
        let Verdict::Reject(rejected) = by(id) else { panic!("{id}") };
        assert!(rejected.is_misdirected && rejected.code == "deployment_moved", "{id}: {rejected:?}");
        assert!(rejected.headers().contains(&(MISDIRECTED_HEADER, "1")));
    }
    let Verdict::Reject(rejected) = by("a,b") else { panic!("invalid") };
    assert!(!rejected.is_misdirected && rejected.code == "invalid_deployment_id");
    let shown = Shown { headers: vec![("x-deployment-id", "a")], ..Shown::default() };
    let Verdict::Reject(rejected) = judged(Judges::Incoming, &shown, &mut Maps::default()) else { panic!("no map") };
    assert!(rejected.is_misdirected, "another task may have the agent");
}

#[test]
fn the_owner_strips_what_the_edge_left() {
    let of = |marked: bool| {
        let marker = marked.then_some(("x-pixell-addressed", "1"));
        let headers = marker.into_iter().chain([("x-deployment-id", "a")]).collect();
        let shown = Shown { headers, path: "/agents/a/ui/x?y", authority: "c.test", ..Shown::default() };
        judged(Judges::Incoming, &shown, &mut worker())
    };
    let Verdict::Forward { port: 2000, changes: Some(changes), .. } = of(true) else { panic!("by path") };
    assert_eq!((changes.path.as_deref(), changes.prefix.as_deref()), (Some(&b"/x?y"[..]), Some(&b"/agents/a/ui"[..])));
    assert!(changes.note.is_some());
    assert!(matches!(of(false), Verdict::Forward { changes: None, .. }), "a header named it");
}

/// The settings of two tasks may differ, as while they change one after the other.
#[test]
fn the_owner_serves_what_the_edge_has_decided_or_nothing() {
    let by = |headers: &[(&'static str, &'static str)], path, authority| {
        let shown = Shown { headers: headers.to_vec(), path, authority, ..Shown::default() };
        judged(Judges::Incoming, &shown, &mut worker())
    };
    let is_back = |verdict: Verdict| {
        let Verdict::Reject(rejected) = verdict else { panic!("{verdict:?}") };
        assert!(rejected.is_misdirected && rejected.code == "deployment_moved", "{rejected:?}");
    };
    // The header by which the client named the agent is one of the client's, and another one here.
    assert!(matches!(by(&[("deployment-id", "a"), ("x-deployment-id", "b")], "/agents/a", "a.h.test"), Verdict::Reject(_)));
    let verdict = by(&[("deployment-id", "b"), ("x-deployment-id", "a")], "/agents/b", "b.h.test");
    assert!(matches!(&verdict, Verdict::Forward { id, .. } if *id == *b"a"), "{verdict:?}");
    // The path names another one here, or none.
    for id in ["b", "a,a", " a"] {
        is_back(by(&[("x-deployment-id", id), ("x-pixell-addressed", "1")], "/agents/a/x", ""));
    }
    is_back(by(&[("x-deployment-id", "a"), ("x-pixell-addressed", "1")], "/other/a/x", ""));
    is_back(by(&[("x-pixell-addressed", "1")], "/agents/a/x", ""));
    assert_eq!(code(&by(&[], "/agents/a/x", "")), "missing_deployment_id");
    let of_host = by(&[("x-deployment-id", "a"), ("x-pixell-addressed", "1")], "/x", "a.h.test");
    assert!(matches!(of_host, Verdict::Forward { changes: Some(_), .. }), "{of_host:?}");
}

#[test]
fn a_request_of_a_peer_goes_back_if_its_agent_moves_while_it_waits() {
    let by = |id: &'static str, bound: u16, is_from_peer: bool, age: u64| {
        let headers = vec![("x-deployment-id", id), ("x-envoy-attempt-count", "2")];
        let age = Duration::from_millis(age);
        let shown = Shown { headers, bound: Some(bound), is_from_peer, age, ..Shown::default() };
        judged(Judges::Attempts, &shown, &mut worker())
    };
    for (id, bound) in [("a", 1999), ("e", 1999), ("x", 1999), ("x", 9)] {
        let Verdict::Reject(rejected) = by(id, bound, true, 0) else { panic!("{id}") };
        assert!(rejected.is_misdirected && rejected.code == "deployment_moved", "{rejected:?}");
    }
    assert_eq!(by("a", 2000, true, 0), Verdict::Continue);
    assert_eq!(by("b", 2001, true, 0), Verdict::Continue);
    let Verdict::Reject(rejected) = by("a", 2000, true, 10_000) else { panic!("old") };
    assert!(!rejected.is_misdirected && rejected.code == "agent_unreachable");
    // Of a client: it is told that it has to try again.
    for (id, bound) in [("a", 1999), ("e", 1999)] {
        let Verdict::Reject(rejected) = by(id, bound, false, 0) else { panic!("{id}") };
        assert!(!rejected.is_misdirected && rejected.code == "deployment_moved", "{rejected:?}");
    }
    assert_eq!(by("x", 9, false, 0), Verdict::Continue);
}

/// Attempts at peers: how they end, which peers count as failed, and where the next one goes.
#[test]
fn the_next_attempt_goes_by_the_maps_as_they_are_now() {
    let data_path = DataPath::new(&RouterConfig::parse(CONFIG).expect("valid"), Judges::Hops);
    let mut maps = worker();
    let attempt = |id: &'static str, trail: Vec<u8>| Shown {
        headers: vec![("x-deployment-id", id)],
        trail: Some(trail),
        ..Shown::default()
    };
    let next = |(outcome, verdict): (Option<Outcome>, Verdict)| {
        let Verdict::Next { address, trail } = verdict else { panic!("{verdict:?}") };
        (outcome, address.map(|address| address.ip()), trail)
    };
    let (outcome, address, trail) = next(data_path.judge_hop(&attempt("e", Trail::to(host(1)).to_bytes()), &mut maps));
    assert_eq!((outcome, address), (None, Some(host(2))));
    // It was not reached, and the other peer is tried.
    let (outcome, address, trail) = next(data_path.judge_hop(&attempt("e", trail), &mut maps));
    assert_eq!((outcome, address), (Some(Outcome::Unreachable), None));
    assert_eq!([1, 2].map(|last| maps.failed.of(host(last))), [Some(Failure::Unreachable), None]);
    let (outcome, verdict) = data_path.judge_hop(&Shown { returns: 1, ..attempt("e", trail.clone()) }, &mut maps);
    assert_eq!((outcome, code(&verdict)), (Some(Outcome::Returned), "peer_unreachable"));
    // The only peer is tried twice, and has not failed before that.
    let mut maps = worker();
    let (_, _, trail) = next(data_path.judge_hop(&attempt("b", Trail::to(host(1)).to_bytes()), &mut maps));
    let (outcome, address, only) = next(data_path.judge_hop(&attempt("b", trail.clone()), &mut maps));
    assert_eq!((outcome, address, maps.failed.of(host(1))), (Some(Outcome::Unreachable), None, None));
    let (outcome, verdict) = data_path.judge_hop(&attempt("b", only), &mut maps);
    assert_eq!((outcome, code(&verdict)), (Some(Outcome::Unreachable), "peer_unreachable"));
    assert_eq!(maps.failed.of(host(1)), Some(Failure::Unreachable));
    // Meanwhile the agent may have moved here.
    let (_, address, _) = next(data_path.judge_hop(&attempt("a", Trail::to(host(1)).to_bytes()), &mut maps));
    assert_eq!(address, Some([127, 0, 0, 1].into()));
    for broken in [Shown { trail: None, ..attempt("e", trail.clone()) }, attempt("e", b"?".to_vec()), attempt("", trail)] {
        let broken =
            Shown { headers: broken.headers.iter().copied().filter(|(_, value)| !value.is_empty()).collect(), ..broken };
        assert_eq!(code(&data_path.judge_hop(&broken, &mut maps).1), "internal");
    }
}

/// What is learned of a peer when its request ends.
#[test]
fn the_end_of_a_request_tells_whether_its_peer_has_failed() {
    let data_path = DataPath::new(&RouterConfig::parse(CONFIG).expect("valid"), Judges::Requests);
    let end = |trail: &[u8], shown: Shown| {
        let mut maps = worker();
        let now = Duration::from_secs(9);
        let shown = Shown { trail: Some(trail.to_vec()), now, ..shown };
        let failure = data_path.end_hop(&shown, now.saturating_sub(shown.age), &mut maps);
        assert_eq!(maps.failed.of(host(1)), failure);
        assert_eq!(maps.failed.of(host(2)), None);
        failure
    };
    let attempt = |trail: &[u8]| {
        let shown = Shown { headers: vec![("x-deployment-id", "e")], trail: Some(trail.to_vec()), ..Shown::default() };
        let Verdict::Next { trail, .. } =
            DataPath::new(&RouterConfig::parse(CONFIG).expect("valid"), Judges::Hops).judge(&shown, &mut worker())
        else {
            panic!("it may go on")
        };
        trail
    };
    let before = Trail::to(host(1)).to_bytes();
    let first = attempt(&before);
    let closed = || Shown {
        details: Some("upstream_reset_before_response_started{connection_termination}"),
        was_connected: true,
        ..Shown::default()
    };
    assert_eq!(end(&first, closed()), Some(Failure::Closed));
    assert_eq!(end(&before, closed()), None, "it was at no peer yet");
    let refused =
        Shown { details: Some("upstream_reset_before_response_started{remote_connection_failure}"), ..Shown::default() };
    assert_eq!(end(&first, refused), Some(Failure::Unreachable));
    // Its client ended it: after so long a wait, early, or when the peer had it.
    let cancelled = |milliseconds, was_connected, returns| {
        let age = Duration::from_millis(milliseconds);
        Shown { age, was_connected, returns, details: Some("http2.remote_reset"), ..Shown::default() }
    };
    assert_eq!(end(&first, cancelled(250, false, 0)), Some(Failure::Unreachable));
    assert_eq!(end(&first, cancelled(249, false, 0)), None);
    assert_eq!(end(&first, cancelled(60_000, true, 0)), None);
    // Its only peer was asked a second time meanwhile.
    let maps = &mut worker();
    let only = |trail, age| Shown { headers: vec![("x-deployment-id", "b")], trail: Some(trail), age, ..Shown::default() };
    let second = [0, 250].into_iter().fold(Trail::to(host(1)).to_bytes(), |trail, milliseconds| {
        let hops = DataPath::new(&RouterConfig::parse(CONFIG).expect("valid"), Judges::Hops);
        let (_, verdict) = hops.judge_hop(&only(trail, Duration::from_millis(milliseconds)), maps);
        let Verdict::Next { trail, .. } = verdict else { panic!("{verdict:?}") };
        trail
    });
    assert_eq!(maps.failed.of(host(1)), None);
    assert_eq!(end(&second, cancelled(300, false, 0)), Some(Failure::Unreachable));
    // An attempt that had no host left has told of it.
    let mut maps = worker();
    maps.failed.add(host(1), Failure::Unreachable, Duration::from_secs(8));
    let rejected = Shown { trail: Some(first.clone()), now: Duration::from_secs(9), ..cancelled(250, false, 0) };
    assert_eq!(data_path.end_hop(&rejected, Duration::from_millis(8_750), &mut maps), None);
    // Limits of this Envoy.
    for details in ["overflow", "local_connection_failure"] {
        let details = format!("upstream_reset_before_response_started{{{details}}}");
        let limited = Shown { details: Some(details.leak()), ..cancelled(60_000, false, 0) };
        assert_eq!(end(&first, limited), None);
    }
    // The peer sent it back, and the next attempt was rejected.
    assert_eq!(end(&first, cancelled(60_000, false, 1)), None);
    // This task itself, and requests without a trail or without a fleet.
    assert_eq!(
        end(&Trail::parse(&attempt(&Trail::to([127, 0, 0, 1].into()).to_bytes())).expect("a trail").to_bytes(), closed()),
        None
    );
    assert_eq!(data_path.end_hop(&Shown { trail: None, ..closed() }, Duration::ZERO, &mut worker()), None);
    let alone = DataPath::new(&RouterConfig::parse(br#"{"role":"router"}"#).expect("valid"), Judges::Requests);
    assert_eq!(alone.end_hop(&Shown { trail: Some(first), ..closed() }, Duration::ZERO, &mut worker()), None);
}
