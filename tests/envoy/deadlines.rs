//! Deadlines: those that clients set for gRPC calls, and the limit that an operator sets for calls without one.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::agents::{self, streams};
use harness::proto::streams::Chunk;
use harness::proto::{DEPLOYMENT_ID, request_to};
use harness::{Agent, Envoy, wait};
use tokio::net::TcpStream;
use tonic::Code;

use crate::access_log_level::with_settings;
use crate::clients::http1;

/// How early a timer of Envoy may fire: it counts whole milliseconds from when the event loop last read the clock.
const TIMER: Duration = Duration::from_millis(20);
/// How late a response may be on a busy machine. Without a deadline, these calls never end.
const LATE: Duration = Duration::from_secs(10);

/// An HTTP/2 agent that accepts each request, never responds, and records the reason with which each stream was reset.
fn hung() -> (Agent, Arc<Mutex<Vec<Option<h2::Reason>>>>) {
    let resets = Arc::new(Mutex::new(Vec::new()));
    let noted = resets.clone();
    let agent = agents::raw::start("hung", move |stream| {
        let noted = noted.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.map_err(std::io::Error::other)?;
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                let noted = noted.clone();
                tokio::spawn(async move {
                    let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    noted.lock().unwrap().push(reason.ok());
                });
            }
            Ok(())
        }
    });
    (agent.unwrap(), resets)
}

/// A call of a client that sends its deadline but does not enforce it: the response's headers, and how long it took.
async fn call(envoy: &Envoy, timeout: Option<&str>) -> (http::HeaderMap, Duration) {
    let stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post("http://h/x")
        .header(DEPLOYMENT_ID, "hung")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    if let Some(timeout) = timeout {
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    }
    let start = Instant::now();
    let (response, mut body) = client.ready().await.unwrap().send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    (response.await.unwrap().into_parts().0.headers, start.elapsed())
}

#[tokio::test]
async fn a_grpc_deadline_ends_a_call_whose_agent_does_not_respond() {
    let (agent, resets) = hung();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("hung", agent.port())]).await.unwrap();
    for (timeout, expected) in [("1S", 1_000), ("700m", 700), ("300000u", 300)] {
        let (head, took) = call(&envoy, Some(timeout)).await;
        assert_eq!(
            (&head["grpc-status"], &head["x-pixell-error"]),
            (&"4".parse().unwrap(), &"deadline_exceeded".parse().unwrap())
        );
        let expected = Duration::from_millis(expected);
        assert!(took + TIMER >= expected && took < expected + LATE, "{timeout}: {took:?}");
    }
    let learned = || async { Ok((resets.lock().unwrap().len() == 3).then_some(())) };
    wait::until("the agent to see the resets", Duration::from_secs(10), learned).await.unwrap();
    let line = envoy.logged(3, |line| line["error"] == "deadline_exceeded").await.unwrap().remove(0);
    assert_eq!((&line["grpc_status"], &line["deployment_id"]), (&"DEADLINE_EXCEEDED".into(), &"hung".into()), "{line}");
}

/// A stream is not ended before its deadline.
#[tokio::test]
async fn a_stream_lives_until_its_deadline() {
    let (agent, _calls) = streams::start("a").unwrap();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();
    let mut request = request_to("a", Chunk::default()).unwrap();
    request.set_timeout(Duration::from_secs(2));
    let start = Instant::now();
    let status = client.hang(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    assert!(start.elapsed() >= Duration::from_millis(1_900));
}

#[tokio::test]
async fn calls_without_a_deadline_get_the_operators_limit() {
    let (agent, _) = hung();
    let stuck = agents::raw::start("stuck", |stream| async move {
        let _held = stream;
        std::future::pending().await
    });
    let stuck = stuck.unwrap();
    let envoy = with_settings(&[("PIXELL_CALL_TIMEOUT_SECONDS", "1")]).start().await.unwrap();
    envoy.routes().put_all([("hung", agent.port()), ("stuck", stuck.port())]).await.unwrap();
    let (head, took) = call(&envoy, None).await;
    assert_eq!((&head["grpc-status"], &head["x-pixell-error"]), (&"4".parse().unwrap(), &"deadline_exceeded".parse().unwrap()));
    assert!(took + TIMER >= Duration::from_secs(1) && took < Duration::from_secs(1) + LATE, "{took:?}");
    // A client's own deadline takes precedence.
    let (_, took) = call(&envoy, Some("2S")).await;
    assert!(took + TIMER >= Duration::from_secs(2), "{took:?}");
    let response = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "stuck").send().await.unwrap();
    assert_eq!(response.status(), 504);
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["title"]), (&"deadline_exceeded".into(), &"Gateway Timeout".into()));
}
