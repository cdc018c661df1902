//! Every row of the route API's contract: each success and each error, through both workers.

use harness::Envoy;
use serde_json::{Value, json};

use crate::api::{Api, Rejected, no_vm_fell_over, problem};

fn wrote(epoch: &str, generation: u64, [added, changed, removed]: [u64; 3], displaced: &[&str]) -> Value {
    json!({"epoch": epoch, "generation": generation, "added": added, "changed": changed, "removed": removed, "displaced": displaced})
}

fn active(port: u16) -> Value {
    json!({"port": port, "state": "active"})
}

#[tokio::test]
async fn every_success() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let status = |epoch: &str, generation: u64, routes: u64, loaded: bool| json!({"epoch": epoch, "generation": generation, "routes": routes, "loaded": loaded, "version": env!("CARGO_PKG_VERSION"), "fleet": {"enabled": false, "loaded": false, "epoch": "0", "generation": 0, "peers": 0, "routes": 0}});

    // Before the first map: there are no routes, and a write that changes nothing stores no map.
    api.check("GET", "/v1/status", "", 200, status("0", 0, 0, false)).await;
    api.check("GET", "/v1/routes", "", 200, json!({"epoch": "0", "generation": 0, "routes": {}})).await;
    api.check("DELETE", "/v1/routes/a", "", 204, Value::Null).await;
    api.check("PATCH", "/v1/routes", r#"{"routes":{"a":null}}"#, 200, wrote("0", 0, [0, 0, 0], &[])).await;
    api.check("PUT", "/v1/routes?dry_run=true", r#"{"routes":{"a":2000}}"#, 200, wrote("0", 0, [1, 0, 0], &[])).await;
    api.check("GET", "/v1/status", "", 200, status("0", 0, 0, false)).await;

    // The first map is a change even if it is empty, and draws the epoch.
    let first = api.call("PUT", "/v1/routes", r#"{"routes":{}}"#).await.json().unwrap();
    let epoch = first["epoch"].as_str().unwrap();
    assert!(epoch.len() == 16 && epoch.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)), "{epoch}");
    assert_eq!(first, wrote(epoch, 1, [0, 0, 0], &[]));
    api.check("GET", "/v1/status", "", 200, status(epoch, 1, 0, true)).await;
    api.check("PUT", "/v1/routes", r#"{"routes":{}}"#, 200, wrote(epoch, 1, [0, 0, 0], &[])).await;

    // The whole map.
    let three = r#"{"routes":{"a":2000,"b":{"port":2001,"state":"draining"},"c":{"port":2002}}}"#;
    api.check("PUT", "/v1/routes", three, 200, wrote(epoch, 2, [3, 0, 0], &[])).await;
    api.check("PUT", "/v1/routes", three, 200, wrote(epoch, 2, [0, 0, 0], &[])).await;
    let routes = json!({"a": active(2000), "b": {"port": 2001, "state": "draining"}, "c": active(2002)});
    api.check("GET", "/v1/routes", "", 200, json!({"epoch": epoch, "generation": 2, "routes": routes})).await;
    api.check("PUT", "/v1/routes", r#"{"routes":{"a":2002,"c":2003,"d":2001}}"#, 200, wrote(epoch, 3, [1, 2, 1], &["b"])).await;

    // One route.
    api.check("GET", "/v1/routes/a", "", 200, json!({"port": 2002, "state": "active", "generation": 3})).await;
    api.check("PUT", "/v1/routes/e", "2004", 201, wrote(epoch, 4, [1, 0, 0], &[])).await;
    api.check("PUT", "/v1/routes/e", r#"{"port":2004,"state":"draining"}"#, 200, wrote(epoch, 5, [0, 1, 0], &[])).await;
    api.check("PUT", "/v1/routes/e", r#"{"state":"draining","port":2004.0}"#, 200, wrote(epoch, 5, [0, 0, 0], &[])).await;
    api.check("GET", "/v1/routes/e", "", 200, json!({"port": 2004, "state": "draining", "generation": 5})).await;
    // A draining route keeps its port until another id takes it.
    api.check("PUT", "/v1/routes/f", "2004", 201, wrote(epoch, 6, [1, 0, 1], &["e"])).await;
    let warned = api.call("PUT", "/v1/routes/a?dry_run=true", "2003").await.json().unwrap();
    let words = "a takes port 2003 from c, which loses its route. One port serves one id: if an agent that lost its route still \
                 runs, it needs another port";
    assert_eq!(warned["warning"], words);
    api.check("PUT", "/v1/routes/a", "2003", 200, wrote(epoch, 7, [0, 1, 1], &["c"])).await;
    api.check("DELETE", "/v1/routes/f", "", 204, Value::Null).await;
    api.check("DELETE", "/v1/routes/f", "", 204, Value::Null).await;
    let routes = json!({"a": active(2003), "d": active(2001)});
    api.check("GET", "/v1/routes", "", 200, json!({"epoch": epoch, "generation": 8, "routes": routes})).await;
    api.check("GET", "/v1/status", "", 200, status(epoch, 8, 2, true)).await;
    no_vm_fell_over(&envoy, &api).await;
}

/// Ids of every allowed byte and length; percent-encoding in a path stands for the byte.
#[tokio::test]
async fn every_allowed_id() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let longest = "x".repeat(128);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    for (id, path) in [
        ("a", "a"),
        (longest.as_str(), longest.as_str()),
        (alphabet, alphabet),
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "%30f8fad5b%2Dd9cb%2d469f-a165-7086772895%30e"),
        ("routes", "routes"),
        ("status", "status"),
        ("...", "..."),
        ("...", "%2E%2e."),
    ] {
        let path = format!("/v1/routes/{path}");
        assert_eq!(api.call("PUT", &path, "2000").await.status, 201, "{id}");
        assert_eq!(api.map().await["routes"], json!({id: active(2000)}));
        assert_eq!(api.call("GET", &path, "").await.json().unwrap()["port"], 2000);
        assert_eq!(api.call("DELETE", &path, "").await.status, 204);
        assert_eq!(api.map().await["routes"], json!({}));
    }
    // A path cannot end in these two ids (RFC 3986, 6.2.2.3), but a body can name them.
    assert_eq!(api.call("PATCH", "/v1/routes", r#"{"routes":{".":2000,"..":2001}}"#).await.status, 200);
    assert_eq!(api.map().await["routes"], json!({".": active(2000), "..": active(2001)}));
    for (path, status) in [("/v1/routes/.", 404), ("/v1/routes/..", 404), ("/v1/routes/%2e%2E", 404)] {
        assert_eq!(api.call("DELETE", path, "").await.status, status, "{path}");
    }
    assert_eq!(api.call("PATCH", "/v1/routes", r#"{"routes":{".":null,"..":null}}"#).await.json().unwrap()["removed"], 2);
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn every_error_leaves_the_map_as_it_was() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.call("PUT", "/v1/routes", r#"{"routes":{"a":2000,"b":{"port":2001,"state":"draining"}}}"#).await;

    let json = [("content-type", "application/json")];
    for (method, target, allow) in [
        ("POST", "/v1/routes", "GET, HEAD, PUT, PATCH"),
        ("DELETE", "/v1/routes", "GET, HEAD, PUT, PATCH"),
        ("OPTIONS", "/v1/routes", "GET, HEAD, PUT, PATCH"),
        ("POST", "/v1/routes/a", "GET, HEAD, PUT, DELETE"),
        ("PATCH", "/v1/routes/a", "GET, HEAD, PUT, DELETE"),
        ("PROPFIND", "/v1/routes/a", "GET, HEAD, PUT, DELETE"),
        ("PUT", "/v1/status", "GET, HEAD"),
        ("POST", "/v1/status", "GET, HEAD"),
    ] {
        let call = Rejected { method, target, status: 405, code: "method_not_allowed", ..Rejected::default() };
        assert_eq!(api.rejected(call).await.header("allow"), Some(allow), "{method} {target}");
    }
    let head = api.call("HEAD", "/v1/routes", "").await;
    assert_eq!((head.status.as_u16(), head.header("content-type"), head.body.len()), (200, Some("application/json"), 0));

    for target in ["/v1", "/v1/", "/v1/route", "/v1/routes/", "/v1/routes/a/b", "/v1/status/x", "/v1/routes.json", "/v1/Routes"]
    {
        for method in ["GET", "PUT", "POST", "DELETE"] {
            api.rejected(Rejected { method, target, body: b"2000", status: 404, code: "not_found", ..Rejected::default() })
                .await;
        }
    }
    api.rejected(Rejected { method: "GET", target: "/v1/routes/zz", status: 404, code: "not_found", ..Rejected::default() })
        .await;

    let too_long = format!("/v1/routes/{}", "x".repeat(129));
    for target in [
        "/v1/routes/a%20b",
        "/v1/routes/a%2fb",
        "/v1/routes/%ff",
        "/v1/routes/%C3%A4",
        "/v1/routes/%",
        "/v1/routes/%4",
        "/v1/routes/%zz",
        "/v1/routes/a+b",
        "/v1/routes/a:b",
        "/v1/routes/a,b",
        "/v1/routes/%2561",
        &too_long,
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let call = Rejected { method, target, headers: &json, body: b"2005", ..Rejected::default() };
            api.rejected(Rejected { status: 400, code: "invalid_deployment_id", ..call }).await;
        }
    }

    for query in [
        "x=1",
        "dry_run",
        "dry_run=",
        "dry_run=1",
        "dry_run=True",
        "dry_run=true&dry_run=true",
        "dry_run=true&x",
        "dry-run=true",
        "dry%5frun=true",
        "dry_run=true;x",
    ] {
        for (method, path) in
            [("PUT", "/v1/routes"), ("PATCH", "/v1/routes"), ("PUT", "/v1/routes/a"), ("DELETE", "/v1/routes/a")]
        {
            let target = format!("{path}?{query}");
            let call = Rejected { method, target: &target, body: br#"{"routes":{}}"#, ..Rejected::default() };
            api.rejected(Rejected { status: 400, code: "invalid_query", ..call }).await;
        }
    }
    for target in ["/v1/routes?dry_run=true", "/v1/routes?generation=1", "/v1/status?x", "/v1/routes/a?dry_run=false"] {
        api.rejected(Rejected { method: "GET", target, status: 400, code: "invalid_query", ..Rejected::default() }).await;
    }

    for content_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "json",
        "application/xml, application/json",
        "application/json-patch+json",
        "*/*",
    ] {
        for (method, target, header) in
            [("PUT", "/v1/routes", "accept"), ("PUT", "/v1/routes/a", "accept"), ("PATCH", "/v1/routes", "accept-patch")]
        {
            let headers = [("content-type", content_type)];
            let call = Rejected { method, target, headers: &headers, body: br#"{"routes":{}}"#, ..Rejected::default() };
            let response = api.rejected(Rejected { status: 415, code: "unsupported_media_type", ..call }).await;
            assert!(response.header(header).is_some_and(|accepted| accepted.contains("application/json")), "{method} {target}");
        }
    }
    let merge_patch = [("content-type", "application/merge-patch+json")];
    let call = Rejected {
        method: "PUT",
        target: "/v1/routes",
        headers: &merge_patch,
        body: br#"{"routes":{}}"#,
        ..Rejected::default()
    };
    api.rejected(Rejected { status: 415, code: "unsupported_media_type", ..call }).await;
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn every_error_of_a_body_has_its_place() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.call("PUT", "/v1/routes", r#"{"routes":{"a":2000,"b":{"port":2001,"state":"draining"}}}"#).await;
    let writes = [("PUT", "/v1/routes"), ("PATCH", "/v1/routes"), ("PUT", "/v1/routes/c")];

    let malformed: [(&[u8], u64, u64); 10] = [
        (b"", 1, 0),
        (b"{", 1, 1),
        (b"{\n  \"routes\": x\n}", 2, 13),
        (b"{}x", 1, 3),
        (b"nul", 1, 3),
        (b"{\"a\":1,}", 1, 8),
        (b"01", 1, 2),
        (b"{'a':1}", 1, 2),
        (b"\"\xff\"", 1, 2),
        (b"1e999", 1, 5),
    ];
    for (body, line, column) in malformed {
        for (method, target) in writes {
            let call =
                Rejected { method, target, headers: &[("content-type", "application/json")], body, ..Rejected::default() };
            let response = api.rejected(Rejected { status: 400, code: "malformed_json", ..call }).await;
            let problem = problem(&response);
            assert_eq!((&problem["line"], &problem["column"]), (&line.into(), &column.into()), "{response}");
        }
    }

    let check = async |method: &str, target: &str, body: &str, status: u16, code: &str, places: &[&str]| {
        api.rejected(Rejected { method, target, body: body.as_bytes(), status, code, places, ..Rejected::default() }).await
    };
    let invalid = async |method: &str, target: &str, body: &str, places: &[&str]| {
        // A dry run finds the same errors as the write.
        check(method, &format!("{target}?dry_run=true"), body, 422, "invalid_routes", places).await;
        check(method, target, body, 422, "invalid_routes", places).await
    };
    for body in ["[]", "null", "7", "\"routes\""] {
        invalid("PUT", "/v1/routes", body, &[""]).await;
        invalid("PATCH", "/v1/routes", body, &[""]).await;
    }
    invalid("PUT", "/v1/routes", "{}", &[""]).await;
    invalid("PUT", "/v1/routes", r#"{"routes":{},"generation":7,"epoch":"x"}"#, &["/generation", "/epoch"]).await;
    invalid("PUT", "/v1/routes", r#"{"routes":{"d":2003},"routes":{"e":2004}}"#, &["/routes"]).await;
    invalid("PUT", "/v1/routes", r#"{"routes":[]}"#, &["/routes"]).await;
    invalid("PUT", "/v1/routes", r#"{"routes":{"d":2003,"d":2004}}"#, &["/routes/d"]).await;
    invalid("PATCH", "/v1/routes", r#"{"routes":{"a":null,"a":2004}}"#, &["/routes/a"]).await;
    let everything = r#"{"routes":{"":1024,"a b":2002,"x/y~z":2003,"c":80,"d":"2004","e":{"port":50051},
        "f":{"port":2005,"state":"up","weight":1},"g":{},"h":{"port":2006,"port":2007},"i":70000,"j":-1,"k":2008.5,"l":1e99,"m":null,"ok":2009}}"#;
    let places = [
        "/routes/",
        "/routes/a b",
        "/routes/x~1y~0z",
        "/routes/c",
        "/routes/d",
        "/routes/e/port",
        "/routes/f/weight",
        "/routes/f/state",
        "/routes/g/port",
        "/routes/h/port",
        "/routes/i",
        "/routes/j",
        "/routes/k",
        "/routes/l",
        "/routes/m",
    ];
    invalid("PUT", "/v1/routes", everything, &places).await;
    for port in [
        "0",
        "1023",
        "50050",
        "50051",
        "50052",
        "9901",
        "8080",
        "9090",
        "65536",
        "4294969296",
        "18446744073709553616",
        "-2000",
        "true",
        "\"2000\"",
        "[]",
    ] {
        invalid("PUT", "/v1/routes/c", port, &[""]).await;
        invalid("PUT", "/v1/routes/c", &format!(r#"{{"port":{port}}}"#), &["/port"]).await;
        invalid("PATCH", "/v1/routes", &format!(r#"{{"routes":{{"a":{{"port":{port}}}}}}}"#), &["/routes/a/port"]).await;
    }
    invalid("PUT", "/v1/routes/c", r#"{"port":2005,"state":"Active","id":"c"}"#, &["/id", "/state"]).await;

    // One port for two ids.
    let conflict = r#"{"routes":{"c":2002,"d":2002,"e":2003,"f":{"port":2002,"state":"draining"}}}"#;
    for method in ["PUT", "PATCH"] {
        check(method, "/v1/routes", conflict, 409, "port_in_use", &["/routes/d", "/routes/f"]).await;
        check(method, "/v1/routes?dry_run=true", conflict, 409, "port_in_use", &["/routes/d", "/routes/f"]).await;
    }
    // Errors that the body alone shows come first. Errors that need the map are named with them if both are known.
    invalid("PUT", "/v1/routes", r#"{"routes":{"c":2002,"d":2002,"e":80}}"#, &["/routes/e"]).await;
    invalid("PATCH", "/v1/routes", r#"{"routes":{"c":2002,"d":2002,"e":{"state":"active"}}}"#, &["/routes/e", "/routes/d"])
        .await;
    no_vm_fell_over(&envoy, &api).await;
}
