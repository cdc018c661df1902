//! What the plugin configuration may say, and what is an error.

use super::*;
use crate::addressing::prefix::PathPrefix;
use crate::endpoint::EndpointName;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[track_caller]
fn router_config(text: &str) -> RouterConfig {
    RouterConfig::parse(text.as_bytes()).expect("valid")
}

#[track_caller]
fn admin_config(text: &str) -> AdminConfig {
    AdminConfig::parse(text.as_bytes()).expect("valid")
}

#[test]
fn defaults_are_those_of_the_docs() {
    let router = router_config(r#"{"role":"router"}"#);
    assert_eq!(router.id_headers, ["x-deployment-id", "deployment-id", "deployment_id"]);
    assert_eq!(router.addressing, Addressing { prefixes: PathPrefix::defaults(), host_suffix: None });
    assert_eq!((router.fallback_port, router.external_origins), (None, ExternalOrigins::default()));
    let admin = admin_config(r#"{"role":"admin"}"#);
    assert_eq!(admin.limits, Limits::default());
    assert_eq!(admin.max_body_bytes, 4096 + 10_000 * 256);
    assert_eq!((admin.bootstrap_routes, admin.fleet), (None, None));
    let fleet = admin_config(r#"{"role":"admin","fleet":{"peer_cidrs":["10.0.0.0/8"]}}"#).fleet.expect("given");
    let peer_cidrs = vec!["10.0.0.0/8".parse().expect("a network")];
    assert_eq!(fleet.limits, FleetLimits { peer_cidrs, max_peers: 1000, max_routes: 100_000, max_id_bytes: 128 });
    assert_eq!(fleet.max_body_bytes, 29_060_096);
    let clients = ClientsConfig::parse(br#"{"role":"clients","connections":20}"#).expect("valid");
    assert_eq!(clients, ClientsConfig { connections: 20, requests_per_agent: 256 });
}

#[test]
fn takes_every_setting() {
    let router = router_config(
        r#"{"role":"router","id_headers":["x-deployment-id","id"],"fallback_port":50052,"external_origins":["https://a.test","http://*.b.test:8080"],"host_suffix":".agents.example.com",
            "path_prefixes":["/{id}/{endpoint}",{"prefix":"/a/{id}","endpoints":["ui","a2a"],"strip":false}]}"#,
    );
    assert_eq!(router.id_headers, ["x-deployment-id", "id"]);
    let prefixes = vec![
        PathPrefix::parse("/{id}/{endpoint}", &[], true).expect("valid"),
        PathPrefix::parse("/a/{id}", &[EndpointName::UI, EndpointName::A2A], false).expect("valid"),
    ];
    assert_eq!(router.addressing, Addressing { prefixes, host_suffix: Some(".agents.example.com".to_owned()) });
    assert_eq!(router.fallback_port, Some(50052));
    let origins = ExternalOrigins::default().with("https://a.test").and_then(|some| some.with("http://*.b.test:8080"));
    assert_eq!(Some(router.external_origins), origins);
    let admin = admin_config(
        r#"{"role":"admin","port_range":{"min":2000,"max":3000},"denied_ports":[2001],"max_routes":5,"max_id_bytes":36,
            "max_body_bytes":1000,"bootstrap_routes":{"a":2000,"b":{"port":2002,"state":"draining"}}}"#,
    );
    let limits = Limits { min_port: 2000, max_port: 3000, denied_ports: vec![2001], max_routes: 5, max_id_bytes: 36 };
    assert_eq!((admin.limits, admin.max_body_bytes), (limits, 1000));
    let fleet = r#"{"role":"admin","max_id_bytes":36,"fleet":{"peer_cidrs":["10.0.0.0/8","fd00::/8"],"max_peers":3,"max_routes":5,"max_body_bytes":7}}"#;
    let fleet = admin_config(fleet).fleet.expect("given");
    let peer_cidrs = ["10.0.0.0/8", "fd00::/8"].map(|cidr| cidr.parse().expect("a network")).to_vec();
    assert_eq!(fleet.limits, FleetLimits { peer_cidrs, max_peers: 3, max_routes: 5, max_id_bytes: 36 });
    assert_eq!(fleet.max_body_bytes, 7);
    let routes = admin.bootstrap_routes.expect("given");
    let routes: Vec<_> = routes.iter().map(|(id, route)| (id.as_id().as_str(), route.clone())).collect();
    assert_eq!(routes, [("a", Route::active(2000)), ("b", Route::draining(2002))]);
}

#[test]
fn names_every_error() {
    #[track_caller]
    fn check(text: &str, pointers: &[&str]) {
        let router = text.contains("router") || text.contains("rooter");
        let error = match text {
            _ if router => RouterConfig::parse(text.as_bytes()).err(),
            _ if text.contains("\"clients\"") => ClientsConfig::parse(text.as_bytes()).err(),
            _ => AdminConfig::parse(text.as_bytes()).err(),
        };
        let InvalidConfig(errors) = error.expect("invalid");
        let found: Vec<_> = errors.listed().iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(found, pointers, "{errors:?}");
    }
    check("", &[""]);
    check("[]", &["", "/role"]);
    check("{}", &["/role"]);
    check(r#"{"role":"rooter"}"#, &["/role"]);
    check(r#"{"role":"router","role":"admin"}"#, &["/role"]);
    check(r#"{"role":"router","max_routes":5}"#, &["/max_routes"]);
    assert!(router_config(r#"{"role":"router","id_headers":[]}"#).id_headers.is_empty());
    assert!(router_config(r#"{"role":"router","path_prefixes":[]}"#).addressing.prefixes.is_empty());
    check(r#"{"role":"router","id_headers":[],"path_prefixes":[]}"#, &["/id_headers"]);
    check(r#"{"role":"router","path_prefixes":"/{id}"}"#, &["/path_prefixes"]);
    check(
        r#"{"role":"router","path_prefixes":[7,"/x",{"prefix":7},{"endpoints":["a"]}]}"#,
        &[
            "/path_prefixes/0",
            "/path_prefixes/0/prefix",
            "/path_prefixes/1",
            "/path_prefixes/2/prefix",
            "/path_prefixes/3/prefix",
        ],
    );
    let bad = r#"{"role":"router","path_prefixes":[{"prefix":"/{id}","endpoints":[],"strip":1,"x":1},{"prefix":"/{id}","endpoints":["A"]}]}"#;
    let places = ["/path_prefixes/0/x", "/path_prefixes/0/strip", "/path_prefixes/0/endpoints", "/path_prefixes/1/endpoints"];
    check(bad, &places);
    for suffix in ["agents.example.com", ".", ".A.com", ".a..com", ".-a", ".a-", ".a b"] {
        check(&format!(r#"{{"role":"router","host_suffix":"{suffix}"}}"#), &["/host_suffix"]);
    }
    check(r#"{"role":"router","id_headers":["X-Id"],"fallback_port":0}"#, &["/id_headers", "/fallback_port"]);
    for origins in ["1", "[1]", "[\"a.test\"]", "[\"https://a.test/\"]"] {
        check(&format!(r#"{{"role":"router","external_origins":{origins}}}"#), &["/external_origins"]);
    }
    check(r#"{"role":"router","id_headers":[":path"]}"#, &["/id_headers"]);
    check(r#"{"role":"router","id_headers":["a","a"]}"#, &["/id_headers"]);
    check(r#"{"role":"admin","port_range":{"min":5,"max":4}}"#, &["/port_range"]);
    check(r#"{"role":"admin","port_range":{"min":"5","mx":4}}"#, &["/port_range/min", "/port_range/mx"]);
    check(r#"{"role":"admin","denied_ports":[70000],"max_routes":0}"#, &["/denied_ports", "/max_routes"]);
    check(r#"{"role":"admin","max_routes":65536,"max_id_bytes":129}"#, &["/max_routes", "/max_id_bytes"]);
    check(r#"{"role":"admin","max_body_bytes":32000001}"#, &["/max_body_bytes"]);
    check(r#"{"role":"admin","bootstrap_routes":{"a":80,"b c":2000}}"#, &["/bootstrap_routes/b c", "/bootstrap_routes/a"]);
    check(r#"{"role":"admin","bootstrap_routes":{"a":2000,"b":2000}}"#, &["/bootstrap_routes/b"]);
    check(
        r#"{"role":"admin","bootstrap_routes":{"a":2000,"b":{"port":2001,"endpoints":{"x":2000}}}}"#,
        &["/bootstrap_routes/b"],
    );
    check(r#"{"role":"clients"}"#, &["/connections"]);
    check(r#"{"role":"clients","connections":0,"requests_per_agent":1025}"#, &["/connections", "/requests_per_agent"]);
    check(r#"{"role":"admin","bootstrap_routes":7}"#, &["/bootstrap_routes"]);
    for cidrs in ["7", "[]", "[7]", "[\"10.0.0.1/8\"]", "[\"10.0.0.0\"]"] {
        check(&format!(r#"{{"role":"admin","fleet":{{"peer_cidrs":{cidrs}}}}}"#), &["/fleet/peer_cidrs"]);
    }
    check(r#"{"role":"admin","fleet":{"max_peers":1001,"x":1}}"#, &["/fleet/peer_cidrs", "/fleet/max_peers", "/fleet/x"]);
    check(r#"{"role":"admin","fleet":[]}"#, &["/fleet", "/fleet/peer_cidrs"]);
}

#[test]
fn the_message_is_one_line_with_key_and_error() {
    let error = AdminConfig::parse(br#"{"role":"admin","max_routs":5,"max_routes":0}"#).expect_err("invalid");
    assert_eq!(error.to_string(), "/max_routes must be an integer from 1 to 65535, got 0; /max_routs is not a known key");
}

#[test]
fn links_lead_to_an_origin_or_nowhere() {
    assert_eq!(admin_config(r#"{"role":"admin"}"#).agents_url, AGENTS_URL);
    for url in ["", "https://a.test", "http://[::1]:8080", "//{host}", "//{host}:5"] {
        assert_eq!(admin_config(&format!(r#"{{"role":"admin","agents_url":"{url}"}}"#)).agents_url, url);
    }
    for url in ["a.test", "https://", "https://a.test/", "ftp://a", "//{host}{host}", "//{id}", "//a\\\"b", "//a b"] {
        let error =
            AdminConfig::parse(format!(r#"{{"role":"admin","agents_url":"{url}"}}"#).as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with("/agents_url must be an origin such as https://agents.example.com or //{host}:50051, or"),
            "{error}"
        );
    }
}
