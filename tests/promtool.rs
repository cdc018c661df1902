//! Prometheus' own promtool checks the alert rules and the filter's metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is how a test fails")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use harness::Envoy;

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut promtool = Command::new("promtool")
        .args(arguments)
        .current_dir(workspace::root().join("deploy/observability"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: install the Debian package prometheus");
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    promtool.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_alert_rules_are_valid() {
    let output = promtool(&["check", "rules", "--lint=all", "--lint-fatal", "prometheus-rules.yaml"], "");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    let rules = std::fs::read_to_string(workspace::root().join("deploy/observability/prometheus-rules.yaml")).unwrap();
    let tests = std::fs::read_to_string(workspace::root().join("deploy/observability/prometheus-rules.test.yaml")).unwrap();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert} }}")), "no test keeps {alert} quiet");
        assert!(tests.contains(&format!("alertname: {alert}\n")), "no test lets {alert} fire");
    }
    let output = promtool(&["test", "rules", "prometheus-rules.test.yaml"], "");
    assert!(output.status.success(), "{}", said(&output));
}

/// promtool gets the dashboard's expressions as recording rules, with Grafana's variables filled in.
#[test]
fn the_dashboards_expressions_are_valid() {
    let text = std::fs::read_to_string(workspace::root().join("deploy/observability/grafana-dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let rules: Vec<_> = targets
        .map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$instance", ".*"))
        .enumerate()
        .map(|(n, expr)| serde_json::json!({"record": format!("check:{n}"), "expr": expr}))
        .collect();
    assert!(rules.len() > 20);
    // JSON is YAML.
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), groups).unwrap();
    let output = promtool(&["check", "rules", "--lint=none", file.path().to_str().unwrap()], "");
    assert!(output.status.success(), "{}", said(&output));
}

#[tokio::test]
async fn the_filters_metrics_keep_the_conventions() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    let api = envoy.routes().get("/stats/prometheus").await.unwrap();
    let scrape = String::from_utf8(api.body.to_vec()).unwrap();
    let own = |line: &&str| line.starts_with("pixell_") || line.starts_with("# TYPE pixell_");
    let own: String = scrape.lines().filter(own).map(|line| format!("{line}\n")).collect();
    assert!(own.lines().count() > 20, "{own}");
    let output = promtool(&["check", "metrics"], &own);
    let said = said(&output);
    // Envoy writes no HELP lines; docs/operations.md describes the metrics.
    let errors: Vec<_> = said.lines().filter(|line| !line.ends_with("no help text") && !line.trim().is_empty()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}
