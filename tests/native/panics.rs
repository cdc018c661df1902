//! A panic in a hook fails only the request in which it happened, with status 500. Nobody else notices.

use std::time::Duration;

use bytes::Bytes;
use harness::agents::{self, http as agent, streams};
use harness::proto::streams::Chunk;
use harness::proto::{DEPLOYMENT_ID, Empty, request_to};
use harness::{Envoy, proto, wait};
use http_body_util::{BodyExt, Full};
use hyper::Response;
use launcher::filter::Filter;
use launcher::settings::Settings;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::clients::{http1, http2};

/// The header that makes a hook panic. See the feature `test-trap` of `crates/native`.
const TRAP: &str = "x-test-trap";

fn trapped() -> harness::EnvoyBuilder {
    Envoy::builder().filter(Filter::Native).modules(harness::envoy::modules::locate_trap().unwrap())
}

/// The number of panics that a scrape shows.
async fn panics(envoy: &Envoy) -> u64 {
    let text = http1().get(envoy.api_url() + "/stats/prometheus").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("pixell_panics_total{} "));
    line.unwrap_or_else(|| panic!("no counter in {text}")).parse().unwrap()
}

async fn check_internal(response: reqwest::Response, what: &str) {
    assert_eq!(response.status(), 500, "{what}");
    assert_eq!(response.headers()["x-pixell-error"], "internal", "{what}");
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{what}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&"internal".into(), &500.into()), "{what}");
}

/// A body with trailers.
fn with_trailers(bytes: &'static str) -> Body {
    let trailers = async {
        let end = (http::HeaderName::from_static("x-end"), http::HeaderValue::from_static("1"));
        Some(Ok(http::HeaderMap::from_iter([end])))
    };
    Body::wrap(Full::new(Bytes::from(bytes)).with_trailers(trailers))
}

#[tokio::test]
async fn every_hook_of_the_data_path_survives_a_panic() {
    let envoy = trapped().start().await.unwrap();
    let hangs = agent::start("hangs", 0, agent::Version::Http1, |request| async {
        let _held = request;
        std::future::pending::<Response<agent::Body>>().await
    });
    let (a, hangs) = (agents::echo::start("a").unwrap(), hangs.unwrap());
    envoy.routes().put_all([("a", a.port()), ("hangs", hangs.port())]).await.unwrap();
    let ask = |id: &'static str| http2().post(envoy.data_url()).header(DEPLOYMENT_ID, id);
    // Hooks of the filter in the listener, and hooks of the filter in the cluster, which runs later in the same request.
    let mut expected = 0;
    for hook in ["request_headers", "judge", "new", "request_body", "request_trailers"] {
        let sent = ask("a").header(TRAP, hook).body(with_trailers("some")).send().await.unwrap();
        check_internal(sent, hook).await;
        expected += 1;
        assert_eq!(panics(&envoy).await, expected, "{hook}");
        assert_eq!(ask("a").body(with_trailers("some")).send().await.unwrap().status(), 200, "after {hook}");
    }
    // After the end of its stream, a panic has no response to fail. The next request gets its response.
    assert_eq!(ask("a").header(TRAP, "destroy").send().await.unwrap().status(), 200);
    expected += 1;
    wait::until("the panic in destroy", Duration::from_secs(5), || async {
        Ok((panics(&envoy).await == expected).then_some(()))
    })
    .await
    .unwrap();
    // The thread that looks for long waits keeps running.
    assert_eq!(ask("a").header(TRAP, "clock").send().await.unwrap().status(), 200);
    expected += 1;
    wait::until("the panic of the clock", Duration::from_secs(5), || async {
        Ok((panics(&envoy).await == expected).then_some(()))
    })
    .await
    .unwrap();
    let waits = ask("hangs").header(TRAP, "scheduled").send();
    check_internal(tokio::time::timeout(Duration::from_secs(20), waits).await.unwrap().unwrap(), "scheduled").await;
    expected += 1;
    assert_eq!(panics(&envoy).await, expected);

    let log = envoy.log();
    for reason in
        ["asked for by a header", "asked for in judge", "asked for in new", "in the clock: panicked at", "asked for in destroy"]
    {
        assert!(log.contains(reason), "no line has {reason:?}");
    }
    let logged = envoy.logged(6, |line| line["rejection"] == "internal").await.unwrap();
    assert!(logged.iter().all(|line| line["status"] == 500), "{logged:?}");
    assert_eq!(ask("a").send().await.unwrap().status(), 200);
}

/// When a request that went to a peer has ended, there is nobody left to tell.
#[tokio::test]
async fn the_end_of_a_hop_survives_a_panic() {
    let settings = Settings::resolve(|name| (name == "PIXELL_FLEET_CIDRS").then(|| "10.0.0.0/8".into())).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let envoy = trapped().settings(&settings).peer_port(free).start().await.unwrap();
    let fleet = json!({"peers": {"p": {"host": "10.255.255.1"}}, "routes": {"a": ["p"]}});
    let put = envoy.routes().request(Method::PUT, "/v1/fleet").json(&fleet).send().await.unwrap();
    assert_eq!(put.status(), 200);
    let ask = || http2().get(envoy.data_url()).header(DEPLOYMENT_ID, "a");
    let response = ask().header(TRAP, "end").send().await.unwrap();
    assert_eq!(response.headers()["x-pixell-error"], "peer_unreachable");
    wait::until("the panic", Duration::from_secs(5), || async { Ok((panics(&envoy).await == 1).then_some(())) }).await.unwrap();
    assert!(envoy.log().contains("the filter panicked in stream_complete"), "{}", envoy.log());
    assert_eq!(ask().send().await.unwrap().headers()["x-pixell-error"], "peer_unreachable");
}

/// A response whose head has been sent can only be broken off.
#[tokio::test]
async fn every_hook_of_responses_survives_a_panic() {
    let agent = agent::start("a", 0, agent::Version::Http1, |_| async {
        Response::builder().header("content-type", "application/json").body(agent::whole("{}")).unwrap()
    });
    let agent = agent.unwrap();
    let envoy = trapped().start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let ask = || http2().get(envoy.data_url() + "/agents/a/.well-known/agent-card.json");
    let mut expected = 0;
    for hook in ["response_headers", "response_body"] {
        let broken = match ask().header(TRAP, hook).send().await {
            Ok(response) if hook == "response_headers" => {
                check_internal(response, hook).await;
                true
            }
            Ok(response) => response.bytes().await.is_err(),
            Err(_) => true,
        };
        assert!(broken, "{hook}");
        expected += 1;
        assert_eq!(panics(&envoy).await, expected, "{hook}");
        assert_eq!(ask().send().await.unwrap().text().await.unwrap(), "{}", "after {hook}");
    }
    // By header nothing of it is called.
    let by_header = http2().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").header(TRAP, "response_headers");
    assert_eq!(by_header.send().await.unwrap().status(), 200);
    assert_eq!(panics(&envoy).await, expected);
}

#[tokio::test]
async fn every_hook_of_the_route_api_survives_a_panic() {
    let envoy = trapped().start().await.unwrap();
    let a = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", a.port())]).await.unwrap();
    let before = envoy.routes().routes().await.unwrap().json().unwrap();
    for (n, hook) in ["admin_request_headers", "admin_request_body", "admin_request_trailers"].into_iter().enumerate() {
        let put = http2().request(Method::PUT, envoy.api_url() + "/v1/routes").header("content-type", "application/json");
        let sent = put.header(TRAP, hook).body(with_trailers(r#"{"routes":{}}"#)).send().await.unwrap();
        check_internal(sent, hook).await;
        assert_eq!(panics(&envoy).await, n as u64 + 1, "{hook}");
        assert_eq!(envoy.routes().routes().await.unwrap().json().unwrap(), before, "{hook}");
    }
    let status = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap().status();
    assert_eq!(status, 200);
    envoy.routes().put_route("b", &a.port().into()).await.unwrap();
}

/// Open streams stay open, even on the worker that panics.
#[tokio::test]
async fn a_panic_fails_one_request_and_nobody_else_notices() {
    let envoy = trapped().concurrency(1).start().await.unwrap();
    let (s, _) = streams::start("s").unwrap();
    envoy.routes().put_all([("s", s.port())]).await.unwrap();
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();
    let (send, receive) = mpsc::channel(1);
    let mut stream = client.chat(request_to("s", ReceiverStream::new(receive)).unwrap()).await.unwrap().into_inner();
    for number in 0..20 {
        let mut call = request_to("s", Empty {}).unwrap();
        call.metadata_mut().insert(TRAP, "now".parse().unwrap());
        let status = proto::connect(envoy.data_addr()).await.unwrap().ping(call).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Internal, "{status}");
        assert_eq!(status.metadata().get("x-pixell-error").unwrap(), "internal");
        send.send(Chunk { number, data: Vec::new() }).await.unwrap();
        assert_eq!(stream.message().await.unwrap().unwrap().number, number);
    }
    assert_eq!(panics(&envoy).await, 20);
}

#[tokio::test]
async fn a_panic_during_configuration_keeps_envoy_from_starting() {
    let error = trapped().env("PIXELL_TEST_TRAP", "config_new").start().await.unwrap_err().to_string();
    assert!(error.contains("the filter panicked in config_new: panicked at") && error.contains("asked for in"), "{error}");
}

/// The shipped module does not contain the name of the header, so nobody can make it panic with it.
#[test]
fn the_shipped_module_has_no_trap() {
    use harness::envoy::modules::{NATIVE, locate, locate_trap};
    let has = |directory: std::path::PathBuf| {
        let module = std::fs::read(directory.join(NATIVE)).unwrap();
        module.windows(TRAP.len()).any(|bytes| bytes == TRAP.as_bytes())
    };
    assert!(has(locate_trap().unwrap()), "the test build has no trap");
    assert!(!has(locate().unwrap()), "native.so has the trap");
}
