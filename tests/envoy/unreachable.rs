//! Agents that cannot be reached: their clients get the code from the contract, and no internals of Envoy.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::agents::{self, http};
use harness::proto::{self, Empty};
use harness::{Agent, Envoy};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tonic::Code;

use crate::clients::{grpc_rejection, http1, http2, rejection};
use crate::waiting::until_in_time;

/// A port on which nobody listens, and which nobody else can take.
fn down() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A port whose listener accepts no more connections: the kernel silently drops each attempt.
async fn silent() -> (tokio::net::TcpListener, Vec<TcpStream>, u16) {
    let (socket, port) = down();
    let listener = socket.listen(1).unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(("127.0.0.1", port))).await {
        queued.push(connected.unwrap());
    }
    (listener, queued, port)
}

/// An agent that reads the request and closes the connection without a response.
fn mute() -> Agent {
    agents::raw::start("mute", |mut stream| async move {
        let mut some = [0; 64];
        stream.read(&mut some).await.map(drop)
    })
    .unwrap()
}

async fn check(envoy: &Envoy, id: &str, status: u16, code: &str, detail: &str) {
    check_both(envoy, id, status, code, (detail, detail)).await;
}

/// Checks the `detail` that clients without gRPC get, and the `message` that gRPC clients get.
async fn check_both(envoy: &Envoy, id: &str, status: u16, code: &str, (detail, message): (&str, &str)) {
    let title = if status == 502 { "Bad Gateway" } else { "Service Unavailable" };
    let problem = json!({"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code});
    let (one, two) = (http1(), http2());
    let (one, two, grpc) = tokio::join!(rejection(&one, envoy, id), rejection(&two, envoy, id), grpc_rejection(envoy, id));
    for seen in [one, two] {
        assert_eq!(seen, (status, code.to_owned(), problem.clone()), "{id}");
    }
    assert_eq!(grpc, (Code::Unavailable, code.to_owned(), message.to_owned()), "{id}");
}

/// Longer than the 1.1 s that a client waits for an agent that is down, because this machine may be busy.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn an_agent_that_accepts_no_connections_is_unreachable() {
    until_in_time(async || {
        let envoy = Envoy::builder().start().await.unwrap();
        let (_down, down) = down();
        let (_listener, _queued, silent) = silent().await;
        let routes = [("down", down), ("silent", silent)];
        envoy.routes().put_all(routes).await.unwrap();
        let message = "The agent of this deployment cannot be reached";
        let start = Instant::now();
        join_all(routes.map(|(id, _)| check(&envoy, id, 503, "agent_unreachable", message))).await;
        let waited = start.elapsed();
        println!("the last of six responses came after {waited:?}");
        assert!(waited > Duration::from_millis(600), "{waited:?}");
        let counted = envoy.stat("wasmcustom.pixell_rejections_total.reason.agent_unreachable").await.unwrap();
        assert_eq!(counted, Some(6));
        (waited < LONGEST_WAIT).then_some(())
    })
    .await;
}

/// A client with a deadline of 2 s, which PAR's health check has, learns the reason.
#[tokio::test]
async fn a_deadline_of_two_seconds_is_long_enough_to_learn_the_reason() {
    const DEADLINE: Duration = Duration::from_secs(2);
    until_in_time(async || {
        let envoy = Envoy::builder().start().await.unwrap();
        let (_down, down) = down();
        let (_listener, _queued, silent) = silent().await;
        envoy.routes().put_all([("down", down), ("silent", silent)]).await.unwrap();
        let start = Instant::now();
        let call = async |id| {
            let mut client = proto::connect(envoy.data_addr()).await.unwrap();
            let mut request = proto::request_to(id, Empty {}).unwrap();
            request.set_timeout(DEADLINE);
            client.health(request).await.unwrap_err().code()
        };
        let codes = join_all((0..8).map(|number| call(if number % 2 == 0 { "down" } else { "silent" }))).await;
        println!("{codes:?} after {:?}", start.elapsed());
        // A call that met its deadline makes all of them late.
        (start.elapsed() < DEADLINE).then(|| assert!(codes.iter().all(|code| *code == Code::Unavailable), "{codes:?}"))
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_closes_the_connection_instead_of_responding_has_its_own_code() {
    let envoy = Envoy::builder().start().await.unwrap();
    let mute = mute();
    envoy.routes().put_all([("mute", mute.port())]).await.unwrap();
    check(
        &envoy,
        "mute",
        502,
        "agent_closed",
        "The agent ended the request before it responded, or its response headers exceed 1 MiB or 1000 fields",
    )
    .await;
}

const NOT_HTTP2: &str = "The agent does not respond in HTTP/2: it most likely speaks HTTP/1.1 only, and no gRPC. Otherwise its response \
                         is malformed, or has headers above 1 MiB or 1000 fields";

/// With the command that calls the agent `id` at `authority`, if it speaks gRPC.
fn not_http1(id: &str, authority: SocketAddr) -> String {
    format!(
        "The agent does not respond in HTTP/1.1: it most likely speaks gRPC (HTTP/2) only. Otherwise its response is malformed, or has \
         headers above 1 MiB or 1000 fields. To call a gRPC agent: grpcurl -plaintext -H 'x-deployment-id: {id}' {authority} \
         SERVICE/METHOD"
    )
}

#[tokio::test]
async fn a_response_that_is_not_http_has_its_own_code() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::raw::start("ssh", |mut stream| async move {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(drop)
    });
    let agent = agent.unwrap();
    envoy.routes().put_all([("ssh", agent.port())]).await.unwrap();
    check_both(&envoy, "ssh", 502, "agent_protocol_error", (not_http1("ssh", envoy.data_addr()).as_str(), NOT_HTTP2)).await;
}

/// What people try first with a gRPC agent. `tests/peers` does the same with an agent of grpcio, and curl.
#[tokio::test]
async fn a_grpc_agent_that_is_called_by_http_says_how_to_call_it() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::grpc::start("alpha").unwrap();
    envoy.routes().put_all([("alpha", agent.port())]).await.unwrap();
    for client in [http1(), http2()] {
        let response = rejection(&client, &envoy, "alpha").await;
        assert_eq!(response.2["detail"], not_http1("alpha", envoy.data_addr()));
        assert_eq!((response.0, response.1), (502, "agent_protocol_error".to_owned()));
    }
}

/// An upload that is in flight when the connection fails gets the same rejection, however much of it Envoy has read.
#[tokio::test]
async fn a_large_upload_to_an_agent_that_is_down_gets_the_same_rejection() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (_down, down) = down();
    envoy.routes().put_all([("down", down)]).await.unwrap();
    let client = http2();
    let request = client.post(envoy.data_url()).header("x-deployment-id", "down").body(vec![0; 8 << 20]);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["x-pixell-error"], "agent_unreachable");
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["code"], "agent_unreachable");
}

#[tokio::test]
async fn an_agents_own_errors_pass_untouched() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = http::start("busy", 0, http::Version::Http1, |request| async move {
        let status: u16 = request.uri().path().trim_start_matches('/').parse().unwrap();
        drop(request.into_body().collect().await);
        let mut response = hyper::Response::new(http::whole("mine, {not json}"));
        *response.status_mut() = ::http::StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-type", "text/x-mine".parse().unwrap());
        response.headers_mut().insert("retry-after", "7".parse().unwrap());
        response
    });
    let agent = agent.unwrap();
    envoy.routes().put_all([("busy", agent.port())]).await.unwrap();
    for status in [400, 403, 404, 408, 429, 500, 502, 503, 504, 507, 599] {
        let url = format!("{}/{status}", envoy.data_url());
        let response = http1().get(url).header("x-deployment-id", "busy").send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(
            (&response.headers()["content-type"], &response.headers()["retry-after"]),
            (&"text/x-mine".parse().unwrap(), &"7".parse().unwrap())
        );
        assert!(!response.headers().contains_key("x-pixell-error"));
        assert_eq!(response.text().await.unwrap(), "mine, {not json}");
    }
}
