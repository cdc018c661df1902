//! What the plugin configuration may say, and what is refused.

use super::*;
use crate::route::RouteState;
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
    assert_eq!(router, RouterConfig { id_headers: vec!["x-deployment-id".to_owned()], fallback_port: None });
    let admin = admin_config(r#"{"role":"admin"}"#);
    assert_eq!(admin.limits, Limits::default());
    assert_eq!(admin.max_body_bytes, 4096 + 10_000 * 256);
    assert_eq!(admin.bootstrap_routes, None);
}

#[test]
fn takes_every_setting() {
    let router = router_config(r#"{"role":"router","id_headers":["x-deployment-id","deployment_id"],"fallback_port":50052}"#);
    assert_eq!(router.id_headers, ["x-deployment-id", "deployment_id"]);
    assert_eq!(router.fallback_port, Some(50052));
    let admin = admin_config(
        r#"{"role":"admin","port_range":{"min":2000,"max":3000},"denied_ports":[2001],"max_routes":5,"max_id_bytes":36,
            "max_body_bytes":1000,"bootstrap_routes":{"a":2000,"b":{"port":2002,"state":"draining"}}}"#,
    );
    let limits = Limits { min_port: 2000, max_port: 3000, denied_ports: vec![2001], max_routes: 5, max_id_bytes: 36 };
    assert_eq!((admin.limits, admin.max_body_bytes), (limits, 1000));
    let a = Route { port: 2000, state: RouteState::Active };
    let b = Route { port: 2002, state: RouteState::Draining };
    assert_eq!(admin.bootstrap_routes, Some(vec![("a".to_owned(), a), ("b".to_owned(), b)]));
}

#[test]
fn names_every_fault() {
    #[track_caller]
    fn check(text: &str, pointers: &[&str]) {
        let router = text.contains("router") || text.contains("rooter");
        let error = if router { RouterConfig::parse(text.as_bytes()).err() } else { AdminConfig::parse(text.as_bytes()).err() };
        let InvalidConfig(faults) = error.expect("invalid");
        let found: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(found, pointers, "{faults:?}");
    }
    check("", &[""]);
    check("[]", &["", "/role"]);
    check("{}", &["/role"]);
    check(r#"{"role":"rooter"}"#, &["/role"]);
    check(r#"{"role":"router","role":"admin"}"#, &["/role"]);
    check(r#"{"role":"router","max_routes":5}"#, &["/max_routes"]);
    check(r#"{"role":"router","id_headers":[]}"#, &["/id_headers"]);
    check(r#"{"role":"router","id_headers":["X-Id"],"fallback_port":0}"#, &["/id_headers", "/fallback_port"]);
    check(r#"{"role":"router","id_headers":[":path"]}"#, &["/id_headers"]);
    check(r#"{"role":"router","id_headers":["a","a"]}"#, &["/id_headers"]);
    check(r#"{"role":"admin","port_range":{"min":5,"max":4}}"#, &["/port_range"]);
    check(r#"{"role":"admin","port_range":{"min":"5","mx":4}}"#, &["/port_range/min", "/port_range/mx"]);
    check(r#"{"role":"admin","denied_ports":[70000],"max_routes":0}"#, &["/denied_ports", "/max_routes"]);
    check(r#"{"role":"admin","max_routes":65536,"max_id_bytes":129}"#, &["/max_routes", "/max_id_bytes"]);
    check(r#"{"role":"admin","max_body_bytes":32000001}"#, &["/max_body_bytes"]);
    check(r#"{"role":"admin","bootstrap_routes":{"a":80,"b c":2000}}"#, &["/bootstrap_routes/b c", "/bootstrap_routes/a"]);
    check(r#"{"role":"admin","bootstrap_routes":{"a":2000,"b":2000}}"#, &["/bootstrap_routes/b"]);
    check(r#"{"role":"admin","bootstrap_routes":7}"#, &["/bootstrap_routes"]);
}

#[test]
fn the_message_is_one_line_with_key_and_fault() {
    let error = AdminConfig::parse(br#"{"role":"admin","max_routs":5,"max_routes":0}"#).expect_err("invalid");
    assert_eq!(error.to_string(), "/max_routes must be an integer from 1 to 65535, got 0; /max_routs is not a known key");
}
