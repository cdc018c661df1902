//! The calls of `/v1/fleet`.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn api() -> Fixture {
    let config = r#"{"role":"admin","fleet":{"peer_cidrs":["10.0.1.0/24"],"max_peers":3,"max_routes":3,"max_body_bytes":900}}"#;
    Fixture::with(config, None)
}

fn counts(generation: u64, added: u64, changed: u64, removed: u64) -> Value {
    json!({"epoch": "0000000000001234", "generation": generation, "added": added, "changed": changed, "removed": removed})
}

const TWO: &str = r#"{"peers":{"task-b":{"host":"10.0.1.7"},"task-c":{"host":"10.0.1.8","state":"draining"}},"routes":{"id-1":["task-c","task-b"],"id-2":["task-b"]}}"#;

fn two() -> Value {
    let peers = json!({"task-b": {"host": "10.0.1.7", "state": "active"}, "task-c": {"host": "10.0.1.8", "state": "draining"}});
    json!({"epoch": "0000000000001234", "generation": 1, "peers": peers, "routes": {"id-1": ["task-c", "task-b"], "id-2": ["task-b"]}})
}

fn patch(api: &Fixture, body: &str, expected: Value) {
    api.check("PATCH", "/v1/fleet", body, 200, expected);
}

#[test]
fn a_map_lives_through_its_calls() {
    let api = api();
    api.check("GET", "/v1/fleet", "", 200, json!({"epoch": "0", "generation": 0, "peers": {}, "routes": {}}));
    api.check("PUT", "/v1/fleet", TWO, 200, counts(1, 2, 0, 0));
    api.check("GET", "/v1/fleet", "", 200, two());
    api.check("PUT", "/v1/fleet", TWO, 200, counts(1, 0, 0, 0));
    // A change of a peer alone makes a new generation, and changes no route.
    patch(&api, r#"{"peers":{"task-c":{"state":"active"}}}"#, counts(2, 0, 0, 0));
    patch(
        &api,
        r#"{"peers":{"task-d":{"host":"10.0.1.9"}},"routes":{"id-1":["task-d"],"id-2":null,"id-3":["task-d"]}}"#,
        counts(3, 1, 1, 1),
    );
    patch(&api, r#"{"peers":{"task-b":null,"task-c":null}}"#, counts(4, 0, 0, 0));
    let peers = json!({"task-d": {"host": "10.0.1.9", "state": "active"}});
    let routes = json!({"id-1": ["task-d"], "id-3": ["task-d"]});
    api.check(
        "GET",
        "/v1/fleet",
        "",
        200,
        json!({"epoch": "0000000000001234", "generation": 4, "peers": peers, "routes": routes}),
    );
    assert_eq!(api.signal.read(), 4, "one signal a change");
}

#[test]
fn the_two_maps_do_not_touch_each_other() {
    let api = api();
    api.check("PUT", "/v1/fleet", TWO, 200, counts(1, 2, 0, 0));
    api.check("PUT", "/v1/routes/id-1", "2000", 201, wrote(1, 1, 0, 0, &[]));
    api.check("PUT", "/v1/routes", r#"{"routes":{}}"#, 200, wrote(2, 0, 0, 1, &[]));
    api.check("GET", "/v1/fleet", "", 200, two());
    api.check("PUT", "/v1/fleet", r#"{"peers":{},"routes":{}}"#, 200, counts(2, 0, 0, 2));
    api.check("GET", "/v1/routes", "", 200, json!({"epoch": "0000000000001234", "generation": 2, "routes": {}}));
    let fleet = json!({"enabled": true, "loaded": true, "epoch": "0000000000001234", "generation": 2, "peers": 0, "routes": 0});
    let status = json!({"epoch": "0000000000001234", "generation": 2, "routes": 0, "loaded": true, "version": env!("CARGO_PKG_VERSION"), "fleet": fleet});
    api.check("GET", "/v1/status", "", 200, status);
}

#[test]
fn peers_are_reported_with_their_routes_and_since_when_they_are_so() {
    let api = api();
    let peers = |expected: Value| api.check("GET", "/v1/fleet/peers", "", 200, expected);
    let report = |host: &str, state: &str, routes: usize, since: &str| json!({"host": host, "state": state, "routes": routes, "since": format!("2027-01-15T{since}Z")});
    peers(json!({}));
    api.call("PUT", "/v1/fleet", TWO);
    let first =
        json!({"task-b": report("10.0.1.7", "active", 2, "08:00:00"), "task-c": report("10.0.1.8", "draining", 1, "08:00:00")});
    peers(first.clone());
    NOW.set(NOW.get() + 3_661);
    // The same map, a dry run of another one, and a write that is rejected.
    api.call("PUT", "/v1/fleet", TWO);
    assert_eq!(api.call("PATCH", "/v1/fleet?dry_run=true", r#"{"peers":{"task-b":{"state":"draining"}}}"#).status, 200);
    assert_eq!(api.call("PATCH", "/v1/fleet", r#"{"peers":{"task-b":{"state":"draining"}},"routes":{"a":[]}}"#).status, 422);
    peers(first);
    patch(&api, r#"{"peers":{"task-b":{"state":"draining"}},"routes":{"id-2":null}}"#, counts(2, 0, 0, 1));
    let b = report("10.0.1.7", "draining", 1, "09:01:01");
    peers(json!({"task-b": b, "task-c": report("10.0.1.8", "draining", 1, "08:00:00")}));
    NOW.set(NOW.get() + 1);
    patch(&api, r#"{"peers":{"task-c":{"host":"10.0.1.9"}}}"#, counts(3, 0, 0, 0));
    peers(json!({"task-b": b, "task-c": report("10.0.1.9", "draining", 1, "09:01:02")}));
    patch(&api, r#"{"peers":{"task-c":null},"routes":{"id-1":["task-b"]}}"#, counts(4, 0, 1, 0));
    NOW.set(NOW.get() + 1);
    patch(&api, r#"{"peers":{"task-c":{"host":"10.0.1.9","state":"draining"}}}"#, counts(5, 0, 0, 0));
    peers(json!({"task-b": b, "task-c": report("10.0.1.9", "draining", 0, "09:01:03")}));
}

#[test]
fn reports_on_peers_are_read_only_and_have_the_tag_of_the_fleet_map() {
    let api = api();
    api.call("PUT", "/v1/fleet", TWO);
    let response = api.call("GET", "/v1/fleet/peers", "");
    assert_eq!(header(&response, "etag"), Some("\"0000000000001234-1\""));
    let with = |if_match: Option<&'static [u8]>, if_none_match: Option<&'static [u8]>| {
        let head = Head { method: b"GET", target: b"/v1/fleet/peers", if_match, if_none_match, ..Head::default() };
        let response = api.send(head, "");
        (response.status, response.body.is_empty())
    };
    let (now, other) = (Some(&b"\"0000000000001234-1\""[..]), Some(&b"\"0000000000001234-2\""[..]));
    assert_eq!((with(now, None), with(None, other)), ((200, false), (200, false)));
    assert_eq!((with(None, now), with(other, None)), ((304, true), (412, false)));
    for method in ["PUT", "PATCH", "DELETE", "POST"] {
        let response = api.call(method, "/v1/fleet/peers", "{}");
        assert_eq!((response.status, header(&response, "allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(api.call("GET", "/v1/fleet/peers?dry_run=true", "").status, 400);
    let config = r#"{"role":"admin","fleet":{"peer_cidrs":["10.0.1.0/24"]}}"#;
    let guarded = Fixture::with(config, Some("s3cret-s3cret-s3cret"));
    assert_eq!(guarded.call("GET", "/v1/fleet/peers", "").status, 401);
    let foreign = Head { method: b"GET", target: b"/v1/fleet/peers", host: Some(b"evil.example"), ..Head::default() };
    assert_eq!(code(&api.send(foreign, "")), "foreign_origin");
}

#[test]
fn a_read_that_loses_every_race_is_told() {
    let api = api();
    api.call("PUT", "/v1/fleet", TWO);
    api.call("PUT", "/v1/routes/id-1", "2000");
    let number = Cell::new(0);
    // More changes before each step than a shard has slots, so that what the reader looks for is gone.
    let hooked = Hooked::new(&api.data, |_| {
        for _ in 0..16 {
            number.set(number.get() % 250 + 1);
            let host = format!(r#"{{"peers":{{"task-b":{{"host":"10.0.1.{}"}}}}}}"#, number.get());
            assert_eq!(api.call("PATCH", "/v1/fleet", &host).status, 200);
            assert!(api.call("PUT", "/v1/routes/id-1", &(2000 + number.get()).to_string()).status == 200);
        }
    });
    for target in ["/v1/routes", "/v1/routes/id-1", "/v1/status", "/v1/fleet", "/v1/fleet/peers"] {
        let response = api.send_on(&hooked, Head { method: b"GET", target: target.as_bytes(), ..NO_HEAD }, "");
        let found = (response.status, code(&response), header(&response, "retry-after").map(str::to_owned));
        assert_eq!(found, (503, "conflict_retries_exhausted".to_owned(), Some("1".to_owned())), "{target}");
    }
}

#[test]
fn conditions_are_about_the_fleet_map() {
    let api = api();
    let with = |method: &str, target: &str, if_match: Option<&str>, if_none_match: Option<&str>| {
        let head = Head {
            method: method.as_bytes(),
            target: target.as_bytes(),
            if_match: if_match.map(str::as_bytes),
            if_none_match: if_none_match.map(str::as_bytes),
            ..Head::default()
        };
        let response = api.send(head, TWO);
        (response.status, header(&response, "etag").map(str::to_owned))
    };
    assert_eq!(with("PUT", "/v1/fleet", Some("*"), None), (412, None));
    let first = Some("\"0000000000001234-1\"".to_owned());
    assert_eq!(with("PUT", "/v1/fleet", None, Some("*")), (200, first.clone()));
    assert_eq!(with("PUT", "/v1/fleet", None, Some("*")), (412, None));
    assert_eq!(with("PATCH", "/v1/fleet", first.as_deref(), None), (200, first.clone()));
    assert_eq!(with("GET", "/v1/fleet", None, first.as_deref()), (304, first.clone()));
    assert_eq!(with("GET", "/v1/fleet", Some("\"0-0\""), None), (412, None));
    // The tag of the status is the route map's, which says nothing of the fleet.
    let none = Some("\"0-0\"".to_owned());
    assert_eq!(with("GET", "/v1/status", None, none.as_deref()), (200, none.clone()));
    assert_eq!(with("GET", "/v1/routes", None, none.as_deref()), (304, none));
}

#[test]
fn a_dry_run_changes_nothing() {
    let api = api();
    let dry = json!({"epoch": "0", "generation": 0, "added": 2, "changed": 0, "removed": 0});
    api.check("PUT", "/v1/fleet?dry_run=true", TWO, 200, dry);
    assert!(!Stored::now(&api.data, &FLEET_MAP).is_loaded());
    assert_eq!(api.call("PATCH", "/v1/fleet?dry_run=true", r#"{"routes":{"a":["b"]}}"#).status, 422);
    assert_eq!(api.call("GET", "/v1/fleet?dry_run=true", "").status, 400);
}

#[test]
fn an_empty_map_is_loaded_and_no_map_is_not() {
    let api = api();
    patch(&api, "{}", json!({"epoch": "0", "generation": 0, "added": 0, "changed": 0, "removed": 0}));
    api.check("PUT", "/v1/fleet", r#"{"peers":{},"routes":{}}"#, 200, counts(1, 0, 0, 0));
    assert!(Stored::now(&api.data, &FLEET_MAP).is_loaded());
}

#[test]
fn rejections_name_every_error_and_change_nothing() {
    let api = api();
    api.check("PUT", "/v1/fleet", TWO, 200, counts(1, 2, 0, 0));
    let check = |method: &str, body: &str, expected: (u16, &str), places: &[&str]| {
        let response = api.call(method, "/v1/fleet", body);
        assert_eq!((response.status, code(&response).as_str()), expected, "{}", response.body);
        let document: Value = serde_json::from_str(&response.body).expect("JSON");
        let found: Vec<_> = document["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|error| error["pointer"].as_str().unwrap_or_default())
            .collect();
        assert_eq!(found, places, "{}", response.body);
        assert_eq!(document["errors_total"].as_u64().unwrap_or_default(), places.len() as u64);
        api.check("GET", "/v1/fleet", "", 200, two());
        response.body
    };
    let invalid = (422, "invalid_fleet");
    check("PUT", "{", (400, "malformed_json"), &[]);
    check("PUT", &" ".repeat(901), (413, "payload_too_large"), &[]);
    check("PUT", "{}", invalid, &["", ""]);
    check(
        "PATCH",
        r#"{"peers":{"task-d":{"host":"10.0.2.9"}},"routes":{"a b":["task-b"]}}"#,
        invalid,
        &["/peers/task-d/host", "/routes/a b"],
    );
    check("PATCH", r#"{"routes":{"a":["nobody","task-b"]}}"#, invalid, &["/routes/a/0"]);
    check("PATCH", r#"{"routes":{"a":["nobody","task-b","task-b"],"b":[]}}"#, invalid, &["/routes/a/2", "/routes/b"]);
    let body = check("PATCH", r#"{"peers":{"task-c":null}}"#, invalid, &["/peers/task-c"]);
    assert!(body.contains("the route of id-1 names it"), "{body}");
    let four = r#"{"peers":{"d":{"host":"10.0.1.1"},"e":{"host":"10.0.1.1"}},"routes":{"a":["d"],"b":["e"]}}"#;
    check("PATCH", four, invalid, &["/peers", "/routes"]);
}

#[test]
fn without_a_fleet_there_is_no_map() {
    let api = Fixture::new();
    for (method, body) in [("GET", ""), ("HEAD", ""), ("PUT", TWO), ("PATCH", "{}")] {
        let response = api.call(method, "/v1/fleet", body);
        assert_eq!((response.status, code(&response).as_str()), (409, "fleet_disabled"), "{method}");
    }
    assert_eq!(api.call("DELETE", "/v1/fleet", "").status, 405);
    for method in ["GET", "HEAD"] {
        let response = api.call(method, "/v1/fleet/peers", "");
        assert_eq!((response.status, code(&response).as_str()), (409, "fleet_disabled"), "{method}");
    }
    assert_eq!(api.call("PUT", "/v1/fleet/peers", "{}").status, 405);
    for path in ["/v1/fleet/", "/v1/fleet/peers/", "/v1/fleet/peers/task-b", "/v1/fleet/routes"] {
        assert_eq!(api.call("GET", path, "").status, 404, "{path}");
    }
    // The token comes first.
    let config = r#"{"role":"admin"}"#;
    assert_eq!(Fixture::with(config, Some("s3cret-s3cret-s3cret")).call("GET", "/v1/fleet", "").status, 401);
}

#[test]
fn a_rival_at_any_step_is_not_overwritten() {
    for step in 0..200 {
        let api = api();
        api.check("PUT", "/v1/fleet", TWO, 200, counts(1, 2, 0, 0));
        let mut come = false;
        let hooked = Hooked::new(&api.data, |number| {
            if number == step {
                come = true;
                let response = api.call("PATCH", "/v1/fleet", r#"{"routes":{"id-2":["task-c"]}}"#);
                assert_eq!(response.status, 200);
            }
        });
        let head = Head { method: b"PATCH", target: b"/v1/fleet", ..Head::default() };
        // It is valid only until the rival has come.
        let response = api.send_on(&hooked, head, r#"{"peers":{"task-c":null},"routes":{"id-1":["task-b"]}}"#);
        let after: Value = serde_json::from_str(&api.call("GET", "/v1/fleet", "").body).expect("JSON");
        match (come, response.status) {
            (true, 422) => assert_eq!(after["routes"], json!({"id-1": ["task-c", "task-b"], "id-2": ["task-c"]})),
            (false, 200) => {
                assert!(step > 5, "{step}");
                return;
            }
            other => panic!("{other:?} at step {step}: {}", response.body),
        }
    }
    panic!("a write has fewer steps");
}
