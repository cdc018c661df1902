//! The route API called as a function, over a store in memory.

use super::*;
use crate::store::memory::{MemoryData, MemorySignal};
use crate::store::tests::Hooked;
use crate::store::{FLEET_MAP, ROUTE_MAP, prepare};
use crate::timestamp::Timestamp;
use serde_json::{Value, json};
use std::cell::Cell;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod fleet;

const EPOCH: u64 = 0x1234;

thread_local! {
    /// Seconds since 1970: 2027-01-15T08:00:00Z until the test says something else.
    static NOW: Cell<u64> = const { Cell::new(1_800_000_000) };
}

fn now() -> Timestamp {
    Timestamp::from_unix(NOW.get())
}

fn fleet_off() -> Value {
    json!({"enabled": false, "loaded": false, "epoch": "0", "generation": 0, "peers": 0, "routes": 0})
}

/// An API over a map in memory.
struct Fixture {
    api: RouteApi,
    data: MemoryData,
    signal: MemorySignal,
}

impl Fixture {
    fn new() -> Self {
        Self::with(r#"{"role":"admin","max_routes":4,"max_body_bytes":500}"#, None)
    }

    fn with(config: &str, token: Option<&str>) -> Self {
        let config = AdminConfig::parse(config.as_bytes()).expect("valid");
        let token = token.map(|token| Token::parse(token).expect("valid"));
        let fixture = Self { api: RouteApi { config, token }, data: MemoryData::default(), signal: MemorySignal::default() };
        prepare(&fixture.data, &ROUTE_MAP);
        prepare(&fixture.data, &FLEET_MAP);
        fixture
    }

    fn call(&self, method: &str, target: &str, body: &str) -> Response {
        self.send(Head { method: method.as_bytes(), target: target.as_bytes(), ..Head::default() }, body)
    }

    fn send(&self, head: Head<'_>, body: &str) -> Response {
        self.send_on(&self.data, head, body)
    }

    /// As [`Self::send`], on another view of the data.
    fn send_on(&self, data: &impl SharedData, head: Head<'_>, body: &str) -> Response {
        let head = Head { content_type: Some(b"application/json"), host: head.host.or(Some(b"127.0.0.1:9901")), ..head };
        let backend = Backend { data, signal: &self.signal, new_epoch: || EPOCH, now };
        match self.api.begin(&head, &backend) {
            Begun::Done(response) => response,
            Begun::NeedsBody(call) => self.api.finish(&call, body.as_bytes(), &backend),
        }
    }

    #[track_caller]
    fn check(&self, method: &str, target: &str, body: &str, status: u16, expected: Value) {
        let response = self.call(method, target, body);
        let mut found =
            if response.body.is_empty() { Value::Null } else { serde_json::from_str(&response.body).expect("JSON") };
        // Its words are `response`'s.
        let warning = found.as_object_mut().and_then(|members| members.remove("warning"));
        assert_eq!(warning.is_some(), found["displaced"].as_array().is_some_and(|ids| !ids.is_empty()), "{}", response.body);
        assert_eq!((response.status, found), (status, expected));
    }
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
}

fn code(response: &Response) -> String {
    let body: Value = serde_json::from_str(&response.body).expect("JSON");
    assert_eq!(header(response, "content-type"), Some("application/problem+json"));
    body["code"].as_str().expect("a code").to_owned()
}

fn wrote(generation: u64, added: u64, changed: u64, removed: u64, displaced: &[&str]) -> Value {
    json!({"epoch": "0000000000001234", "generation": generation, "added": added, "changed": changed, "removed": removed,
        "displaced": displaced})
}

#[test]
fn a_map_lives_through_its_calls() {
    let api = Fixture::new();
    api.check(
        "GET",
        "/v1/status",
        "",
        200,
        json!({"epoch": "0", "generation": 0, "routes": 0, "loaded": false, "version": env!("CARGO_PKG_VERSION"), "fleet": fleet_off()}),
    );
    api.check("GET", "/v1/routes", "", 200, json!({"epoch": "0", "generation": 0, "routes": {}}));
    api.check(
        "PUT",
        "/v1/routes",
        r#"{"routes":{"a":2000,"b":{"port":2001,"state":"draining"}}}"#,
        200,
        wrote(1, 2, 0, 0, &[]),
    );
    api.check("PUT", "/v1/routes/c", "2002", 201, wrote(2, 1, 0, 0, &[]));
    api.check("PUT", "/v1/routes/c", "2001", 200, wrote(3, 0, 1, 1, &["b"]));
    api.check("PUT", "/v1/routes/c", "2001", 200, wrote(3, 0, 0, 0, &[]));
    api.check("PATCH", "/v1/routes", r#"{"routes":{"c":{"state":"draining"},"d":2003}}"#, 200, wrote(4, 1, 1, 0, &[]));
    api.check("GET", "/v1/routes/c", "", 200, json!({"port": 2001, "state": "draining", "generation": 4}));
    api.check("DELETE", "/v1/routes/d", "", 204, Value::Null);
    api.check("DELETE", "/v1/routes/d", "", 204, Value::Null);
    let routes = json!({"a": {"port": 2000, "state": "active"}, "c": {"port": 2001, "state": "draining"}});
    api.check("GET", "/v1/routes", "", 200, json!({"epoch": "0000000000001234", "generation": 5, "routes": routes}));
    api.check("GET", "/v1/status", "", 200, json!({"epoch": "0000000000001234", "generation": 5, "routes": 2, "loaded": true, "version": env!("CARGO_PKG_VERSION"), "fleet": fleet_off()}));
    assert_eq!(api.signal.read(), 5, "one signal a change");
}

#[test]
fn an_empty_map_is_loaded_and_no_map_is_not() {
    let api = Fixture::new();
    api.check(
        "PATCH",
        "/v1/routes",
        "{}",
        200,
        json!({"epoch": "0", "generation": 0, "added": 0, "changed": 0, "removed": 0, "displaced": []}),
    );
    api.check("DELETE", "/v1/routes/a", "", 204, Value::Null);
    assert!(!Stored::now(&api.data, &ROUTE_MAP).is_loaded());
    api.check("PUT", "/v1/routes", r#"{"routes":{}}"#, 200, wrote(1, 0, 0, 0, &[]));
    api.check("PUT", "/v1/routes", r#"{"routes":{}}"#, 200, wrote(1, 0, 0, 0, &[]));
}

#[test]
fn a_dry_run_changes_nothing() {
    let api = Fixture::new();
    api.check("PUT", "/v1/routes", r#"{"routes":{"a":2000}}"#, 200, wrote(1, 1, 0, 0, &[]));
    let before = api.call("GET", "/v1/routes", "");
    api.check("PUT", "/v1/routes?dry_run=true", r#"{"routes":{"b":2000}}"#, 200, wrote(1, 1, 0, 1, &["a"]));
    api.check("PATCH", "/v1/routes?dry_run=true", r#"{"routes":{"a":null}}"#, 200, wrote(1, 0, 0, 1, &[]));
    api.check("PUT", "/v1/routes/c?dry_run=true", "2001", 201, wrote(1, 1, 0, 0, &[]));
    api.check("DELETE", "/v1/routes/a?dry_run=true", "", 204, Value::Null);
    assert_eq!(api.call("PUT", "/v1/routes?dry_run=true", r#"{"routes":{"b":80}}"#).status, 422);
    assert_eq!(api.call("GET", "/v1/routes", ""), before);
    assert_eq!(api.signal.read(), 1);
}

#[test]
fn every_response_about_the_map_carries_its_version() {
    let api = Fixture::new();
    assert_eq!(header(&api.call("GET", "/v1/routes", ""), "etag"), Some("\"0-0\""));
    for (n, (method, target, body)) in [
        ("PUT", "/v1/routes", r#"{"routes":{}}"#),
        ("PATCH", "/v1/routes", r#"{"routes":{"a":2000}}"#),
        ("PUT", "/v1/routes/a", "2001"),
        ("DELETE", "/v1/routes/a", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let etag = format!("\"0000000000001234-{}\"", n + 1);
        assert_eq!(header(&api.call(method, target, body), "etag"), Some(etag.as_str()));
        assert_eq!(header(&api.call("GET", "/v1/status", ""), "etag"), Some(etag.as_str()));
    }
}

#[test]
fn preconditions_guard_reads_and_writes() {
    let api = Fixture::new();
    let head = |method: &'static str, target: &'static str| Head {
        method: method.as_bytes(),
        target: target.as_bytes(),
        ..Head::default()
    };
    let none = Head { if_match: Some(b"\"0-0\""), ..head("PUT", "/v1/routes") };
    assert_eq!(api.send(none, r#"{"routes":{"a":2000}}"#).status, 200);
    for target in ["/v1/routes", "/v1/routes/a"] {
        let stale = api.send(
            Head { if_match: Some(b"\"0-0\""), ..head("PUT", target) },
            if target.ends_with('a') { "2001" } else { r#"{"routes":{}}"# },
        );
        assert_eq!((stale.status, code(&stale).as_str()), (412, "precondition_failed"));
    }
    assert_eq!(api.send(Head { if_match: Some(b"\"x\""), ..head("DELETE", "/v1/routes/a") }, "").status, 412);
    assert_eq!(api.send(Head { if_none_match: Some(b"*"), ..head("PUT", "/v1/routes") }, r#"{"routes":{}}"#).status, 412);
    let now = b"\"0000000000001234-1\"";
    let same = api.send(Head { if_none_match: Some(now), ..head("GET", "/v1/routes") }, "");
    assert_eq!((same.status, same.body.as_str(), header(&same, "etag")), (304, "", Some("\"0000000000001234-1\"")));
    assert_eq!(api.send(Head { if_none_match: Some(b"\"0-0\""), ..head("GET", "/v1/routes") }, "").status, 200);
    assert_eq!(api.send(Head { if_match: Some(now), ..head("DELETE", "/v1/routes/a") }, "").status, 204);
    assert_eq!(api.send(Head { if_match: Some(b"oops"), ..head("DELETE", "/v1/routes/a") }, "").status, 400);
}

#[test]
fn a_rejected_write_leaves_the_map_as_it_was() {
    let api = Fixture::new();
    api.check("PUT", "/v1/routes", r#"{"routes":{"a":2000}}"#, 200, wrote(1, 1, 0, 0, &[]));
    let before = api.call("GET", "/v1/routes", "");
    let check = |method, target, body: &str, status, expected: &str| {
        let response = api.call(method, target, body);
        assert_eq!((response.status, code(&response).as_str()), (status, expected), "{response:?}");
        assert_eq!(api.call("GET", "/v1/routes", ""), before);
    };
    check("PUT", "/v1/routes", "{", 400, "malformed_json");
    check("PUT", "/v1/routes", "", 400, "malformed_json");
    check("PUT", "/v1/routes", r#"{"routes":{"b":2001,"c":80}}"#, 422, "invalid_routes");
    check("PATCH", "/v1/routes", r#"{"routes":{"a":null,"b":{}}}"#, 422, "invalid_routes");
    check("PUT", "/v1/routes", r#"{"routes":{"b":2001,"c":2001}}"#, 409, "port_in_use");
    check("PUT", "/v1/routes", r#"{"routes":{"b":1,"c":2001,"d":2001}}"#, 422, "invalid_routes");
    check("PUT", "/v1/routes", r#"{"routes":{"b":2001,"c":2002,"d":2003,"e":2004,"f":2005}}"#, 422, "invalid_routes");
    check("PUT", "/v1/routes", &" ".repeat(501), 413, "payload_too_large");
    check("PUT", "/v1/routes/a", "80", 422, "invalid_routes");
    check("GET", "/v1/routes/b", "", 404, "not_found");
    check("POST", "/v1/routes", "", 405, "method_not_allowed");
}

const PUT_B: Head<'static> = Head { method: b"PUT", target: b"/v1/routes/b", ..NO_HEAD };

const NO_HEAD: Head<'static> = Head {
    method: b"",
    target: b"",
    host: None,
    origin: None,
    authorization: None,
    content_type: None,
    content_length: None,
    if_match: None,
    if_none_match: None,
};

#[test]
fn a_writer_that_loses_every_race_is_told() {
    let api = Fixture::new();
    let port = std::cell::Cell::new(2000);
    // A rival before each step.
    let hooked = Hooked::new(&api.data, |_| {
        port.set(port.get() + 1);
        assert!(api.call("PUT", "/v1/routes/rival", &port.get().to_string()).status < 300);
    });
    let response = api.send_on(&hooked, PUT_B, "3000");
    assert_eq!(
        (response.status, code(&response).as_str(), header(&response, "retry-after")),
        (503, "conflict_retries_exhausted", Some("1"))
    );
}

#[test]
fn errors_of_body_and_map_are_named_together() {
    let api = Fixture::new();
    let response = api.call("PATCH", "/v1/routes", r#"{"routes":{"a":2000,"b":2000,"c":{"state":"active"}}}"#);
    let body: Value = serde_json::from_str(&response.body).expect("JSON");
    let pointers: Vec<_> = body["errors"].as_array().expect("a list").iter().map(|error| error["pointer"].as_str()).collect();
    assert_eq!((response.status, pointers), (422, vec![Some("/routes/c"), Some("/routes/b")]));
    let malformed: Value = serde_json::from_str(&api.call("PUT", "/v1/routes", "{\n  x}").body).expect("JSON");
    assert_eq!((&malformed["line"], &malformed["column"]), (&json!(2), &json!(3)));
}

#[test]
fn a_token_is_asked_for_where_one_is_set() {
    let api = Fixture::with(r#"{"role":"admin"}"#, Some("s3cret"));
    let rejected = api.call("GET", "/v1/nowhere", "");
    assert_eq!((rejected.status, code(&rejected).as_str()), (401, "unauthorized"));
    assert!(header(&rejected, "www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    assert!(!rejected.body.contains("s3cret"));
    let head = Head { method: b"GET", target: b"/v1/status", authorization: Some(b"Bearer s3cret"), ..Head::default() };
    assert_eq!(api.send(head, "").status, 200);
}

#[test]
fn only_this_machine_s_names_are_accepted() {
    let api = Fixture::with(r#"{"role":"admin"}"#, Some("s3cret"));
    let send = |host: &'static [u8], origin: Option<&'static [u8]>| {
        api.send(Head { method: b"PUT", target: b"/v1/routes/a", host: Some(host), origin, ..NO_HEAD }, "2000")
    };
    for (host, origin) in [
        (&b"evil.example"[..], None),
        (b"", None),
        (b"localhost", Some(&b"http://evil.example"[..])),
        (b"localhost", Some(b"")),
        (b"localhost", Some(b"null")),
    ] {
        // Told before the token is asked for.
        let rejected = send(host, origin);
        assert_eq!((rejected.status, code(&rejected).as_str()), (403, "foreign_origin"), "{host:?} {origin:?}");
    }
    assert_eq!(send(b"localhost", Some(b"http://localhost:3000")).status, 401);
    let head = Head { method: b"GET", target: b"/v1/status", ..NO_HEAD };
    let backend = Backend { data: &api.data, signal: &api.signal, new_epoch: || EPOCH, now };
    assert!(matches!(api.api.begin(&head, &backend), Begun::Done(response) if response.status == 403), "without any host");
}

#[test]
fn two_writers_both_land() {
    for at in 0..5 {
        let api = Fixture::new();
        let hooked = Hooked::new(&api.data, |step| {
            if step == at {
                assert_eq!(api.call("PUT", "/v1/routes/rival", "2001").status, 201);
            }
        });
        assert_eq!(api.send_on(&hooked, PUT_B, "2000").status, 201, "step {at}");
        let routes = json!({"b": {"port": 2000, "state": "active"}, "rival": {"port": 2001, "state": "active"}});
        api.check("GET", "/v1/routes", "", 200, json!({"epoch": "0000000000001234", "generation": 2, "routes": routes}));
    }
}

#[test]
fn a_route_has_endpoints() {
    let api = Fixture::new();
    let full = r#"{"port":2000,"endpoints":{"ui":2002,"rest":2001}}"#;
    api.check("PUT", "/v1/routes/a", full, 201, wrote(1, 1, 0, 0, &[]));
    api.check("PUT", "/v1/routes/a", full, 200, wrote(1, 0, 0, 0, &[]));
    let a = json!({"port": 2000, "state": "active", "endpoints": {"rest": 2001, "ui": 2002}, "generation": 1});
    api.check("GET", "/v1/routes/a", "", 200, a);
    api.check("PATCH", "/v1/routes", r#"{"routes":{"a":{"endpoints":{"ui":null,"x":2003}}}}"#, 200, wrote(2, 0, 1, 0, &[]));
    let a = json!({"port": 2000, "state": "active", "endpoints": {"rest": 2001, "x": 2003}});
    let routes = json!({"epoch": "0000000000001234", "generation": 2, "routes": {"a": a}});
    api.check("GET", "/v1/routes", "", 200, routes);
    // A port of an endpoint that goes to another id takes the whole route along.
    api.check("PUT", "/v1/routes/b", "2003", 201, wrote(3, 1, 0, 1, &["a"]));
    api.check("GET", "/v1/routes/b", "", 200, json!({"port": 2003, "state": "active", "generation": 3}));
}

#[test]
fn the_first_errors_are_listed_and_all_are_counted() {
    let api = Fixture::with(r#"{"role":"admin"}"#, None);
    let map = |routes: &str| format!("{{\"routes\":{{{routes}}}}}");
    let times = |count: usize, member: &str| map(&vec![member; count].join(","));
    for (body, status, total) in [
        (times(100, "\"\":0"), 422, 100),
        (times(101, "\"\":0"), 422, 101),
        (times(50_000, "\"\":0"), 422, 50_000),
        (times(500, "\"a\":2000"), 422, 499),
        (map(&format!("\"a\":{{{}\"port\":2000}}", "\"x\":0,".repeat(300))), 422, 300),
        (map(&format!("{}\"z\":2000", (0..400).map(|n| format!("\"{n}\":2000,")).collect::<String>())), 409, 400),
    ] {
        for method in ["PUT", "PATCH"] {
            let response = api.call(method, "/v1/routes", &body);
            let document: Value = serde_json::from_str(&response.body).expect("JSON");
            let listed = document["errors"].as_array().expect("a list").len();
            assert_eq!((response.status, listed, &document["errors_total"]), (status, total.min(100), &json!(total)));
            assert!(document["detail"].as_str().expect("text").starts_with(&format!("nothing was changed: {total} errors")));
            assert!(response.body.len() < 20_000, "{} bytes", response.body.len());
        }
    }
}

#[test]
fn errors_of_one_route_point_into_its_body() {
    let api = Fixture::new();
    let body: Value = serde_json::from_str(&api.call("PUT", "/v1/routes/a", r#"{"port":80,"routes":1}"#).body).expect("JSON");
    let pointers: Vec<_> = body["errors"].as_array().expect("a list").iter().map(|error| error["pointer"].as_str()).collect();
    assert_eq!(pointers, [Some("/routes"), Some("/port")]);
    for id in ["b", "c", "d", "e"] {
        assert_eq!(
            api.call("PUT", &format!("/v1/routes/{id}"), &format!("{}", 2000 + u32::from(id.as_bytes()[0]))).status,
            201
        );
    }
    let body: Value = serde_json::from_str(&api.call("PUT", "/v1/routes/a", "2000").body).expect("JSON");
    assert_eq!((&body["code"], &body["errors"][0]["pointer"]), (&json!("invalid_routes"), &json!("")));
}

#[test]
fn tells_its_paths_from_envoys() {
    for mine in ["/v1", "/v1/", "/v1?x", "/v1/routes", "/v1/x?y"] {
        assert!(owns_path(mine.as_bytes()), "{mine}");
    }
    for other in ["/", "/ready", "/v10", "/v2/routes", "/stats?/v1/", ""] {
        assert!(!owns_path(other.as_bytes()), "{other}");
    }
}
