//! Envoy closes connections at a certain age, so that clients behind a load balancer reach new tasks.

use std::time::{Duration, Instant};

use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents};
use reqwest::Client;

use crate::access_log_level::with_settings;
use crate::clients::{http1, http2};

const OPENED: &str = "http.agents.downstream_cx_total";
/// Envoy's `drain_timeout`: the time from its first GOAWAY to its last.
const DRAIN: Duration = Duration::from_secs(5);

async fn call(http: &Client, envoy: &Envoy) -> reqwest::Response {
    http.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap()
}

/// Requests do not fail while connections are replaced, and an open stream outlives the age of its connection.
#[tokio::test]
async fn http2_connections_are_replaced_and_no_request_is_lost() {
    let envoy = with_settings(&[("PIXELL_MAX_CONNECTION_SECONDS", "1")]).start().await.unwrap();
    let (source, agent) = crate::sse_and_websocket::event_agent();
    let echo = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("events", agent.port()), ("a", echo.port())]).await.unwrap();
    let http = http2();
    let mut stream = http.get(envoy.data_url()).header(DEPLOYMENT_ID, "events").send().await.unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) + DRAIN {
        let response = call(&http, &envoy).await;
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
    }
    // At most 1.2 s each, over 7 s.
    let opened = envoy.stat(OPENED).await.unwrap().unwrap();
    assert!((5..=12).contains(&opened), "{opened} connections");
    source.send("data: still here\n\n".into()).unwrap();
    let event = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.unwrap().unwrap();
    assert_eq!(event.unwrap(), "data: still here\n\n");
}

#[tokio::test]
async fn http1_connections_are_closed_after_a_response_that_says_so() {
    let envoy = with_settings(&[("PIXELL_MAX_CONNECTION_SECONDS", "1")]).start().await.unwrap();
    let echo = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", echo.port())]).await.unwrap();
    let http = http1();
    let (started, mut closing) = (Instant::now(), 0);
    while closing < 2 && started.elapsed() < Duration::from_secs(15) {
        let response = call(&http, &envoy).await;
        assert_eq!(response.status(), 200);
        closing += u64::from(response.headers().get("connection").is_some_and(|value| value == "close"));
        response.bytes().await.unwrap();
    }
    assert_eq!(closing, 2);
    assert_eq!(envoy.stat(OPENED).await.unwrap().unwrap(), 2, "a connection closes only after a response that says so");
}
