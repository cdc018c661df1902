//! Tracing: `traceparent` passes, and with the image's setting, spans reach a real OTLP receiver.

use std::time::Duration;

use harness::proto::{self, DEPLOYMENT_ID, Empty};
use harness::traces::{Receiver, Span, attribute, hex};
use harness::{Envoy, agents, wait};
use serde_json::Value;

use crate::access_log_level::with_settings;

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector on 127.0.0.1, and its port.
async fn collector() -> (Receiver, u16) {
    let (receiver, address) = Receiver::start("127.0.0.1:0").await.unwrap();
    (receiver, address.port())
}

/// The value of a header that the agent got.
fn seen<'a>(response: &'a Value, name: &str) -> Option<&'a str> {
    response["headers"].as_array()?.iter().find(|header| header[0] == name)?[1].as_str()
}

#[tokio::test]
async fn traceparent_passes_untouched_by_default() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let traceparent = format!("00-{TRACE_ID}-{PARENT}-01");
    let request = http.get(envoy.data_url()).header(DEPLOYMENT_ID, "a");
    let response = request.header("traceparent", &traceparent).header("tracestate", "vendor=1").send().await.unwrap();
    let response: Value = response.json().await.unwrap();
    assert_eq!(seen(&response, "traceparent"), Some(traceparent.as_str()));
    assert_eq!(seen(&response, "tracestate"), Some("vendor=1"));
    let response: Value = http.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap().json().await.unwrap();
    assert_eq!(seen(&response, "traceparent"), None, "Envoy adds none");
}

#[tokio::test]
async fn spans_have_the_deployment_and_the_rejection() {
    let (receiver, port) = collector().await;
    let envoy = with_settings(&[("PIXELL_OTLP_ENDPOINT", &format!("127.0.0.1:{port}"))]).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    let grpc = agents::grpc::start("g").unwrap();
    envoy.routes().put_all([("a", agent.port()), ("g", grpc.port())]).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();

    let request = http.get(envoy.data_url() + "/traced").header(DEPLOYMENT_ID, "a");
    let response = request.header("traceparent", format!("00-{TRACE_ID}-{PARENT}-01")).send().await.unwrap();
    let response: Value = response.json().await.unwrap();
    let span = receiver.span("the span of a forwarded request", |span| hex(&span.trace_id) == TRACE_ID).await.unwrap();
    assert_eq!(hex(&span.parent_span_id), PARENT);
    assert_eq!(attribute(&span, "pixell.deployment_id"), Some("a"));
    assert_eq!(attribute(&span, "pixell.rejection"), None);
    // The agent's spans are children of Envoy's span.
    assert_eq!(seen(&response, "traceparent"), Some(format!("00-{TRACE_ID}-{}-01", hex(&span.span_id)).as_str()));
    let line = envoy.logged(1, |line| line["path"] == "/traced").await.unwrap().remove(0);
    assert_eq!(line["trace_id"], TRACE_ID, "the access log leads to the trace: {line}");

    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    client.ping(proto::request_to("g", Empty {}).unwrap()).await.unwrap();
    client.ping(proto::request_to("nobody", Empty {}).unwrap()).await.unwrap_err();
    let forwarded = |span: &Span| attribute(span, "pixell.deployment_id") == Some("g");
    receiver.span("the span of a gRPC call", forwarded).await.unwrap();
    let rejected = |span: &Span| attribute(span, "pixell.deployment_id") == Some("nobody");
    let span = receiver.span("the span of a rejected call", rejected).await.unwrap();
    assert_eq!(attribute(&span, "pixell.rejection"), Some("unknown_deployment"));
}

/// However the agent is named, and whether there is one.
#[tokio::test]
async fn spans_and_log_lines_have_the_deployment_however_it_is_named() {
    let (receiver, port) = collector().await;
    let settings = [("PIXELL_OTLP_ENDPOINT", &*format!("127.0.0.1:{port}")), ("PIXELL_HOST_SUFFIX", ".h.test")];
    let envoy = with_settings(&settings).log_rate(1 << 20).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut sent = Vec::new();
    for (id, rejection) in [("a", None), ("nobody", Some("unknown_deployment"))] {
        let host = format!("{id}.h.test");
        for (path, header) in [
            (format!("/agents/{id}/x"), None),
            (format!("/agents/{id}/-/a2a/x"), None),
            ("/x".to_owned(), Some(("host", host.as_str()))),
            ("/x".to_owned(), Some((DEPLOYMENT_ID, id))),
            ("/x".to_owned(), Some(("deployment-id", id))),
            ("/x".to_owned(), Some(("deployment_id", id))),
        ] {
            let trace_id = format!("{:032x}", sent.len() + 1);
            let request = http.get(envoy.data_url() + &path).header("traceparent", format!("00-{trace_id}-{PARENT}-01"));
            let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
            let status = request.send().await.unwrap().status();
            assert_eq!(status.as_u16(), if rejection.is_some() { 404 } else { 200 }, "{path} {header:?}");
            sent.push((trace_id, id, rejection));
        }
    }
    for (trace_id, id, rejection) in sent {
        let span = receiver.span("the span of a request", |span| hex(&span.trace_id) == trace_id).await.unwrap();
        assert_eq!((attribute(&span, "pixell.deployment_id"), attribute(&span, "pixell.rejection")), (Some(id), rejection));
        let line = envoy.logged(1, |line| line["trace_id"] == trace_id.as_str()).await.unwrap().remove(0);
        assert_eq!((&line["deployment_id"], &line["rejection"]), (&id.into(), &rejection.into()), "{line}");
    }
}

#[tokio::test]
async fn clients_and_the_images_settings_decide_what_is_traced_and_logged() {
    let (receiver, port) = collector().await;
    // The name may stand for an address of IPv6, too, where nobody listens.
    let endpoint = format!("localhost:{port}");
    let envoy = with_settings(&[("PIXELL_OTLP_ENDPOINT", &endpoint), ("PIXELL_ACCESS_LOG", "failures")]).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..20 {
        // The client has decided not to trace these.
        let request = http.get(envoy.data_url()).header(DEPLOYMENT_ID, "a");
        let request = request.header("traceparent", "00-11111111111111111111111111111111-2222222222222222-00");
        request.send().await.unwrap().bytes().await.unwrap();
    }
    // The client wants this one traced, and it fails. Once it is traced and logged, the twenty before it would be, too.
    let request = http.get(envoy.data_url()).header(DEPLOYMENT_ID, "nobody");
    request.header("traceparent", format!("00-{TRACE_ID}-{PARENT}-01")).send().await.unwrap();
    receiver.span("the request that its client wants traced", |span| hex(&span.trace_id) == TRACE_ID).await.unwrap();
    assert_eq!(receiver.spans().len(), 1);
    envoy.logged(1, |line| line["rejection"] == "unknown_deployment").await.unwrap();
    assert!(envoy.access_log().unwrap().iter().all(|line| line["deployment_id"] != "a"));
}

/// The percentage applies to all requests, even to those that their clients want traced.
#[tokio::test]
async fn the_percentage_of_traced_requests_can_be_set() {
    const SENT: u64 = 200;
    for (percent, traced) in [("0", 0..=0), ("50", 58..=142)] {
        let (receiver, port) = collector().await;
        let endpoint = format!("127.0.0.1:{port}");
        let vars = [("PIXELL_OTLP_ENDPOINT", &*endpoint), ("PIXELL_TRACE_PERCENT", percent)];
        let envoy = with_settings(&vars).start().await.unwrap();
        let agent = agents::echo::start("a").unwrap();
        envoy.routes().put_all([("a", agent.port())]).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut sampled = 0;
        for number in 0..SENT {
            let mut request = http.get(envoy.data_url()).header(DEPLOYMENT_ID, "a");
            if number % 2 == 0 {
                request = request.header("traceparent", format!("00-{TRACE_ID}-{PARENT}-01"));
            }
            let response = request.send().await.unwrap().json::<Value>().await.unwrap();
            // The agent gets the decision that Envoy made for itself.
            sampled += u64::from(seen(&response, "traceparent").is_some_and(|value| value.ends_with("-01")));
        }
        // Six standard deviations (of 7) to either side of a half.
        assert!(traced.contains(&sampled), "{percent} %: {sampled} of {SENT}");
        let all = || {
            let count = receiver.spans().len() as u64;
            async move { Ok((count == sampled).then_some(())) }
        };
        wait::until("as many spans", Duration::from_secs(30), all).await.unwrap();
    }
}

/// Without a collector, spans are lost and requests are not delayed.
#[tokio::test]
async fn no_request_waits_for_a_missing_collector() {
    let gone = agents::echo::start("gone").unwrap();
    let endpoint = format!("127.0.0.1:{}", gone.port());
    gone.kill();
    let envoy = with_settings(&[("PIXELL_OTLP_ENDPOINT", &endpoint)]).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async || {
        let request = http.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").timeout(Duration::from_secs(1));
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    ask().await;
    let tried = || async {
        ask().await;
        let failed = envoy.stats().await?.get("cluster.trace_collector.upstream_cx_connect_fail");
        Ok(failed.filter(|count| *count > 0))
    };
    wait::until("a span that could not be sent", Duration::from_secs(30), tried).await.unwrap();
    ask().await;
}
