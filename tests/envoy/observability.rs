//! Every metric that the dashboard and the alert rules name exists: each name is looked up in a live scrape.

use std::collections::BTreeSet;

use harness::envoy::is_native;
use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents};
use serde_json::Value;

use crate::counters::is_of_a_setting;

const DIRECTORY: &str = "deploy/observability";

fn read(name: &str) -> String {
    std::fs::read_to_string(workspace::root().join(DIRECTORY).join(name)).unwrap()
}

/// The metrics that a PromQL expression names: its words that start as ours or Envoy's do, outside of label matchers and groupings.
pub(crate) fn metrics_of(expression: &str) -> BTreeSet<String> {
    let mut bare = String::new();
    let mut depth = 0;
    for c in expression.replace("by (", "{").replace("by(", "{").chars() {
        match c {
            '{' => depth += 1,
            // The list of labels after `by` ends with its own bracket.
            '}' | ')' if depth > 0 => depth -= 1,
            _ if depth == 0 => bare.push(c),
            _ => {}
        }
    }
    let words = bare.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pixell_") || word.starts_with("envoy_")).map(str::to_owned).collect()
}

/// The alert rules without their comments. Labels in templates are in braces. All other words that look like metrics are metrics.
pub(crate) fn rules() -> String {
    let rules = read("prometheus-rules.yaml");
    rules.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Every `expr` of the dashboard.
pub(crate) fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(
        panels.iter().all(|panel| panel["description"].as_str().is_some_and(|words| !words.is_empty())),
        "a panel without an expression"
    );
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let variables =
        dashboard["templating"]["list"].as_array().unwrap().iter().filter_map(|list| list["query"]["query"].as_str());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap()).chain(variables);
    expressions.map(str::to_owned).collect()
}

#[test]
fn metrics_are_not_confused_with_labels() {
    let expression = r#"sum by (envoy_label) (rate(envoy_a_total{envoy_b="x", c="pixell_d"}[5m])) / pixell_e > envoy_f_bucket"#;
    let expected = ["envoy_a_total", "envoy_f_bucket", "pixell_e"].map(str::to_owned);
    assert_eq!(metrics_of(expression), BTreeSet::from(expected));
}

#[tokio::test]
async fn every_metric_that_is_named_exists() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.tell_dropped_lines(0, 0).await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(http.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap().status(), 200);
    // A histogram appears at its next flush.
    let scrape = || async {
        let text = http.get(envoy.api_url() + "/stats/prometheus").send().await?.text().await?;
        Ok(text.contains("\nenvoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"agents_http1\"").then_some(text))
    };
    let scrape = harness::wait::until("the histograms", std::time::Duration::from_secs(20), scrape).await.unwrap();
    let known: BTreeSet<&str> =
        scrape.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();

    let mut named = metrics_of(&rules());
    assert!(named.len() >= 8, "{named:?}");
    let expressions = dashboard_expressions();
    assert!(expressions.len() > 20);
    named.extend(expressions.iter().flat_map(|expression| metrics_of(expression)));
    // Envoy's counters for its VMs.
    let of_wasm = |name: &str| name.starts_with("envoy_wasm_") || name.starts_with("wasm.");
    // The image's entry point sends this one. `log_unread.rs` tests it.
    let of_launcher = |name: &str| name.starts_with("envoy_launcher_");
    let absent = |name: &str| of_launcher(name) || is_of_a_setting(name) || is_native() && of_wasm(name);
    let unknown: Vec<_> = named.iter().filter(|name| !known.contains(name.as_str()) && !absent(name)).collect();
    assert!(unknown.is_empty(), "no scrape has {unknown:?}");

    // And the metrics that the status page reads.
    let page = include_str!("../../crates/core/src/admin/status_page/page.js");
    let stats = envoy.stats().await.unwrap();
    for name in [
        "http.agents.downstream_rq_total",
        "http.agents.downstream_rq_active",
        "server.uptime",
        "wasm.pixell.router.vm_reload_success",
        "wasm.pixell.router.vm_reload_failure",
        "overload.envoy.resource_monitors.fixed_heap.pressure",
        "overload.envoy.resource_monitors.global_downstream_max_connections.pressure",
    ] {
        assert!(stats.get(name).is_some() || absent(name), "{name}");
    }
    for counter in ["upstream_cx_connect_fail", "upstream_cx_destroy_remote_with_active_rq", "upstream_rq_rx_reset"] {
        assert!(page.contains(counter) && stats.get(&format!("cluster.agents_http1.{counter}")).is_some(), "{counter}");
    }
}

/// Every runbook that an alert names is a heading of a document.
#[test]
fn every_alert_has_its_runbook() {
    let anchor = |heading: &str| heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    let rules = read("prometheus-rules.yaml");
    let runbooks: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert_eq!(runbooks.len(), rules.matches("- alert:").count());
    for runbook in runbooks {
        let (document, place) = runbook.split_once('#').unwrap();
        let text = std::fs::read_to_string(workspace::root().join(document)).unwrap();
        let found = text.lines().filter(|line| line.starts_with('#')).any(|heading| anchor(heading) == place);
        assert!(found, "{document} has no heading #{place}");
    }
}
