//! `PATCH /v1/routes` takes a JSON merge patch (RFC 7396): it changes the routes that it names, null removes a route, and either all of the
//! patch applies or nothing.

use harness::Envoy;
use serde_json::{Value, json};

use crate::api::{Api, no_vm_fell_over, without_warning};

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
