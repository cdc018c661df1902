//! `PATCH /v1/routes` takes a JSON merge patch (RFC 7396): it changes the routes that it names, null removes a route, and either all of the
//! patch applies or nothing.

use harness::Envoy;
use serde_json::{Value, json};

use crate::api::{Api, Rejected, no_vm_fell_over, without_warning};

#[tokio::test]
async fn a_patch_is_a_merge_patch() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let start = r#"{"routes":{"a":2000,"b":{"port":2001,"state":"draining"},"c":2002}}"#;
    let cases: [(&str, [u64; 3], &[&str], Value); 16] = [
        ("{}", [0, 0, 0], &[], json!({"a": 2000, "b": [2001], "c": 2002})),
        (r#"{"routes":{}}"#, [0, 0, 0], &[], json!({"a": 2000, "b": [2001], "c": 2002})),
        (r#"{"routes":{"d":2003}}"#, [1, 0, 0], &[], json!({"a": 2000, "b": [2001], "c": 2002, "d": 2003})),
        (r#"{"routes":{"a":null}}"#, [0, 0, 1], &[], json!({"b": [2001], "c": 2002})),
        (r#"{"routes":{"x":null}}"#, [0, 0, 0], &[], json!({"a": 2000, "b": [2001], "c": 2002})),
        (r#"{"routes":{"a":{}}}"#, [0, 0, 0], &[], json!({"a": 2000, "b": [2001], "c": 2002})),
        // A member that the patch does not name stays ...
        (r#"{"routes":{"b":{"port":2005}}}"#, [0, 1, 0], &[], json!({"a": 2000, "b": [2005], "c": 2002})),
        (r#"{"routes":{"a":{"state":"draining"}}}"#, [0, 1, 0], &[], json!({"a": [2000], "b": [2001], "c": 2002})),
        // ... a bare port replaces the whole route, and null resets a member to its default.
        (r#"{"routes":{"b":2005}}"#, [0, 1, 0], &[], json!({"a": 2000, "b": 2005, "c": 2002})),
        (r#"{"routes":{"b":{"state":null}}}"#, [0, 1, 0], &[], json!({"a": 2000, "b": 2001, "c": 2002})),
        // Ports that move to other ids.
        (r#"{"routes":{"d":2000}}"#, [1, 0, 1], &["a"], json!({"b": [2001], "c": 2002, "d": 2000})),
        (r#"{"routes":{"d":2001,"e":2000}}"#, [2, 0, 2], &["a", "b"], json!({"c": 2002, "d": 2001, "e": 2000})),
        (r#"{"routes":{"a":2002,"c":2000}}"#, [0, 2, 0], &[], json!({"a": 2002, "b": [2001], "c": 2000})),
        (r#"{"routes":{"a":2001,"c":null}}"#, [0, 1, 2], &["b"], json!({"a": 2001})),
        // A route that the patch removes, and whose port it gives to another id, is displaced, too.
        (r#"{"routes":{"a":null,"d":2000}}"#, [1, 0, 1], &["a"], json!({"b": [2001], "c": 2002, "d": 2000})),
        (r#"{"routes":{"a":2003,"d":2000}}"#, [1, 1, 0], &[], json!({"a": 2003, "b": [2001], "c": 2002, "d": 2000})),
    ];
    for content_type in ["application/json", "application/merge-patch+json", "Application/Merge-Patch+JSON; charset=utf-8"] {
        for (patch, [added, changed, removed], displaced, expected) in &cases {
            api.call("PUT", "/v1/routes", start).await;
            let before = api.map().await;
            let counts = |generation: &Value| json!({"epoch": before["epoch"], "generation": generation, "added": added, "changed": changed, "removed": removed, "displaced": displaced});
            let headers = [("content-type", content_type)];
            let dry = api.call_with("PATCH", "/v1/routes?dry_run=true", &headers, *patch).await;
            assert_eq!(without_warning(&dry), counts(&before["generation"]), "{patch}");
            assert_eq!(api.map().await, before);
            let changes = [added, changed, removed] != [&0; 3];
            let generation = before["generation"].as_u64().unwrap() + u64::from(changes);
            let done = api.call_with("PATCH", "/v1/routes", &headers, *patch).await;
            assert_eq!((done.status.as_u16(), without_warning(&done)), (200, counts(&generation.into())), "{patch}");
            let after = api.map().await;
            assert_eq!((short(&after["routes"]), &after["generation"]), (expected.clone(), &generation.into()), "{patch}");
        }
    }
    no_vm_fell_over(&envoy, &api).await;
}

/// Routes in short form: an active one as its port, a draining one as its port in brackets.
fn short(routes: &Value) -> Value {
    let all = routes.as_object().unwrap().iter().map(|(id, route)| {
        let port = &route["port"];
        (id.clone(), if route["state"] == "active" { port.clone() } else { json!([port]) })
    });
    Value::Object(all.collect())
}

#[tokio::test]
async fn a_patch_with_one_error_changes_nothing() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.call("PUT", "/v1/routes", r#"{"routes":{"a":2000,"b":2001}}"#).await;
    let before = api.map().await;
    for (patch, status) in [
        (r#"{"routes":{"a":null,"c":2002,"d":80}}"#, 422),
        (r#"{"routes":{"a":null,"c":2002,"d":{}}}"#, 422),
        (r#"{"routes":{"a":null,"b":{"port":null}}}"#, 422),
        (r#"{"routes":{"a":null},"x":1}"#, 422),
        (r#"{"routes":null}"#, 422),
        (r#"{"routes":{"a":2005,"c":2002,"d":2002}}"#, 409),
        // A draining route keeps its port if the patch names it.
        (r#"{"routes":{"a":{"state":"draining"},"c":2000}}"#, 409),
        (r#"{"routes":{"a":null,"c":2002}"#, 400),
    ] {
        assert_eq!(api.call("PATCH", "/v1/routes", patch).await.status, status, "{patch}");
        assert_eq!(api.map().await, before, "{patch}");
    }
    no_vm_fell_over(&envoy, &api).await;
}

/// Two agents with further endpoints.
const AGENTS: &str =
    r#"{"routes":{"a":{"port":2000,"endpoints":{"rest":2001,"ui":2002}},"b":{"port":2010,"endpoints":{"ui":2011}}}}"#;

#[tokio::test]
async fn a_patch_merges_endpoints() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let route = |port: u16, endpoints: Value| json!({"port": port, "state": "active", "endpoints": endpoints});
    let (a, b) = (route(2000, json!({"rest": 2001, "ui": 2002})), route(2010, json!({"ui": 2011})));
    let plain = |port: u16| json!({"port": port, "state": "active"});
    let draining = json!({"port": 2000, "state": "draining", "endpoints": {"rest": 2001, "ui": 2002}});
    let eight =
        json!({"rest": 2001, "ui": 2002, "n1": 2003, "n2": 2004, "n3": 2005, "n4": 2006, "n5": 2007, "abcdefghijklmnop": 2008});
    let cases: [(&str, [u64; 3], &[&str], Value); 16] = [
        // One is added, moved, removed; what the patch does not name stays.
        (
            r#"{"a":{"endpoints":{"x":2003}}}"#,
            [0, 1, 0],
            &[],
            json!({"a": route(2000, json!({"rest": 2001, "ui": 2002, "x": 2003})), "b": b}),
        ),
        (
            r#"{"a":{"endpoints":{"rest":2003}}}"#,
            [0, 1, 0],
            &[],
            json!({"a": route(2000, json!({"rest": 2003, "ui": 2002})), "b": b}),
        ),
        (r#"{"a":{"endpoints":{"rest":null}}}"#, [0, 1, 0], &[], json!({"a": route(2000, json!({"ui": 2002})), "b": b})),
        (r#"{"a":{"endpoints":{"x":null}}}"#, [0, 0, 0], &[], json!({"a": a, "b": b})),
        (r#"{"a":{"endpoints":{}}}"#, [0, 0, 0], &[], json!({"a": a, "b": b})),
        (r#"{"a":{"state":"draining"}}"#, [0, 1, 0], &[], json!({"a": draining, "b": b})),
        (
            r#"{"a":{"endpoints":{"n1":2003,"n2":2004,"n3":2005,"n4":2006,"n5":2007,"abcdefghijklmnop":2008}}}"#,
            [0, 1, 0],
            &[],
            json!({"a": route(2000, eight), "b": b}),
        ),
        // All go.
        (r#"{"a":{"endpoints":null}}"#, [0, 1, 0], &[], json!({"a": plain(2000), "b": b})),
        (r#"{"a":{"endpoints":{"rest":null,"ui":null}}}"#, [0, 1, 0], &[], json!({"a": plain(2000), "b": b})),
        (r#"{"a":2000}"#, [0, 1, 0], &[], json!({"a": plain(2000), "b": b})),
        // A route may do with its own ports what it likes.
        (
            r#"{"a":{"endpoints":{"rest":2002,"ui":2001}}}"#,
            [0, 1, 0],
            &[],
            json!({"a": route(2000, json!({"rest": 2002, "ui": 2001})), "b": b}),
        ),
        (
            r#"{"a":{"port":2001,"endpoints":{"ui":2001}}}"#,
            [0, 1, 0],
            &[],
            json!({"a": route(2001, json!({"rest": 2001, "ui": 2001})), "b": b}),
        ),
        // Any port that another id is given takes the whole route with it.
        (r#"{"c":2011}"#, [1, 0, 1], &["b"], json!({"a": a, "c": plain(2011)})),
        (
            r#"{"a":{"endpoints":{"x":2010}}}"#,
            [0, 1, 1],
            &["b"],
            json!({"a": route(2000, json!({"rest": 2001, "ui": 2002, "x": 2010}))}),
        ),
        (
            r#"{"c":{"port":2003,"endpoints":{"x":2002,"y":2011}}}"#,
            [1, 0, 2],
            &["a", "b"],
            json!({"c": route(2003, json!({"x": 2002, "y": 2011}))}),
        ),
        // Unless the same patch takes it from that route.
        (
            r#"{"a":{"endpoints":{"ui":2011}},"b":{"endpoints":{"ui":2002}}}"#,
            [0, 2, 0],
            &[],
            json!({"a": route(2000, json!({"rest": 2001, "ui": 2011})), "b": route(2010, json!({"ui": 2002}))}),
        ),
    ];
    for (routes, [added, changed, removed], displaced, expected) in cases {
        api.call("PUT", "/v1/routes", AGENTS).await;
        let before = api.map().await;
        assert_eq!(before["routes"], json!({"a": a, "b": b}));
        let done = api.call("PATCH", "/v1/routes", &format!(r#"{{"routes":{routes}}}"#)).await;
        let changes = [added, changed, removed] != [0; 3];
        let generation = before["generation"].as_u64().unwrap() + u64::from(changes);
        let counts = json!({"epoch": before["epoch"], "generation": generation, "added": added, "changed": changed, "removed": removed, "displaced": displaced});
        assert_eq!((done.status.as_u16(), without_warning(&done)), (200, counts), "{routes}");
        assert_eq!(api.map().await["routes"], expected, "{routes}");
        for (id, route) in expected.as_object().unwrap() {
            let shown = api.call("GET", &format!("/v1/routes/{id}"), "").await.json().unwrap();
            let mut with_generation = route.clone();
            with_generation["generation"] = generation.into();
            assert_eq!(shown, with_generation, "{routes}");
        }
    }
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn a_patch_with_wrong_endpoints_changes_nothing() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.call("PUT", "/v1/routes", AGENTS).await;
    // With the two that the route has they are nine.
    let seven = r#"{"a":{"endpoints":{"n1":2003,"n2":2004,"n3":2005,"n4":2006,"n5":2007,"n6":2008,"n7":2009}}}"#;
    let cases: [(&str, u16, &str, &[&str]); 10] = [
        (seven, 422, "invalid_routes", &["/routes/a"]),
        (r#"{"a":{"endpoints":{"-":2003,"rest":null}}}"#, 422, "invalid_routes", &["/routes/a/endpoints/-"]),
        (
            r#"{"a":{"endpoints":{"abcdefghijklmnopq":2003}}}"#,
            422,
            "invalid_routes",
            &["/routes/a/endpoints/abcdefghijklmnopq"],
        ),
        (
            r#"{"a":{"endpoints":{"a2a":2003,"UI":2003,"":2003}}}"#,
            422,
            "invalid_routes",
            &["/routes/a/endpoints/a2a", "/routes/a/endpoints/UI", "/routes/a/endpoints/"],
        ),
        (r#"{"a":{"endpoints":{"x":2003,"x":null}}}"#, 422, "invalid_routes", &["/routes/a/endpoints/x"]),
        (r#"{"a":{"endpoints":{"ui":50051}},"c":2003}"#, 422, "invalid_routes", &["/routes/a/endpoints/ui"]),
        (r#"{"a":{"endpoints":[2003]}}"#, 422, "invalid_routes", &["/routes/a/endpoints"]),
        (r#"{"c":{"endpoints":{"ui":2003}}}"#, 422, "invalid_routes", &["/routes/c"]),
        // Each of the two has a right to its port if the patch names both.
        (r#"{"a":{"endpoints":{"x":2011}},"b":{"state":"draining"}}"#, 409, "port_in_use", &["/routes/b/endpoints/ui"]),
        (
            r#"{"c":{"port":2003,"endpoints":{"x":2004}},"d":{"port":2004,"endpoints":{"x":2003}}}"#,
            409,
            "port_in_use",
            &["/routes/d/endpoints/x", "/routes/d"],
        ),
    ];
    for (routes, status, code, places) in cases {
        let body = format!(r#"{{"routes":{routes}}}"#);
        let call = Rejected {
            method: "PATCH",
            target: "/v1/routes",
            body: body.as_bytes(),
            status,
            code,
            places,
            ..Rejected::default()
        };
        api.rejected(call).await;
    }
    no_vm_fell_over(&envoy, &api).await;
}
