//! The counters behind the alerts and the dashboard move when what they count happens. Envoy also has counters that never move.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness::agents::{self, streams};
use harness::envoy::is_native;
use harness::proto::{DEPLOYMENT_ID, Empty, request_to};
use harness::{Envoy, certificate, ports, proto, wait};
use serde_json::json;
use tokio::net::TcpStream;

use crate::access_log_failures;
use crate::access_log_level::with_settings;
use crate::clients::http1;
use crate::observability::{dashboard_expressions, metrics_of, rules};

/// Counters that do not move in this test: those for a crash of the VM of the route API or of responses and for a VM that cannot be restarted, which Envoy
/// counts in the same way as restarts of the router's VM, and those of the other form of the filter.
fn unseen() -> [&'static str; 6] {
    [
        "envoy_wasm_pixell_admin_vm_reload_failure",
        "envoy_wasm_pixell_admin_vm_reload_success",
        "envoy_wasm_pixell_responses_vm_reload_failure",
        "envoy_wasm_pixell_responses_vm_reload_success",
        "envoy_wasm_pixell_router_vm_reload_failure",
        if is_native() { "envoy_wasm_pixell_router_vm_reload_success" } else { "pixell_panics_total" },
    ]
}

/// The sum of each metric over its labels.
async fn scrape(envoy: &Envoy) -> BTreeMap<String, f64> {
    let text = http1().get(envoy.api_url() + "/stats/prometheus").send().await.unwrap().text().await.unwrap();
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = (line.split(['{', ' ']).next().unwrap(), line.rsplit(' ').next().unwrap());
        *sums.entry(name.to_owned()).or_default() += value.parse::<f64>().unwrap();
    }
    sums
}

#[tokio::test]
async fn what_alerts_and_dashboard_watch_moves() {
    const MOST: usize = 20;
    let modules = harness::envoy::modules::locate_trap().unwrap();
    let shipped = "max_active_downstream_connections: 10000";
    let limited = shipped.replace("10000", &MOST.to_string());
    let envoy = Envoy::builder().modules(modules).edit(shipped, &limited).start().await.unwrap();
    let gone = agents::echo::start("gone").unwrap();
    let breaks = access_log_failures::says("breaks", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    let (resets, (streams, _)) = (access_log_failures::resets(), streams::start("s").unwrap());
    let routes = [("gone", gone.port()), ("breaks", breaks.port()), ("resets", resets.port()), ("s", streams.port())];
    envoy.routes().put_all(routes).await.unwrap();
    gone.kill();
    let get = async |id: &str, trap: bool| {
        let mut request = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, id);
        if trap {
            request = request.header("x-test-trap", "1");
        }
        if let Ok(response) = request.send().await {
            let _ = response.bytes().await;
        }
    };
    get("gone", false).await;
    get("breaks", false).await;
    get("unknown", false).await;
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    client.ping(request_to("resets", Empty {}).unwrap()).await.unwrap_err();
    let rejected = envoy.routes().put_routes(&"no object".into()).await.unwrap();
    assert_eq!(rejected.status, 422, "{rejected}");
    get("unknown", true).await;
    // The image's entry point sends these.
    envoy.tell_dropped_lines(1, 0).await.unwrap();
    let restarted = || async {
        get("unknown", false).await;
        Ok((envoy.stats().await?.crashes()? > 0).then_some(()))
    };
    wait::until("the filter to be restarted", Duration::from_secs(10), restarted).await.unwrap();
    // A call in flight while the counters are read, and more connections than allowed.
    let mut stub = streams::connect(envoy.data_addr()).await.unwrap();
    let hanging = tokio::spawn(async move { stub.hang(request_to("s", Default::default()).unwrap()).await.map(drop) });
    let mut held = Vec::new();
    for _ in 0..MOST * 2 {
        held.push(TcpStream::connect(envoy.data_addr()).await.unwrap());
    }

    let mut named = metrics_of(&rules());
    named.extend(dashboard_expressions().iter().flat_map(|expression| metrics_of(expression)));
    assert!(unseen().iter().all(|name| named.contains(*name)), "remove the exceptions that nothing watches any more");
    // The entry point's own counters have a test of their own.
    let elsewhere = |name: &str| name.starts_with("envoy_launcher_") || is_of_a_setting(name) || is_of_a_fleet(name);
    named.retain(|name| !unseen().contains(&name.as_str()) && !elsewhere(name));
    all_move(&[&envoy], &named).await;
    hanging.abort();
}

/// Waits until each of these counters has moved in one of the Envoys.
async fn all_move(envoys: &[&Envoy], named: &BTreeSet<String>) {
    let still = RefCell::default();
    let all_moved = || async {
        let mut found = Vec::new();
        for envoy in envoys {
            found.push(scrape(envoy).await);
        }
        let is_still = |name: &&String| found.iter().all(|found| found.get(*name).is_none_or(|value| *value == 0.0));
        still.replace(named.iter().filter(is_still).collect::<Vec<_>>());
        Ok(still.borrow().is_empty().then_some(()))
    };
    // Envoy updates histograms every five seconds, and pressures four times a second.
    let moved = wait::until("every counter to move", Duration::from_secs(20), all_moved).await;
    moved.unwrap_or_else(|error| panic!("{error}: {:?}", still.borrow()));
}

/// Whether this metric is always 0 without a fleet.
fn is_of_a_fleet(name: &str) -> bool {
    name.starts_with("pixell_fleet_")
}

/// Whether Envoy has this metric only with TLS, tokens or rates.
pub(crate) fn is_of_a_setting(name: &str) -> bool {
    let starts = [
        "envoy_http_jwt_authn_",
        "envoy_http_local_rate_limit_",
        "envoy_listener_server_ssl_socket_factory_",
        "envoy_sds_",
        "envoy_tokens_",
    ];
    starts.iter().any(|start| name.starts_with(start))
}

#[tokio::test]
async fn what_watches_tokens_rates_and_certificates_moves() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate::self_signed(directory.path(), 5).unwrap();
    let files = [("PIXELL_TLS_CERT_FILE", certificate.to_str().unwrap()), ("PIXELL_TLS_KEY_FILE", key.to_str().unwrap())];
    let secret = with_settings(&files).start().await.unwrap();
    // A file that is not a key, and then a new pair.
    let replace = |file: &std::path::Path, text: &[u8]| {
        let next = file.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, file).unwrap();
    };
    replace(&key, b"no key");
    let failed = || async {
        let found = scrape(&secret).await;
        Ok(found.get("envoy_sds_key_rotation_failed").filter(|count| **count > 0.0).map(drop))
    };
    wait::until("the key to be rejected", Duration::from_secs(20), failed).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let (new_certificate, new_key) = certificate::self_signed(other.path(), 5).unwrap();
    replace(&certificate, &std::fs::read(new_certificate).unwrap());
    replace(&key, &std::fs::read(new_key).unwrap());

    // Nobody listens at this port.
    let tokens = [("PIXELL_JWT_ISSUER", "i"), ("PIXELL_JWT_AUDIENCES", "a"), ("PIXELL_JWKS_URL", "http://127.0.0.1:9/keys")];
    let closed = with_settings(&tokens).start().await.unwrap();
    let rated = with_settings(&[("PIXELL_RATE_LIMIT", "1/m")]).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    rated.routes().put_all([("a", agent.port())]).await.unwrap();
    let get =
        async |envoy: &Envoy| http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap().status().as_u16();
    assert_eq!([get(&closed).await, get(&rated).await, get(&rated).await], [401, 200, 429]);

    let mut named = metrics_of(&rules());
    named.extend(dashboard_expressions().iter().flat_map(|expression| metrics_of(expression)));
    named.retain(|name| is_of_a_setting(name));
    assert!(named.len() >= 5, "{named:?}");
    all_move(&[&secret, &closed, &rated], &named).await;
}

#[tokio::test]
async fn what_watches_a_fleet_moves() {
    let peers = Cell::new(0);
    let start = |_| {
        peers.set(ports::any_free().unwrap());
        with_settings(&[("PIXELL_FLEET_CIDRS", "192.0.2.0/24")]).peer_port(peers.get())
    };
    let envoy = Envoy::on_free_port(start).await.unwrap();
    envoy.routes().put_all([]).await.unwrap();
    let write = async |body: serde_json::Value| {
        let request = envoy.routes().request(reqwest::Method::PUT, "/v1/fleet").json(&body);
        harness::RouteApi::send(request).await.unwrap().status
    };
    // Nobody has an address of this network (RFC 5737).
    assert_eq!(write(json!({"peers": {"gone": {"host": "192.0.2.1"}}, "routes": {"a": ["gone"]}})).await, 200);
    assert_eq!(write(json!("no object")).await, 422);
    assert_ne!(http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap().status(), 200);
    // As another task sends a request.
    let task = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let url = format!("http://127.0.0.1:{}/", peers.get());
    let response = task.get(url).header(DEPLOYMENT_ID, "b").send().await.unwrap();
    assert_eq!(response.headers()["x-pixell-error"], "deployment_moved");

    let mut named = metrics_of(&rules());
    named.extend(dashboard_expressions().iter().flat_map(|expression| metrics_of(expression)));
    named.retain(|name| is_of_a_fleet(name));
    assert!(named.len() >= 5, "{named:?}");
    all_move(&[&envoy], &named).await;
}
