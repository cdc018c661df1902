//! The filter's metrics, as Prometheus scrapes them.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// The values of a scrape by sample (name and labels), and the types by name.
struct Scrape {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

async fn scrape(envoy: &Envoy) -> Scrape {
    let text = reqwest::get(envoy.api_url() + "/stats/prometheus").await.unwrap().text().await.unwrap();
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} is announced twice");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            samples.insert(sample.replace("{}", ""), value.parse().unwrap());
        }
    }
    Scrape { samples, types }
}

impl Scrape {
    #[track_caller]
    fn check(&self, sample: &str, expected: f64) {
        let found = self.samples.get(sample).copied();
        assert!(found.is_some_and(|found| (found - expected).abs() < 0.5), "{sample} is {found:?}, not {expected}");
    }

    /// The sum of all samples of `name`.
    fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|(sample, _)| sample.split('{').next() == Some(name)).map(|(_, value)| value).sum()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test]
async fn names_and_types_are_there_from_the_start() {
    let envoy = Envoy::builder().start().await.unwrap();
    let scrape = scrape(&envoy).await;
    for (name, kind) in [
        ("pixell_rejections_total", "counter"),
        ("pixell_agent_cards_unchanged_total", "counter"),
        ("pixell_routes", "gauge"),
        ("pixell_route_map_generation", "gauge"),
        ("pixell_route_map_publishes_total", "counter"),
        ("pixell_displaced_routes_total", "counter"),
        ("pixell_route_map_last_push_timestamp_seconds", "gauge"),
        ("pixell_route_map_refused_writes_total", "counter"),
        ("pixell_fleet_routes", "gauge"),
        ("pixell_fleet_peers", "gauge"),
        ("pixell_fleet_map_generation", "gauge"),
        ("pixell_fleet_map_publishes_total", "counter"),
        ("pixell_fleet_map_last_push_timestamp_seconds", "gauge"),
        ("pixell_fleet_map_refused_writes_total", "counter"),
        ("pixell_build_info", "gauge"),
    ] {
        assert_eq!(scrape.types.get(name).map(String::as_str), Some(kind), "{name}");
        if kind == "gauge" && name != "pixell_build_info" {
            scrape.check(name, 0.0);
        }
    }
    scrape.check(&format!("pixell_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
    for reason in pixell_core::metrics::REJECTION_REASONS {
        scrape.check(&format!("pixell_rejections_total{{reason=\"{reason}\"}}"), 0.0);
    }
    for reason in pixell_core::metrics::WRITE_ERRORS {
        scrape.check(&format!("pixell_route_map_refused_writes_total{{reason=\"{reason}\"}}"), 0.0);
    }
}

#[tokio::test]
async fn rejections_are_counted_by_reason_and_no_id_is_a_label() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("very-own-id").unwrap();
    let http = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let ask = async |id: Option<&str>| {
        let mut request = http.get(envoy.data_url());
        if let Some(id) = id {
            request = request.header(DEPLOYMENT_ID, id);
        }
        request.send().await.unwrap();
    };
    ask(Some("nobody-knows")).await;
    let routes = json!({"routes": {"very-own-id": agent.port(), "leaving-id": {"port": 5001, "state": "draining"}}});
    envoy.routes().put_routes(&routes).await.unwrap();
    // One connection per request, so that both workers get some.
    for _ in 0..10 {
        ask(None).await;
        for id in ["two words", "two words", "nobody-knows", "nobody-knows", "nobody-knows", "leaving-id", "very-own-id"] {
            ask(Some(id)).await;
        }
    }
    let scrape = scrape(&envoy).await;
    for (reason, count) in [
        ("route_map_not_loaded", 1.0),
        ("missing_deployment_id", 10.0),
        ("invalid_deployment_id", 20.0),
        ("unknown_deployment", 30.0),
        ("deployment_draining", 10.0),
        ("deployment_moved", 0.0),
        ("internal", 0.0),
    ] {
        scrape.check(&format!("pixell_rejections_total{{reason=\"{reason}\"}}"), count);
    }
    for id in ["nobody-knows", "nobody_knows", "leaving-id", "very-own-id", "very_own_id"] {
        assert!(!scrape.samples.keys().any(|sample| sample.contains(id)), "{id} is in a metric");
    }
}

#[tokio::test]
async fn writes_are_counted_and_the_map_is_measured() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = envoy.routes();
    let before = now() - 1.0;
    api.put_all([("a", 5000), ("b", 5001), ("c", 5002)]).await.unwrap();
    api.delete_route("c").await.unwrap();
    let changed = scrape(&envoy).await;
    changed.check("pixell_routes", 2.0);
    changed.check("pixell_route_map_generation", 2.0);
    changed.check("pixell_route_map_publishes_total", 2.0);
    let pushed = changed.samples["pixell_route_map_last_push_timestamp_seconds"];
    assert!((before..=now()).contains(&pushed), "{pushed}");

    // Writes that change nothing, dry runs, rejected writes, and reads.
    api.delete_route("c").await.unwrap();
    RouteWrite { path: "/v1/routes/d?dry_run=true", body: "5003" }.send(&envoy).await;
    for (path, body) in
        [("/v1/routes", "{"), ("/v1/routes", r#"{"routes":{"a":1}}"#), ("/v1/routes/%20", "5000"), ("/v1/x", "1")]
    {
        RouteWrite { path, body }.send(&envoy).await;
    }
    RouteWrite { path: "/v1/routes", body: r#"{"routes":{"a":5000,"b":5000}}"# }.send(&envoy).await;
    api.route("nobody").await.unwrap();
    let after = scrape(&envoy).await;
    after.check("pixell_routes", 2.0);
    after.check("pixell_route_map_generation", 2.0);
    after.check("pixell_route_map_publishes_total", 2.0);
    assert!(after.samples["pixell_route_map_last_push_timestamp_seconds"] >= pushed);
    for reason in ["malformed_json", "invalid_routes", "invalid_deployment_id", "not_found", "port_in_use"] {
        after.check(&format!("pixell_route_map_refused_writes_total{{reason=\"{reason}\"}}"), 1.0);
    }
    assert!((after.sum("pixell_route_map_refused_writes_total") - 5.0).abs() < 0.5);

    // An id takes the port of another: first in a dry run, then in earnest.
    for (path, displaced) in [("/v1/routes/e?dry_run=true", 0.0), ("/v1/routes/e", 1.0)] {
        RouteWrite { path, body: "5000" }.send(&envoy).await;
        scrape(&envoy).await.check("pixell_displaced_routes_total", displaced);
    }
}

struct RouteWrite {
    path: &'static str,
    body: &'static str,
}

impl RouteWrite {
    async fn send(&self, envoy: &Envoy) {
        let request = envoy.routes().request(Method::PUT, self.path).header("content-type", "application/json").body(self.body);
        request.send().await.unwrap();
    }
}

#[tokio::test]
async fn a_worker_refreshes_once_per_change() {
    let envoy = Envoy::builder().concurrency(2).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    let http = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    for generation in 0..3 {
        envoy.routes().put_all([("a", agent.port()), ("b", 5000 + generation)]).await.unwrap();
        for _ in 0..30 {
            assert_eq!(http.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap().status(), 200);
        }
    }
    let stats = envoy.stats().await.unwrap();
    assert!(stats.worker_connections("agents").unwrap().values().all(|count| *count >= 3), "both workers got requests");
    let scrape = scrape(&envoy).await;
    for worker in 1..=2 {
        let sample = format!("pixell_route_map_refreshes_total{{worker=\"{worker}\"}}");
        let refreshes = scrape.samples[&sample];
        assert!((1.0..=3.0).contains(&refreshes), "{sample} is {refreshes}");
    }
    assert!(scrape.sum("pixell_route_map_refreshes_total") >= 4.0);
}

/// Writers on several connections, and so on several workers. Whichever of them writes last, the gauges show the current map.
#[tokio::test]
async fn gauges_agree_with_the_map_after_writers_raced() {
    let envoy = Envoy::builder().concurrency(4).start().await.unwrap();
    let write = async |writer: u16| {
        let api = envoy.routes();
        for n in 0..20 {
            let id = format!("w{writer}-{n}");
            let response = api.put_route(&id, &json!(10_000 + writer * 100 + n)).await.unwrap();
            assert_eq!(response.status, 201, "{response}");
            if n % 2 == 0 {
                assert_eq!(api.delete_route(&id).await.unwrap().status, 204);
            }
        }
    };
    futures_util::future::join_all((0..8).map(write)).await;
    let status: Value = envoy.routes().status().await.unwrap().json().unwrap();
    assert_eq!(status["routes"], 80);
    let scrape = scrape(&envoy).await;
    scrape.check("pixell_routes", 80.0);
    scrape.check("pixell_route_map_generation", status["generation"].as_f64().unwrap());
    scrape.check("pixell_route_map_publishes_total", status["generation"].as_f64().unwrap());
}

#[tokio::test]
async fn envoys_own_metrics_are_scraped() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    let gone = agents::echo::start("gone").unwrap();
    envoy.routes().put_all([&agent, &gone].map(|agent| (agent.name(), agent.port()))).await.unwrap();
    gone.kill();
    let http = Client::builder().no_proxy().build().unwrap();
    for id in ["a", "gone"] {
        http.get(envoy.data_url()).header(DEPLOYMENT_ID, id).send().await.unwrap();
    }
    let scrape = scrape(&envoy).await;
    scrape.check("envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"agents\"}", 2.0);
    // How many attempts fit into a second depends on the random waits between them.
    let name = "envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name=\"agents_http1\"}";
    let failed = scrape.samples[name];
    assert!((4.0..=31.0).contains(&failed), "{failed}");
    assert_eq!(scrape.types["envoy_http_downstream_rq_time"], "histogram");
}
