//! A WebSocket that its agent closes cleanly is not a failure, neither for the counters nor for the queries of docs/operations.md. A killed
//! agent is a failure.

use std::time::Duration;

use harness::{Envoy, wait};
use serde_json::Value;

use crate::ends::{TIMES, close_websockets, kill_agents, websocket_agent};

/// The counters that the alert, the dashboard and the status page use for broken requests.
const BROKEN: &str = r"^cluster\.agents_http[12]\.upstream_(cx_destroy_remote_with_active_rq|rq_rx_reset)$";

/// Settings to reach a second Envoy over HTTP/2, where a WebSocket is an extended CONNECT (RFC 8441).
const OPTIONS: &str = "typed_extension_protocol_options: *agents_http1_options";
const OVER_HTTP2: &str = r#"typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: { allow_connect: true } }"#;
const LISTENER: &str = "http2_protocol_options:\n                  # The default codec";

/// The lines that the query for agents that break off finds.
fn found(lines: &[Value]) -> Vec<&Value> {
    const QUERY: &str = "filter log = \"access\" and (rejection = \"agent_unreachable\" or response_flags like /UF|UC|UR|UPE/) and status != 101\n";
    let document = std::fs::read_to_string(workspace::root().join("docs/operations.md")).unwrap();
    assert!(document.contains(QUERY), "adapt this test to the query in docs/operations.md");
    let flags = regex::Regex::new("UF|UC|UR|UPE").unwrap();
    let fits = |line: &&Value| {
        let broke_off = flags.is_match(line["response_flags"].as_str().unwrap());
        (line["rejection"] == "agent_unreachable" || broke_off) && line["status"] != 101
    };
    lines.iter().filter(fits).collect()
}

/// Waits for this many lines of requests in the access log.
async fn log_of(envoy: &Envoy, count: usize) -> Vec<Value> {
    let all = || async {
        let requests: Vec<_> = envoy.access_log()?.into_iter().filter(|line| line["log"] == "access").collect();
        Ok((requests.len() >= count).then_some(requests))
    };
    wait::until("the access log", Duration::from_secs(10), all).await.unwrap()
}

/// Waits until the counters that `pattern` names add up to `expected`.
async fn counted(envoy: &Envoy, pattern: &str, expected: usize) {
    let sum = || async { envoy.stats().await?.sum(pattern) };
    let reached = || async { Ok((sum().await? == u64::try_from(expected)?).then_some(())) };
    if let Err(error) = wait::until("the counters", Duration::from_secs(10), reached).await {
        panic!("{error}: {pattern} is {:?}, not {expected}", sum().await);
    }
}

#[tokio::test]
async fn a_clean_close_is_not_a_failure_and_a_killed_agent_is() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = websocket_agent();
    envoy.routes().put_all([("ws", agent.port())]).await.unwrap();
    close_websockets(&envoy).await;
    let lines = log_of(&envoy, TIMES).await;
    assert!(lines.iter().all(|line| line["status"] == 101), "{lines:#?}");
    assert_eq!(found(&lines), Vec::<&Value>::new());
    counted(&envoy, r"^cluster\.agents_websocket\.upstream_rq_total$", TIMES).await;
    counted(&envoy, BROKEN, 0).await;

    kill_agents(&envoy).await;
    counted(&envoy, BROKEN, TIMES).await;
    assert_eq!(found(&log_of(&envoy, 2 * TIMES).await).len(), TIMES);
}

/// The same through a second Envoy: over HTTP/1.1, as agents are reached, and over HTTP/2, where a clean close has the flag `UR`.
#[tokio::test]
async fn a_clean_close_through_a_second_envoy_is_not_a_failure() {
    let agent = websocket_agent();
    for (hop, flag) in [("HTTP/1.1", "UC"), ("HTTP/2", "UR")] {
        let (mut first, mut second) = (Envoy::builder(), Envoy::builder());
        if hop == "HTTP/2" {
            first = first.edit(OPTIONS, OVER_HTTP2);
            second = second.edit(LISTENER, &LISTENER.replace('\n', "\n                  allow_connect: true\n"));
        }
        let (first, second) = (first.start().await.unwrap(), second.start().await.unwrap());
        second.routes().put_all([("ws", agent.port())]).await.unwrap();
        first.routes().put_all([("ws", second.data_addr().port())]).await.unwrap();
        close_websockets(&first).await;
        for envoy in [&first, &second] {
            let lines = log_of(envoy, TIMES).await;
            assert_eq!(found(&lines), Vec::<&Value>::new(), "{hop}");
            counted(envoy, BROKEN, 0).await;
        }
        let flags = log_of(&first, TIMES).await;
        assert!(flags.iter().any(|line| line["response_flags"] == flag), "{hop}: {flags:#?}");
    }
}
