//! The configuration of both roles in a running Envoy: what each setting does, and that an invalid one keeps Envoy from starting.

use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy, EnvoyBuilder, agents};
use serde_json::{Value, json};

use crate::api::{Api, Rejected, no_vm_fell_over, problem};
use crate::clients::http1;

/// An Envoy whose admin filter has `settings` besides its role.
pub(crate) fn with_admin(settings: &str) -> EnvoyBuilder {
    Envoy::builder().edit("\"role\": \"admin\"", &format!("\"role\": \"admin\", {settings}"))
}

/// An Envoy whose router filter has `settings` besides its role.
pub(crate) fn with_router(settings: &str) -> EnvoyBuilder {
    Envoy::builder().edit("\"role\": \"router\"", &format!("\"role\": \"router\", {settings}"))
}

/// The agent that a request with these headers reaches, or the code of its rejection.
async fn reached(envoy: &Envoy, headers: &[(&str, &str)]) -> String {
    let mut request = http1().get(envoy.data_url());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    if let Some(code) = response.headers().get("x-pixell-error") {
        return code.to_str().unwrap().to_owned();
    }
    response.json::<Value>().await.unwrap()["agent"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_invalid_configuration_keeps_envoy_from_starting() {
    for (envoy, errors) in [
        (
            with_admin("\"max_routs\": 5, \"max_routes\": 0"),
            ["/max_routs is not a known key", "/max_routes must be an integer from 1 to 65535, got 0"],
        ),
        (
            with_admin("\"denied_ports\": [70000], \"max_routes\": 5, \"max_routes\": 6"),
            ["/denied_ports", "/max_routes is given twice"],
        ),
        (with_admin("\"bootstrap_routes\": {\"a\": 80, \"b c\": 2000}"), ["/bootstrap_routes/a", "/bootstrap_routes/b c"]),
        (
            with_admin("\"id_headers\": [\"x-deployment-id\"], \"fallback_port\": 50052"),
            ["/id_headers is not a known key", "/fallback_port is not a known key"],
        ),
        (with_router("\"fallback_port\": 0, \"id_headers\": [\"X-Id\"]"), ["/fallback_port", "/id_headers"]),
        (
            with_router("\"port_range\": {}, \"max_routes\": 1"),
            ["/port_range is not a known key", "/max_routes is not a known key"],
        ),
        (Envoy::builder().edit("\"role\": \"router\"", "\"role\": \"admin\""), ["/role", "router"]),
        (Envoy::builder().edit("\"role\": \"admin\"", "\"role\": \"admin\","), ["the configuration is not JSON", "line 3"]),
    ] {
        let error = envoy.start().await.unwrap_err().to_string();
        assert!(error.contains("Envoy ended at its start"), "{error}");
        // One line of the log has all errors.
        let line = error.lines().find(|line| line.contains("configuration of the ")).unwrap_or_else(|| panic!("{error}"));
        assert!(line.contains("[error]") || line.contains("[critical]"), "{line}");
        assert!(errors.iter().all(|error| line.contains(error)), "{line}");
    }
}

#[tokio::test]
async fn the_configured_limits_apply() {
    let settings = r#""port_range": {"min": 2000, "max": 50060}, "denied_ports": [2500], "max_routes": 3, "max_id_bytes": 8, "max_body_bytes": 120"#;
    let envoy = with_admin(settings).start().await.unwrap();
    let api = Api::open(&envoy).await;
    // The configured list of denied ports replaces the default list.
    let most = r#"{"routes":{"12345678":2000,"b":50060,"c":50051}}"#;
    assert_eq!(api.call("PUT", "/v1/routes", most).await.status, 200);
    let put = |target, body: &'static str, status, code, places| Rejected {
        method: "PUT",
        target,
        body: body.as_bytes(),
        status,
        code,
        places,
        ..Rejected::default()
    };
    for port in ["1999", "50061", "2500"] {
        api.rejected(put("/v1/routes/b", port, 422, "invalid_routes", &[""])).await;
    }
    // In the body of one route, the pointer can only be to the whole.
    let full = api.rejected(put("/v1/routes/d", "2001", 422, "invalid_routes", &[""])).await;
    assert!(problem(&full)["errors"][0]["detail"].as_str().unwrap().contains("at most 3"), "{full}");
    api.rejected(put("/v1/routes", r#"{"routes":{"a":2001,"b":2002,"c":2003,"d":2004}}"#, 422, "invalid_routes", &["/routes"]))
        .await;
    api.rejected(put("/v1/routes", r#"{"routes":{"123456789":2001}}"#, 422, "invalid_routes", &["/routes/123456789"])).await;
    let long = Rejected {
        headers: &[("content-type", "application/json")],
        ..put("/v1/routes/123456789", "2001", 400, "invalid_deployment_id", &[])
    };
    api.rejected(long).await;
    let body = format!("{most:<121}");
    let large = Rejected {
        method: "PUT",
        target: "/v1/routes",
        body: body.as_bytes(),
        status: 413,
        code: "payload_too_large",
        ..Rejected::default()
    };
    assert!(problem(&api.rejected(large).await)["detail"].as_str().unwrap().contains("max_body_bytes"));
    assert_eq!(api.call("PUT", "/v1/routes", &body[..120]).await.status, 200);
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn a_map_holds_as_many_routes_as_there_are_ports() {
    let envoy =
        with_admin(r#""max_routes": 65535, "port_range": {"min": 1, "max": 65535}, "denied_ports": []"#).start().await.unwrap();
    let api = Api::open(&envoy).await;
    let routes: serde_json::Map<String, Value> = (1..=65_535_u16).map(|port| (format!("{port:036}"), port.into())).collect();
    let response = api.call("PUT", "/v1/routes", &json!({ "routes": routes }).to_string()).await;
    assert_eq!((response.status.as_u16(), response.json().unwrap()["added"].as_u64()), (200, Some(65_535)), "{response}");
    // Every port belongs to another id.
    let response = api.call("PUT", "/v1/routes/one-more", "4711").await.json().unwrap();
    assert_eq!(response["displaced"], json!([format!("{:036}", 4711)]));
    no_vm_fell_over(&envoy, &api).await;
}

/// For a migration in steps: ids that are not in the map go to the old router.
#[tokio::test]
async fn ids_that_the_map_does_not_hold_go_to_the_fallback_port() {
    let [old, a] = ["old-router", "a"].map(|name| agents::echo::start(name).unwrap());
    let envoy = with_router(&format!("\"fallback_port\": {}", old.port())).start().await.unwrap();
    let reach = async |id| reached(&envoy, &[(DEPLOYMENT_ID, id)]).await;
    assert_eq!(reach("a").await, "old-router", "no map has been pushed yet");
    let api = Api::open(&envoy).await;
    let routes = json!({"routes": {"a": a.port(), "leaving": {"port": 2000, "state": "draining"}}}).to_string();
    assert_eq!(api.call("PUT", "/v1/routes", &routes).await.status, 200);
    for (id, expected) in
        [("a", "a"), ("b", "old-router"), ("leaving", "deployment_draining"), ("no id!", "invalid_deployment_id")]
    {
        assert_eq!(reach(id).await, expected, "{id}");
    }
    assert_eq!(reached(&envoy, &[]).await, "missing_deployment_id");
    // A removed id goes to the old router again.
    api.call("DELETE", "/v1/routes/a", "").await;
    assert_eq!(reach("a").await, "old-router");
}

#[tokio::test]
async fn the_first_header_that_a_request_has_names_the_agent() {
    let [a, b] = ["a", "b"].map(|name| agents::echo::start(name).unwrap());
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([&a, &b].map(|agent: &Agent| (agent.name(), agent.port()))).await.unwrap();
    for (headers, expected) in [
        (&[("x-deployment-id", "a")][..], "a"),
        (&[("deployment-id", "a")], "a"),
        (&[("deployment_id", "a")], "a"),
        (&[("deployment_id", "b"), ("deployment-id", "a")], "a"),
        (&[("deployment_id", "b"), ("deployment-id", "b"), ("x-deployment-id", "a")], "a"),
        (&[("deployment-id", "a"), ("x-deployment-id", "none")], "unknown_deployment"),
        (&[("deployment-id", "a"), ("x-deployment-id", "no id!")], "invalid_deployment_id"),
        (&[("deployment-id", "a"), ("deployment-id", "b")], "invalid_deployment_id"),
        (&[("deploymentid", "a")], "missing_deployment_id"),
    ] {
        assert_eq!(reached(&envoy, headers).await, expected, "{headers:?}");
    }
    // A header that is not configured names no agent.
    let envoy = with_router(r#""id_headers": ["x-deployment-id"]"#).start().await.unwrap();
    envoy.routes().put_all([("a", a.port())]).await.unwrap();
    assert_eq!(reached(&envoy, &[("deployment-id", "a"), ("deployment_id", "a")]).await, "missing_deployment_id");
}
