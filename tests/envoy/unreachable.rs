//! Agents that cannot be reached, and what their callers are told: the contract's code and nothing of Envoy's inside.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use harness::agents::{self, http};
use harness::{Agent, Envoy};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tonic::Code;

use crate::clients::{grpc_refusal, http1, http2, refusal};

/// A port that nobody listens on and nobody else can take.
fn down() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A port whose listener takes no more connections: the kernel drops each attempt without a word.
async fn silent() -> (tokio::net::TcpListener, Vec<TcpStream>, u16) {
    let (socket, port) = down();
    let listener = socket.listen(1).unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(("127.0.0.1", port))).await {
        queued.push(connected.unwrap());
    }
    (listener, queued, port)
}

fn closing() -> Agent {
    agents::raw::start("closing", |stream| async {
        drop(stream);
        Ok(())
    })
    .unwrap()
}

/// Takes the request and ends the connection without an answer.
fn mute() -> Agent {
    agents::raw::start("mute", |mut stream| async move {
        let mut some = [0; 64];
        stream.read(&mut some).await.map(drop)
    })
    .unwrap()
}

async fn check(envoy: &Envoy, id: &str, status: u16, code: &str, detail: &str) {
    let title = if status == 502 { "Bad Gateway" } else { "Service Unavailable" };
    let problem = json!({"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code});
    let (one, two) = (http1(), http2());
    let (one, two, grpc) = tokio::join!(refusal(&one, envoy, id), refusal(&two, envoy, id), grpc_refusal(envoy, id));
    for seen in [one, two] {
        assert_eq!(seen, (status, code.to_owned(), problem.clone()), "{id}");
    }
    assert_eq!(grpc, (Code::Unavailable, code.to_owned(), detail.to_owned()), "{id}");
}

#[tokio::test]
async fn callers_are_told_agent_unreachable() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (_down, down) = down();
    let (_listener, _queued, silent) = silent().await;
    let (closing, mute) = (closing(), mute());
    let routes = [("down", down), ("silent", silent), ("closing", closing.port()), ("mute", mute.port())];
    envoy.routes().put_all(routes).await.unwrap();
    let message = "The agent of this deployment cannot be reached";
    join_all(routes.map(|(id, _)| check(&envoy, id, 503, "agent_unreachable", message))).await;
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_told_apart() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::raw::start("ssh", |mut stream| async move {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(drop)
    });
    let agent = agent.unwrap();
    envoy.routes().put_all([("ssh", agent.port())]).await.unwrap();
    check(&envoy, "ssh", 502, "agent_protocol_error", "The answer of the agent is not valid HTTP").await;
}

/// An upload that is under way when the connection fails is told the same, however much of it Envoy has taken already.
#[tokio::test]
async fn a_large_upload_to_an_agent_that_is_down_is_told_the_same() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (_down, down) = down();
    envoy.routes().put_all([("down", down)]).await.unwrap();
    let client = http2();
    let request = client.post(envoy.data_url()).header("x-deployment-id", "down").body(vec![0; 8 << 20]);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["x-pixell-error"], "agent_unreachable");
    let body: serde_json::Value = answer.json().await.unwrap();
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
        let answer = http1().get(url).header("x-deployment-id", "busy").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(
            (&answer.headers()["content-type"], &answer.headers()["retry-after"]),
            (&"text/x-mine".parse().unwrap(), &"7".parse().unwrap())
        );
        assert!(!answer.headers().contains_key("x-pixell-error"));
        assert_eq!(answer.text().await.unwrap(), "mine, {not json}");
    }
}
