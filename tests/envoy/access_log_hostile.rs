//! No bytes of a client or an agent can break a line of the access log: each line is one JSON document, whatever was sent.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use harness::{Envoy, agents};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::access_log::{client, envoy_with};
use crate::clients::{http1, http2};
use crate::wire;
use harness::proto::DEPLOYMENT_ID;

/// The request headers that are logged on either listener, and some from which Envoy derives logged fields.
const LOGGED: [&str; 7] =
    [DEPLOYMENT_ID, "user-agent", "x-request-id", "traceparent", "x-forwarded-for", "content-type", "authorization"];
const RANDOM: usize = 1500;
const PATIENCE: Duration = Duration::from_secs(5);

/// Values chosen to break JSON, lines, formats and the limits of the log, and each single byte.
fn chosen() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![b'a', byte, b'"', byte]).collect();
    values.extend([
        br#""},{"log":"access","#.to_vec(),
        b"\"\n{\"log\":\"access\"}\n".to_vec(),
        b"\\".repeat(300),
        b"\"".repeat(50 * 1024),
        b"\xff".repeat(50 * 1024),
        b"\x01\"\\\xff".repeat(5 * 1024),
        b"\t\"\\\xff".repeat(5 * 1024),
        b"\\u0000\\n\\\"".to_vec(),
        b"\xe2\x80\xa8\xf0\x9f\x92\xa9\xed\xa0\x80".to_vec(),
        b"%REQ(authorization)% %START_TIME%".to_vec(),
        // Cut off in the middle of a character, and right after a backslash.
        "\u{e4}".repeat(4000).into_bytes(),
        [vec![b'x'; 255], b"\\\"".to_vec()].concat(),
    ]);
    values
}

/// Random bytes, most of them bytes that have a meaning in JSON.
fn random(count: usize) -> Vec<Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[]:,\n\r\t\0\x1b\x7f\x80\xc3\xe2\xf0\xff%u".to_vec())];
    let value = prop_oneof![9 => prop::collection::vec(byte.clone(), 0..64), 1 => prop::collection::vec(byte, 200..600)];
    let mut runner = TestRunner::default();
    (0..count).map(|_| value.new_tree(&mut runner).unwrap().current()).collect()
}

/// The values that an HTTP client can send: those without line breaks, NUL and other bytes that a header value cannot have.
fn sendable(count: usize) -> impl Iterator<Item = HeaderValue> {
    let whole = chosen().into_iter().filter_map(|value| HeaderValue::from_bytes(&value).ok());
    let cleaned = random(count).into_iter().map(|mut value| {
        value.retain(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f);
        HeaderValue::from_bytes(&value).unwrap()
    });
    whole.chain(cleaned)
}

/// Waits for the lines with this path. Reading the log parses every line.
async fn lines(envoy: &Envoy, path: &str, count: usize) -> Vec<Value> {
    let found = envoy.logged(count, |line| line["path"] == path).await.unwrap();
    assert_eq!(found.len(), count, "one line per request");
    found
}

/// Sent by an HTTP client, over both protocols: every value that a header can have.
#[tokio::test]
async fn hostile_header_values_break_no_line() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    // The limit of 60 KiB for all headers counts bytes of HTTP/1.1. Over HTTP/2, Envoy accepts less.
    for (path, client, most) in [("/one", http1(), 60 * 1024), ("/two", http2(), 32 * 1024)] {
        let mut sent = 0;
        for value in sendable(RANDOM).filter(|value| value.len() < most) {
            let mut request = client.get(format!("{}{path}", envoy.data_url()));
            // Seven long values together would be too large.
            let names = if value.len() > 1024 { &LOGGED[sent % 7..=sent % 7] } else { &LOGGED[..] };
            for name in names {
                request = request.header(HeaderName::from_static(name), value.clone());
            }
            request.send().await.unwrap().bytes().await.unwrap();
            sent += 1;
        }
        assert!(sent > RANDOM + 200, "{sent}");
        let lines = lines(&envoy, path, sent).await;
        let quoted = lines.iter().filter(|line| line["user_agent"].as_str().is_some_and(|agent| agent.contains('"')));
        assert!(quoted.count() > 200);
        for line in &lines {
            let long = |field: &str, most: usize| line[field].as_str().is_some_and(|value| value.chars().count() > most);
            assert!(!long("deployment_id", 256) && !long("user_agent", 256) && !long("request_id", 128), "{line}");
        }
    }
}

/// Sent as bytes on a connection, which no HTTP client would do: as a part of a header, a path or a method.
#[tokio::test]
async fn hostile_bytes_break_no_line() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let values: Vec<_> = chosen().into_iter().chain(random(400)).collect();
    let mut exchanges = Vec::new();
    for (number, value) in values.iter().enumerate() {
        let parts: [&[u8]; 3] = match number % 4 {
            0 => [b"GET /raw", value, b" HTTP/1.1\r\nhost: x\r\n\r\n"],
            1 => [b"GET /raw HTTP/1.1\r\nhost: x\r\nx-deployment-id: a", value, b"\r\n\r\n"],
            2 => [b"", value, b" /raw HTTP/1.1\r\nhost: x\r\n\r\n"],
            _ => [b"GET /raw HTTP/1.1\r\nhost: x\r\nuser-agent: a\r\n ", value, b": b\r\n\r\n"],
        };
        let bytes = parts.concat();
        exchanges.extend([envoy.data_addr(), envoy.api_addr()].map(|address| (address, bytes.clone())));
    }
    let exchange = |(address, bytes): &(SocketAddr, Vec<u8>)| {
        let (address, bytes) = (*address, bytes.clone());
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Envoy may close the connection before it has read everything.
            let _ = stream.write_all(&bytes).await;
            // A connection that ends before Envoy has read it gets no line.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = stream.shutdown().await;
            wire::drain(&mut stream, PATIENCE).await;
        }
    };
    for some in exchanges.chunks(50) {
        join_all(some.iter().map(exchange)).await;
    }
    client().get(envoy.data_url() + "/last").send().await.unwrap();
    lines(&envoy, "/last", 1).await;
    let all = envoy.access_log().unwrap();
    assert!(all.len() > values.len(), "{}", all.len());
    for log in ["access", "route_api"] {
        let lines = all.iter().filter(|line| line["log"] == log).count();
        assert!(lines > values.len() / 2, "{log}: {lines} of {}", values.len());
    }
    // No value made a line of its own.
    assert!(all.iter().all(|line| line.get("status").is_some()));
}

/// The gRPC status of a response is logged, too.
#[tokio::test]
async fn hostile_agents_break_no_line() {
    let values: Vec<_> = chosen().into_iter().chain(random(300)).filter(|value| value.len() < 4096).collect();
    let count = values.len();
    let next = std::sync::Arc::new(std::sync::Mutex::new(values.into_iter()));
    let agent = agents::raw::start("a", move |mut stream| {
        let value = next.lock().unwrap().next().unwrap_or_default();
        async move {
            wire::head(&mut stream).await?;
            let head =
                b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\ncontent-type: application/grpc\r\n".as_slice();
            let parts =
                [head, b"x-pixell-error: ", &value, b"\r\ngrpc-status: ", &value, b"\r\ngrpc-message: ", &value, b"\r\n\r\n"];
            stream.write_all(&parts.concat()).await?;
            // If the agent closed with unread bytes, the connection would be reset and the response lost.
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }
    });
    let agent = agent.unwrap();
    let envoy = envoy_with(&[&agent]).await;
    for _ in 0..count {
        let request = http1().get(envoy.data_url() + "/agent").header(DEPLOYMENT_ID, "a");
        // Envoy replaces what is not a valid response by its own.
        let _ = request.send().await.unwrap().bytes().await;
    }
    let lines = lines(&envoy, "/agent", count).await;
    // An agent's own `x-pixell-error` is removed, so all errors are Envoy's.
    let mut errors = lines.iter().filter_map(|line| line["error"].as_str());
    assert!(errors.all(|error| error == "agent_protocol_error"));
    assert!(lines.iter().filter(|line| line["status"] == 200).count() > 100);
}

/// The lines of the route API, and brief lines.
#[tokio::test]
async fn hostile_values_break_no_route_api_line_and_no_brief_line() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    envoy.admin_post("/runtime_modify?pixell.access_log.full=0&pixell.access_log.brief=100").await.unwrap();
    let (api, data) = (http1(), http1());
    let mut sent = 0;
    for header in sendable(300).filter(|value| value.len() < 1024) {
        let encoded: String = header.as_bytes().iter().map(|byte| format!("%{byte:02x}")).collect();
        let request = api.request(Method::PUT, format!("{}/v1/routes/{encoded}?q=\"\\", envoy.api_url()));
        let request = request.header("user-agent", header.clone()).header("x-request-id", header.clone()).body("1");
        request.send().await.unwrap().bytes().await.unwrap();
        let request = data.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").header("x-request-id", header);
        assert!(!request.send().await.unwrap().bytes().await.unwrap().is_empty());
        sent += 1;
    }
    assert!(sent > 300);
    // One of `put_all` at the start, and one for each value.
    let written = envoy.logged(sent + 1, |line| line["log"] == "route_api").await.unwrap();
    assert_eq!(written.len(), sent + 1);
    let brief = envoy.logged(sent, |line| line["log"] == "access" && line.get("path").is_none()).await.unwrap();
    assert_eq!(brief.len(), sent);
}
