//! Agents whose connections are all busy: a request waits some seconds for a connection, and is then rejected.

use std::time::{Duration, Instant};

use harness::agents::{self, http as agent, streams};
use harness::proto::streams::Chunk;
use harness::{Envoy, wait};
use hyper::Response;
use tonic::Code;

use crate::clients::{grpc_rejection, http1, http2};

/// An Envoy that opens one connection to each agent.
async fn with_one_connection() -> Envoy {
    let shipped = "- max_connections: 1024";
    Envoy::builder().concurrency(1).edit(shipped, &shipped.replace("1024", "1")).start().await.unwrap()
}

/// Checks that a request waited for five seconds, or some more: Envoy looks once a second, and this machine may be busy.
fn check_wait(began: Instant) {
    let waited = began.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(12)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn an_http_request_is_rejected_after_five_seconds() {
    let envoy = with_one_connection().await;
    let stuck = agent::start("stuck", 0, agent::Version::Http1, |request| async {
        let _held = request;
        std::future::pending::<Response<agent::Body>>().await
    });
    let (stuck, good) = (stuck.unwrap(), agents::echo::start("good").unwrap());
    envoy.routes().put_all([("stuck", stuck.port()), ("good", good.port())]).await.unwrap();
    let ask = |id: &str| http1().post(envoy.data_url()).header("x-deployment-id", id.to_owned()).body("x").send();
    let holds = tokio::spawn(ask("stuck"));
    let connected = || async { Ok((envoy.stat("cluster.agents_http1.upstream_cx_active").await? == Some(1)).then_some(())) };
    wait::until("the only connection to be taken", Duration::from_secs(30), connected).await.unwrap();

    let began = Instant::now();
    let (first, second) = tokio::join!(ask("stuck"), ask("stuck"));
    check_wait(began);
    for response in [first.unwrap(), second.unwrap()] {
        assert_eq!((response.status().as_u16(), &response.headers()["x-pixell-error"]), (503, &"overloaded".parse().unwrap()));
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!(problem["detail"], "All connections to the agent are busy, try again later");
    }
    assert_eq!(ask("good").await.unwrap().status(), 200);
    assert!(!holds.is_finished(), "a request that has a connection stays");
    let lines = envoy.logged(2, |line| line["rejection"] == "overloaded").await.unwrap();
    assert_eq!((&lines[0]["status"], &lines[0]["deployment_id"]), (&503.into(), &"stuck".into()), "{lines:?}");
    let counted = envoy.stat("wasmcustom.pixell_rejections_total.reason.overloaded").await.unwrap();
    assert_eq!(counted, Some(2));
    assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
    holds.abort();
}

#[tokio::test]
async fn a_grpc_call_is_rejected_after_five_seconds() {
    const STREAMS: usize = 256;
    let envoy = with_one_connection().await;
    let (agent, hanging) = streams::start("stuck").unwrap();
    envoy.routes().put_all([("stuck", agent.port())]).await.unwrap();
    let mut held = Vec::new();
    for number in 0..STREAMS {
        let mut client = streams::connect(envoy.data_addr()).await.unwrap();
        held.push(tokio::spawn(async move {
            let chunk = Chunk { number: 0, data: Vec::new() };
            client.hang(harness::proto::request_to("stuck", chunk).unwrap()).await
        }));
        if number == 0 {
            // Until its first connection is up, Envoy opens more than the limit allows.
            let connected = || async { Ok((hanging.calls().len() == 1).then_some(())) };
            wait::until("the first call", Duration::from_secs(30), connected).await.unwrap();
        }
    }
    let full = || async { Ok((hanging.calls().len() == STREAMS).then_some(())) };
    wait::until("all streams to be taken", Duration::from_secs(60), full).await.unwrap();

    let began = Instant::now();
    let seen = grpc_rejection(&envoy, "stuck").await;
    let message = "All connections to the agent are busy, try again later";
    assert_eq!(seen, (Code::Unavailable, "overloaded".to_owned(), message.to_owned()));
    check_wait(began);
    assert!(held.iter().all(|call| !call.is_finished()), "calls that have a connection stay");
}

/// Unfinished requests of one client: one byte of a body and no more.
#[tokio::test]
async fn unfinished_requests_do_not_make_others_wait_forever() {
    let envoy = with_one_connection().await;
    let echo = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", echo.port())]).await.unwrap();
    let (sender, body) = http_body_util::channel::Channel::<bytes::Bytes, std::io::Error>::new(1);
    let mut sender = sender;
    sender.send_data(bytes::Bytes::from_static(b"x")).await.unwrap();
    let stream = http_body_util::BodyDataStream::new(body);
    let half = http2().post(envoy.data_url()).header("x-deployment-id", "a").body(reqwest::Body::wrap_stream(stream)).send();
    let half = tokio::spawn(half);
    let connected = || async { Ok((envoy.stat("cluster.agents_http1.upstream_cx_active").await? == Some(1)).then_some(())) };
    wait::until("the only connection to be taken", Duration::from_secs(30), connected).await.unwrap();
    let began = Instant::now();
    let response = http1().get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap();
    check_wait(began);
    assert_eq!((response.status().as_u16(), &response.headers()["x-pixell-error"]), (503, &"overloaded".parse().unwrap()));
    // The connection is free once its client has gone.
    half.abort();
    drop(sender);
    let served = || async {
        let response = http1().get(envoy.data_url()).header("x-deployment-id", "a").send().await?;
        Ok((response.status() == 200).then_some(()))
    };
    wait::until("the agent to be reached", Duration::from_secs(30), served).await.unwrap();
}
