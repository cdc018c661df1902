//! Requests to the route API, step by step: what passes, what is gathered, and what is rejected before its body.

use super::*;
use crate::admin::token::Token;
use crate::config::AdminConfig;
use crate::store::memory::{MemoryData, MemorySignal};
use crate::store::{ROUTE_MAP, prepare};
use crate::timestamp::Timestamp;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

struct Fixture {
    admin: Admin,
    data: MemoryData,
    signal: MemorySignal,
}

impl Fixture {
    fn new() -> Self {
        let config = AdminConfig::parse(br#"{"role":"admin","max_body_bytes":30}"#).expect("valid");
        let fixture = Self { admin: Admin::new(config, None), data: MemoryData::default(), signal: MemorySignal::default() };
        prepare(&fixture.data, &ROUTE_MAP);
        fixture
    }

    fn backend(&self) -> Backend<'_, MemoryData, MemorySignal> {
        Backend { data: &self.data, signal: &self.signal, new_epoch: || 7, now: Timestamp::default }
    }

    fn begin(&self, method: &str, target: &str, ends: bool) -> (Exchange, Step) {
        let head = OwnedHead::read(|name| match name {
            ":method" => Some(method.into()),
            ":path" => Some(target.into()),
            ":authority" => Some(b"localhost".to_vec()),
            "content-type" => Some(b"application/json".to_vec()),
            _ => None,
        });
        let mut exchange = Exchange::default();
        let step = exchange.on_head(&self.admin, &head, ends, &self.backend());
        (exchange, step)
    }
}

/// The status of a response that is sent now, and what is recorded with it.
#[track_caller]
fn status(step: &Step) -> (u16, Outcome) {
    match step {
        Step::Record { outcome, next, .. } => (sent(next), *outcome),
        other => panic!("{other:?}"),
    }
}

/// The status of a response that is sent now, after its outcome has been recorded.
#[track_caller]
fn sent(step: &Step) -> u16 {
    match step {
        Step::Response(response) => response.status,
        other => panic!("{other:?}"),
    }
}

/// A rejection whose response waits.
fn waits(outcome: Outcome, map: Map, code: &'static str, meanwhile: Step) -> Step {
    Step::Record { outcome, map, code: Some(code), next: Box::new(meanwhile) }
}

#[test]
fn other_paths_pass() {
    let fixture = Fixture::new();
    let (mut exchange, step) = fixture.begin("GET", "/stats", true);
    assert_eq!(step, Step::Pass);
    assert_eq!(exchange.on_body(&fixture.admin, 99, true), Step::Pass);
    assert_eq!(exchange.finish(&fixture.admin, b"", &fixture.backend()), Step::Pass);
}

#[test]
fn envoys_list_of_agents_needs_the_token_as_the_map_does() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.begin("GET", "/clusters?format=json", true).1, Step::Pass);
    assert_eq!(fixture.begin("GET", "/clusters", false).1, Step::Wait);
    fixture.admin.api.token = Some(Token::parse("s3cret-s3cret-s3cret").expect("valid"));
    for target in ["/clusters", "/clusters?format=json", "/clusters/", "/clusters#"] {
        assert_eq!(status(&fixture.begin("GET", target, true).1), (401, Outcome::Read), "{target}");
    }
    assert_eq!(fixture.begin("GET", "/stats", true).1, Step::Pass);
}

#[test]
fn a_body_that_nothing_asks_for_is_ignored_if_it_is_short() {
    let mut fixture = Fixture::new();
    fixture.admin.unfinished = Unfinished::new(2000, 4);
    for trailers in [false, true] {
        let (mut exchange, step) = fixture.begin("GET", "/stats", false);
        assert_eq!(step, Step::Wait);
        assert_eq!(exchange.on_body(&fixture.admin, 4096, false), Step::Wait);
        let last = if trailers { exchange.on_trailers(&fixture.admin) } else { exchange.on_body(&fixture.admin, 4096, true) };
        assert_eq!(last, Step::Pass);
    }
    let (mut exchange, _) = fixture.begin("GET", "/ready", false);
    assert_eq!(status(&exchange.on_body(&fixture.admin, 4097, true)), (413, Outcome::Read));
    let (mut exchange, _) = fixture.begin("GET", "/ready", false);
    let rejected = waits(Outcome::Read, Map::Routes, "payload_too_large", Step::DropBody);
    assert_eq!(exchange.on_body(&fixture.admin, 4097, false), rejected);
    assert_eq!(sent(&exchange.on_body(&fixture.admin, 1, true)), 413);
    // Many short ones are bounded together.
    let (mut one, _) = fixture.begin("GET", "/ready", false);
    assert_eq!(one.on_body(&fixture.admin, 4000, false), Step::Wait);
    let (mut two, _) = fixture.begin("POST", "/nothing", false);
    assert_eq!(two.on_body(&fixture.admin, 4000, false), Step::Wait);
    let (mut three, _) = fixture.begin("GET", "/ready", false);
    assert_eq!(status(&three.on_body(&fixture.admin, 4000, false)), (503, Outcome::Read));
    drop((one, two));
    let (mut four, _) = fixture.begin("GET", "/ready", false);
    assert_eq!(four.on_body(&fixture.admin, 4000, false), Step::Wait);
}

#[test]
fn unfinished_writes_are_bounded_together() {
    let fixture = Fixture::new();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let (mut exchange, _) = fixture.begin("PUT", "/v1/routes/a", false);
        assert_eq!(exchange.on_body(&fixture.admin, 30, false), Step::Wait);
        waiting.push(exchange);
    }
    let (mut one_more, _) = fixture.begin("PUT", "/v1/routes/a", false);
    assert_eq!(status(&one_more.on_body(&fixture.admin, 1, false)), (503, Outcome::Rejected("overloaded")));
    // A body that is whole needs no room.
    let (mut whole, _) = fixture.begin("PUT", "/v1/routes/a", false);
    assert_eq!(whole.on_body(&fixture.admin, 4, true), Step::ReadBody { most: 4 });
    assert_eq!(status(&whole.finish(&fixture.admin, b"2000", &fixture.backend())), (201, Outcome::Published { displaced: 0 }));
    waiting.pop();
    let (mut next, _) = fixture.begin("PUT", "/v1/routes/a", false);
    assert_eq!(next.on_body(&fixture.admin, 20, false), Step::Wait);
    assert_eq!(next.on_trailers(&fixture.admin), Step::ReadBody { most: 20 });
}

#[test]
fn writes_to_the_fleet_map_have_limits_of_their_own() {
    let config = r#"{"role":"admin","max_body_bytes":30,"fleet":{"peer_cidrs":["10.0.0.0/8"],"max_body_bytes":100}}"#;
    let mut fixture = Fixture::new();
    fixture.admin = Admin::new(AdminConfig::parse(config.as_bytes()).expect("valid"), None);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let (mut exchange, _) = fixture.begin("PUT", "/v1/fleet", false);
        assert_eq!(exchange.on_body(&fixture.admin, 100, false), Step::Wait);
        waiting.push(exchange);
    }
    let (mut one_more, _) = fixture.begin("PATCH", "/v1/fleet?dry_run=true", false);
    let step = one_more.on_body(&fixture.admin, 1, false);
    assert_eq!(status(&step), (503, Outcome::Rejected("overloaded")));
    assert!(matches!(step, Step::Record { map: Map::Fleet, .. }), "{step:?}");
    // They leave room for writes of routes.
    let (mut route, _) = fixture.begin("PUT", "/v1/routes/a", false);
    assert_eq!(route.on_body(&fixture.admin, 30, false), Step::Wait);
    waiting.clear();
    let (mut large, _) = fixture.begin("PUT", "/v1/fleet", false);
    assert_eq!(large.on_body(&fixture.admin, 101, false), Step::ReadBody { most: 101 });
    let rejected = waits(Outcome::Rejected("payload_too_large"), Map::Fleet, "payload_too_large", Step::DropBody);
    assert_eq!(large.finish(&fixture.admin, &[b' '; 101], &fixture.backend()), rejected);
    assert_eq!(sent(&large.on_trailers(&fixture.admin)), 413);
}

#[test]
fn what_needs_no_body_gets_its_response_at_once() {
    let fixture = Fixture::new();
    assert_eq!(status(&fixture.begin("GET", "/", true).1), (200, Outcome::Read));
    assert_eq!(status(&fixture.begin("GET", "/v1/status", true).1), (200, Outcome::Read));
    // A rejected read is not counted, a rejected write is.
    assert_eq!(status(&fixture.begin("GET", "/v1/nowhere", true).1), (404, Outcome::Read));
    assert_eq!(status(&fixture.begin("PUT", "/v1/nowhere", true).1), (404, Outcome::Rejected("not_found")));
    assert_eq!(status(&fixture.begin("PUT", "/v1/routes", true).1), (400, Outcome::Rejected("malformed_json")));
}

#[test]
fn a_body_is_gathered_and_a_large_one_is_cut() {
    let fixture = Fixture::new();
    let (mut exchange, step) = fixture.begin("PUT", "/v1/routes/a", false);
    assert_eq!(step, Step::Wait);
    assert_eq!(exchange.on_body(&fixture.admin, 30, false), Step::Wait);
    assert_eq!(exchange.on_body(&fixture.admin, 30, true), Step::ReadBody { most: 30 });
    assert_eq!(
        status(&exchange.finish(&fixture.admin, b"2000", &fixture.backend())),
        (201, Outcome::Published { displaced: 0 })
    );
    assert_eq!(exchange.finish(&fixture.admin, b"2000", &fixture.backend()), Step::Pass);
    let (mut exchange, _) = fixture.begin("PUT", "/v1/routes/a", false);
    assert_eq!(exchange.on_body(&fixture.admin, 31, false), Step::ReadBody { most: 31 });
    let rejected = waits(Outcome::Rejected("payload_too_large"), Map::Routes, "payload_too_large", Step::DropBody);
    assert_eq!(exchange.finish(&fixture.admin, &[b' '; 31], &fixture.backend()), rejected);
    assert_eq!(sent(&exchange.on_body(&fixture.admin, 1, true)), 413);
}

#[test]
fn a_rejection_is_recorded_and_waits_for_the_end_of_the_body_which_is_dropped() {
    let fixture = Fixture::new();
    for (method, target, expected, code) in [
        ("POST", "/ready/traffic", 405, "method_not_allowed"),
        ("GET", "/v1/nowhere", 404, "not_found"),
        ("PUT", "/v1/nowhere", 404, "not_found"),
        ("PUT", "/v1/fleet", 409, "fleet_disabled"),
        ("DELETE", "/v1/routes/a?x", 400, "invalid_query"),
    ] {
        // The client may never end its body, or go away. A rejected write counts all the same.
        let counts = target.starts_with("/v1/") && method != "GET";
        let outcome = if counts { Outcome::Rejected(code) } else { Outcome::Read };
        let rejected = || waits(outcome, Map::of_path(target.as_bytes()), code, Step::Wait);
        for trailers in [false, true] {
            let (mut exchange, step) = fixture.begin(method, target, false);
            assert_eq!(step, rejected(), "{target}");
            assert_eq!(exchange.on_body(&fixture.admin, MOST_DROPPED - 1, false), Step::DropBody, "{target}");
            let last = if trailers { exchange.on_trailers(&fixture.admin) } else { exchange.on_body(&fixture.admin, 0, true) };
            assert_eq!(sent(&last), expected, "{target}");
            assert_eq!(exchange.on_body(&fixture.admin, 1, true), Step::Pass);
        }
        // It does not wait for ever.
        let (mut exchange, _) = fixture.begin(method, target, false);
        assert_eq!(exchange.on_body(&fixture.admin, MOST_DROPPED / 2, false), Step::DropBody, "{target}");
        assert_eq!(sent(&exchange.on_body(&fixture.admin, MOST_DROPPED / 2, false)), expected, "{target}");
    }
}

#[test]
fn a_reply_that_waits_is_small() {
    let mut fixture = Fixture::new();
    let long = "%FF".repeat(20_000);
    let check = |fixture: &Fixture, method: &str, target: &str| {
        let (exchange, _) = fixture.begin(method, target, false);
        let Some(Waiting::Response(response, _)) = &exchange.waiting else { panic!("{method} {target}") };
        let Step::Response(response) = response.as_ref() else { panic!("{response:?}") };
        assert!(response.body.len() < 1024, "{}", response.body);
    };
    for method in ["GET", "PUT", "DELETE"] {
        for target in [format!("/v1/{long}"), format!("/v1/routes/{long}"), format!("/v1/routes/a?{long}")] {
            check(&fixture, method, &target);
        }
    }
    check(&fixture, "POST", &format!("/ready/traffic?{long}"));
    fixture.admin.api.token = Some(Token::parse("s3cret-s3cret-s3cret").expect("valid"));
    check(&fixture, "GET", &format!("/clusters?{long}"));
}

#[test]
fn every_other_response_comes_before_the_end_of_the_body() {
    let fixture = Fixture::new();
    for (method, target, expected) in [
        ("GET", "/", (200, Outcome::Read)),
        ("GET", "/ready/traffic", (503, Outcome::Read)),
        ("GET", "/v1/status", (200, Outcome::Read)),
        ("GET", "/v1/routes", (200, Outcome::Read)),
        ("HEAD", "/v1/routes", (200, Outcome::Read)),
        ("DELETE", "/v1/routes/a", (204, Outcome::Confirmed)),
    ] {
        let (exchange, step) = fixture.begin(method, target, false);
        assert_eq!(status(&step), expected, "{method} {target}");
        assert!(exchange.waiting.is_none(), "{method} {target}");
    }
}
