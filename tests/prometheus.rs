//! A real Prometheus scrapes a real Envoy: the dashboard's panels have data, the series in the alert rules exist, and the alert for a
//! crash fires after a crash.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is how a test fails"
)]

mod ends;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, RouteApi, agents, ports, wait};
use launcher::settings::{FLEET_CIDRS, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A Prometheus that scrapes one Envoy every second.
struct Prometheus {
    process: Child,
    url: String,
    http: reqwest::Client,
    _directory: TempDir,
}

impl Prometheus {
    async fn start(envoy: &Envoy) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // JSON is YAML. The job has the name that the alert rules and docs/operations.md give it.
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [workspace::root().join("deploy/observability/prometheus-rules.yaml")],
            "scrape_configs": [{
                "job_name": "pixell-envoy", "metrics_path": "/stats/prometheus",
                "static_configs": [{"targets": [envoy.api_addr().to_string()]}],
            }],
        });
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string())?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .context("prometheus is missing: install the Debian package prometheus")?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { process, url: format!("http://{address}/api/v1"), http, _directory: directory })
    }

    /// `data` of the response to a call of Prometheus' HTTP API.
    async fn get(&self, call: &str, query: &[(&str, &str)]) -> Result<Value> {
        let mut url = reqwest::Url::parse(&format!("{}/{call}", self.url))?;
        url.query_pairs_mut().extend_pairs(query);
        let response: Value = self.http.get(url).send().await?.json().await?;
        anyhow::ensure!(response["status"] == "success", "{query:?}: {response}");
        Ok(response["data"].clone())
    }

    /// Whether the expression has a number now.
    async fn has_data(&self, expression: &str) -> Result<bool> {
        let found = self.get("query", &[("query", expression)]).await?;
        let is_number = |series: &Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
        Ok(found["result"].as_array().context("a vector")?.iter().any(is_number))
    }

    /// The states of the alert; none if it is quiet.
    async fn states(&self, alert: &str) -> Result<BTreeSet<String>> {
        let alerts = self.get("alerts", &[]).await?;
        let all = alerts["alerts"].as_array().context("a list")?.iter();
        let ours = all.filter(|found| found["labels"]["alertname"] == alert);
        Ok(ours.filter_map(|found| found["state"].as_str().map(ToOwned::to_owned)).collect())
    }

    /// Waits until every expression has a number.
    async fn all_have_data(&self, expressions: &BTreeSet<String>) {
        for expression in expressions {
            // Prometheus does not respond until it has started, and an expression that it cannot read always fails.
            let look = || async { Ok(self.has_data(expression).await.is_ok_and(|found| found).then_some(())) };
            if let Err(error) = wait::until("data", PATIENCE, look).await {
                panic!("{error} of {expression}: {:?}", self.has_data(expression).await);
            }
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(name: &str) -> String {
    std::fs::read_to_string(workspace::root().join("deploy/observability").join(name)).unwrap()
}

fn dashboard() -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let filled = |expression: &str| expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
    targets.map(|target| filled(target["expr"].as_str().unwrap())).collect()
}

/// Each metric of the alert rules with its label matchers, without functions and operators.
fn selectors(rules: &str) -> BTreeSet<String> {
    let lines = rules.lines().filter(|line| !line.contains("runbook:") && !line.contains("summary:") && !line.contains('#'));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(|c: char| c.is_ascii_alphabetic()) {
        let starts_word = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let rest = &text[at..];
        if starts_word && (rest.starts_with("pixell_") || rest.starts_with("envoy_") || rest.starts_with("up{")) {
            let name = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap();
            let end = if rest[name..].starts_with('{') { rest.find('}').unwrap() + 1 } else { name };
            found.insert(rest[..end].to_owned());
        }
    }
    // Label names within the braces of another metric look like metrics as well.
    let within = |one: &String| found.iter().any(|other| other != one && other.contains(&format!("{{{one}")));
    found.iter().filter(|one| !within(one)).cloned().collect()
}

#[tokio::test]
async fn the_dashboard_shows_and_the_alerts_see_a_live_envoy() {
    let modules = harness::envoy::modules::locate_trap().unwrap();
    let settings = Settings::resolve(|name| (name == FLEET_CIDRS).then(|| "10.0.0.0/8".into())).unwrap();
    let in_a_fleet = |_| Envoy::builder().settings(&settings).modules(&modules).peer_port(ports::any_free().unwrap());
    let envoy = Envoy::on_free_port(in_a_fleet).await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    envoy.tell_dropped_lines(0, 0).await.unwrap();
    let prometheus = Prometheus::start(&envoy).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (url, ask) = (envoy.data_url(), http.clone());
    let traffic = tokio::spawn(async move {
        loop {
            for id in ["a", "unknown"] {
                let _ = ask.get(&url).header(DEPLOYMENT_ID, id).send().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    prometheus.all_have_data(&dashboard()).await;
    // Only Envoys with TLS, tokens or a rate have these; `tests/envoy/counters.rs` looks for them there.
    let elsewhere =
        ["envoy_sds_", "envoy_listener_server_ssl_", "envoy_http_jwt_authn_", "envoy_http_local_rate_limit_", "envoy_tokens_"];
    let mut selectors = selectors(&read("prometheus-rules.yaml"));
    selectors.retain(|selector| !elsewhere.iter().any(|start| selector.starts_with(start)));
    assert!(selectors.len() >= 12, "{selectors:?}");
    prometheus.all_have_data(&selectors).await;
    const NOT_LOADED: &str = "PixellFleetMapNotLoaded";
    let waits = || async { Ok((!prometheus.states(NOT_LOADED).await?.is_empty()).then_some(())) };
    wait::until("the alert for a missing fleet map", PATIENCE, waits).await.unwrap();
    let fleet = envoy.routes().request(Method::PUT, "/v1/fleet").json(&json!({"peers": {}, "routes": {}}));
    assert_eq!(RouteApi::send(fleet).await.unwrap().status, 200);
    let ends = || async { Ok(prometheus.states(NOT_LOADED).await?.is_empty().then_some(())) };
    wait::until("the end of that alert", PATIENCE, ends).await.unwrap();

    let firing = async || {
        let alerts = prometheus.get("alerts", &[]).await?;
        let firing = alerts["alerts"].as_array().context("a list")?.iter().filter(|alert| alert["state"] == "firing");
        anyhow::Ok(firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap_or("?").to_owned()).collect::<BTreeSet<_>>())
    };
    assert_eq!(firing().await.unwrap(), BTreeSet::new(), "before the crash");
    let _ = http.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").header("x-test-trap", "1").send().await;
    let fires = || async {
        // Envoy restarts a VM at the next request of its worker. The traffic has one connection, perhaps of the other worker, so all at once.
        let unknown = || http.get(envoy.data_url()).header(DEPLOYMENT_ID, "unknown").send();
        futures_util::future::join_all((0..20).map(|_| unknown())).await;
        Ok(firing().await?.contains("PixellFilterFault").then_some(()))
    };
    wait::until("the alert for a crash", PATIENCE, fires).await.unwrap();
    traffic.abort();
}

/// This test checks whether the alert becomes pending. promtool's test of the rules checks when it fires.
#[tokio::test]
async fn killed_agents_raise_an_alert_and_closed_websockets_do_not() {
    const ALERT: &str = "PixellAgentsBreakOff";
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = ends::websocket_agent();
    envoy.routes().put_all([("ws", agent.port())]).await.unwrap();
    let prometheus = Prometheus::start(&envoy).await.unwrap();
    let closed = "envoy_cluster_upstream_cx_destroy_remote_with_active_rq{envoy_cluster_name=\"agents_websocket\"}";
    let broken = "sum(envoy_cluster_upstream_cx_destroy_remote_with_active_rq{envoy_cluster_name=~\"agents_http[12]\"})";
    // A counter's first value is no increase.
    prometheus.all_have_data(&BTreeSet::from([closed.to_owned(), broken.to_owned()])).await;
    ends::close_websockets(&envoy).await;
    prometheus.all_have_data(&BTreeSet::from([format!("{closed} > 15")])).await;
    // Two more evaluations of the rules.
    prometheus.all_have_data(&BTreeSet::from([format!("min_over_time({closed}[3s]) > 15")])).await;
    assert_eq!(prometheus.states(ALERT).await.unwrap(), BTreeSet::new());

    ends::kill_agents(&envoy).await;
    let begins = || async { Ok((!prometheus.states(ALERT).await?.is_empty()).then_some(())) };
    wait::until("the alert for agents that break off", PATIENCE, begins).await.unwrap();
}
