//! Entity tags: conditional reads and writes, through both workers.

use harness::Envoy;
use serde_json::json;

use crate::api::{Api, Rejected, no_vm_fell_over};

#[tokio::test]
async fn writes_under_a_condition() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let put = async |tag: &str| {
        api.call_with("PUT", "/v1/routes", &[("if-match", tag)], r#"{"routes":{"a":2000}}"#).await.status.as_u16()
    };

    // Before the first map, nothing matches * or a tag.
    assert_eq!(put("*").await, 412);
    assert_eq!(put("\"0-1\"").await, 412);
    let none_there = api.call_with("PUT", "/v1/routes", &[("if-none-match", "*")], r#"{"routes":{}}"#).await;
    assert_eq!(none_there.status, 200, "if-none-match: * holds because no map exists");
    let now = api.version().await;
    assert_eq!(put("\"0-0\"").await, 412);

    let stale = now.clone();
    assert_eq!(put(&now).await, 200);
    let now = api.version().await;
    assert_ne!(now, stale);
    // A write that changes nothing leaves the tag as it is.
    assert_eq!(put(&now).await, 200);
    assert_eq!(api.version().await, now);
    assert_eq!(put("*").await, 200);
    assert_eq!(put(&format!("\"x\", {now}")).await, 200);

    let unquoted = now.trim_matches('"').to_owned();
    let weak = format!("W/{now}");
    let many = format!("{stale}, \"{}\"", "x".repeat(4000));
    let other_epoch = format!("\"0000000000000000-{}\"", unquoted.split_once('-').unwrap().1);
    for (method, target, body) in [
        ("PUT", "/v1/routes", r#"{"routes":{"b":2001}}"#),
        ("PATCH", "/v1/routes", r#"{"routes":{"b":2001}}"#),
        ("PUT", "/v1/routes/b", "2001"),
        ("DELETE", "/v1/routes/a", ""),
        // Also if the write would change nothing, or is a dry run.
        ("DELETE", "/v1/routes/zz", ""),
        ("PATCH", "/v1/routes?dry_run=true", "{}"),
        // The condition is checked before the routes.
        ("PATCH", "/v1/routes", r#"{"routes":{"b":2001,"c":2001}}"#),
    ] {
        let call = Rejected { method, target, body: body.as_bytes(), ..Rejected::default() };
        let failed = [
            ("if-match", stale.as_str()),
            ("if-match", &weak),
            ("if-match", &many),
            ("if-match", &other_epoch),
            ("if-match", "\"\""),
            ("if-match", "\"a,b\""),
            ("if-none-match", &now),
            ("if-none-match", &weak),
            ("if-none-match", "*"),
        ];
        for header in failed {
            let headers = [header];
            let response = api.rejected(Rejected { headers: &headers, status: 412, code: "precondition_failed", ..call }).await;
            assert!(
                response.json().unwrap()["detail"].as_str().unwrap().contains(&now),
                "it names the current version: {response}"
            );
        }
        // An invalid condition does not count as no condition.
        for value in ["", " ", &unquoted, "\"a", "\"a\" \"b\"", "\"a\",", ",", "w/\"a\"", "*, \"a\"", "\"a\", *"] {
            for name in ["if-match", "if-none-match"] {
                let headers = [(name, value)];
                api.rejected(Rejected { headers: &headers, status: 400, code: "invalid_precondition", ..call }).await;
            }
        }
        // Several headers of one name are one list.
        let headers = [("if-match", stale.as_str()), ("if-match", "*")];
        api.rejected(Rejected { headers: &headers, status: 400, code: "invalid_precondition", ..call }).await;
        let headers = [("if-match", now.as_str()), ("if-none-match", now.as_str())];
        api.rejected(Rejected { headers: &headers, status: 412, code: "precondition_failed", ..call }).await;
    }

    let both = [("if-match", stale.as_str()), ("if-match", now.as_str())];
    assert_eq!(api.call_with("PUT", "/v1/routes/b", &both, "2001").await.status, 201);
    let now = api.version().await;
    assert_eq!(api.call_with("DELETE", "/v1/routes/b", &[("if-match", &now)], "").await.status, 204);
    let now = api.version().await;
    let patch = api.call_with("PATCH", "/v1/routes?dry_run=true", &[("if-match", &now)], r#"{"routes":{"b":2001}}"#).await;
    assert_eq!((patch.status.as_u16(), patch.header("etag")), (200, Some(now.as_str())));
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn reads_under_a_condition() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let get = async |target: &str, name: &str, tag: &str| api.call_with("GET", target, &[(name, tag)], "").await;
    let unloaded = get("/v1/routes", "if-none-match", "\"0-0\"").await;
    assert_eq!((unloaded.status.as_u16(), unloaded.header("etag")), (304, Some("\"0-0\"")));
    api.call("PUT", "/v1/routes", r#"{"routes":{"a":2000}}"#).await;
    let now = api.version().await;
    for target in ["/v1/routes", "/v1/routes/a", "/v1/status"] {
        for tag in [&now, &format!("W/{now}"), "*", &format!("\"x\",{now}")] {
            let same = get(target, "if-none-match", tag).await;
            assert_eq!(
                (same.status.as_u16(), same.header("etag"), same.body.len()),
                (304, Some(now.as_str()), 0),
                "{target} {tag}"
            );
        }
        for tag in ["\"0-0\"", "\"x\""] {
            let other = get(target, "if-none-match", tag).await;
            assert_eq!((other.status.as_u16(), other.header("etag")), (200, Some(now.as_str())), "{target} {tag}");
        }
        assert_eq!(get(target, "if-match", &now).await.status, 200);
        for (name, tag, status, code) in [
            ("if-match", "\"0-0\"", 412, "precondition_failed"),
            ("if-match", "oops", 400, "invalid_precondition"),
            ("if-none-match", "", 400, "invalid_precondition"),
        ] {
            let headers = [(name, tag)];
            api.rejected(Rejected { method: "GET", target, headers: &headers, status, code, ..Rejected::default() }).await;
        }
    }
    assert_eq!(get("/v1/routes/none", "if-none-match", &now).await.status, 404);
    api.call("PUT", "/v1/routes/a", "2001").await;
    assert_eq!(
        get("/v1/routes", "if-none-match", &now).await.json().unwrap()["routes"],
        json!({"a": {"port": 2001, "state": "active"}})
    );
    no_vm_fell_over(&envoy, &api).await;
}

/// A restarted Envoy has another epoch, so a tag of the old process never matches.
#[tokio::test]
async fn a_tag_does_not_outlive_its_envoy() {
    let mut envoy = Envoy::builder().start().await.unwrap();
    let first = envoy.routes().put_all([("a", 2000)]).await.unwrap();
    envoy.restart().await.unwrap();
    let api = Api::open(&envoy).await;
    let tag = first.header("etag").unwrap();
    let call = Rejected { method: "PUT", target: "/v1/routes/a", body: b"2001", ..Rejected::default() };
    api.rejected(Rejected { headers: &[("if-match", tag)], status: 412, code: "precondition_failed", ..call }).await;
    let second = envoy.routes().put_all([("a", 2000)]).await.unwrap();
    assert_ne!(second.header("etag"), Some(tag));
    api.rejected(Rejected { headers: &[("if-match", tag)], status: 412, code: "precondition_failed", ..call }).await;
}
