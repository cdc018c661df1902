//! No bytes of a caller or an agent can break a line of the access log: each line is one JSON document, whatever was sent.

use std::time::Duration;

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

/// The request headers that are logged on either listener, and some that Envoy derives what it logs from.
const LOGGED: [&str; 7] =
    [DEPLOYMENT_ID, "user-agent", "x-request-id", "traceparent", "x-forwarded-for", "content-type", "authorization"];
const RANDOM: usize = 1500;
const PATIENCE: Duration = Duration::from_secs(5);

/// Values chosen to break JSON, lines, formats and the log's own limits, and every single byte.
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

/// Random bytes, with those that mean something to JSON far more often than they would come.
fn random(count: usize) -> Vec<Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[]:,\n\r\t\0\x1b\x7f\x80\xc3\xe2\xf0\xff%u".to_vec())];
    let value = prop_oneof![9 => prop::collection::vec(byte.clone(), 0..64), 1 => prop::collection::vec(byte, 200..600)];
    let mut runner = TestRunner::default();
    (0..count).map(|_| value.new_tree(&mut runner).unwrap().current()).collect()
}

/// What of the values a proper client can send: without line breaks, NUL and the like, which are no part of a header's value.
fn sendable(count: usize) -> impl Iterator<Item = HeaderValue> {
    let whole = chosen().into_iter().filter_map(|value| HeaderValue::from_bytes(&value).ok());
    let cleaned = random(count).into_iter().map(|mut value| {
        value.retain(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f);
        HeaderValue::from_bytes(&value).unwrap()
    });
    whole.chain(cleaned)
}

/// The lines with this path, once everything before is written; asking for them parses every line there is.
async fn lines(envoy: &Envoy, path: &str, count: usize) -> Vec<Value> {
    let found = envoy.logged(count, |line| line["path"] == path).await.unwrap();
    assert_eq!(found.len(), count, "a request is a line");
    found
}

/// As a proper client sends them: all that a header can hold, in both protocols.
#[tokio::test]
async fn hostile_header_values_break_no_line() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    // The limit of 60 KiB for all headers is one of HTTP/1.1's bytes; of HTTP/2 Envoy takes fewer.
    for (path, client, most) in [("/one", http1(), 60 * 1024), ("/two", http2(), 32 * 1024)] {
        let mut sent = 0;
        for value in sendable(RANDOM).filter(|value| value.len() < most) {
            let mut request = client.get(format!("{}{path}", envoy.data_url()));
            // Seven long ones would be too large together.
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

/// As no proper client does: bytes on a connection, whether that makes a header, a path, a method or nothing at all.
#[tokio::test]
async fn hostile_bytes_break_no_line() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let values: Vec<_> = chosen().into_iter().chain(random(400)).collect();
    for (number, value) in values.iter().enumerate() {
        let parts: [&[u8]; 3] = match number % 4 {
            0 => [b"GET /raw", value, b" HTTP/1.1\r\nhost: x\r\n\r\n"],
            1 => [b"GET /raw HTTP/1.1\r\nhost: x\r\nx-deployment-id: a", value, b"\r\n\r\n"],
            2 => [b"", value, b" /raw HTTP/1.1\r\nhost: x\r\n\r\n"],
            _ => [b"GET /raw HTTP/1.1\r\nhost: x\r\nuser-agent: a\r\n ", value, b": b\r\n\r\n"],
        };
        for address in [envoy.data_addr(), envoy.api_addr()] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Envoy may have had enough before the end.
            let _ = stream.write_all(&parts.concat()).await;
            let _ = stream.shutdown().await;
            wire::drain(&mut stream, PATIENCE).await;
        }
    }
    client().get(envoy.data_url() + "/last").send().await.unwrap();
    lines(&envoy, "/last", 1).await;
    let all = envoy.access_log().unwrap();
    assert!(all.len() > values.len(), "{}", all.len());
    for log in ["access", "route_api"] {
        let lines = all.iter().filter(|line| line["log"] == log);
        assert!(lines.count() > values.len() / 2, "{log}");
    }
    // Whatever was written into a value, no line of its own came of it.
    assert!(all.iter().all(|line| line.get("status").is_some()));
}

/// What an agent answers is logged, too: its `x-pixell-error` and its gRPC status.
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
            // Ended with unread bytes the connection would be reset, and the answer lost.
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }
    });
    let agent = agent.unwrap();
    let envoy = envoy_with(&[&agent]).await;
    for _ in 0..count {
        let request = http1().get(envoy.data_url() + "/agent").header(DEPLOYMENT_ID, "a");
        // What is no answer becomes Envoy's own.
        let _ = request.send().await.unwrap().bytes().await;
    }
    let lines = lines(&envoy, "/agent", count).await;
    let told = lines.iter().filter(|line| line["error"].as_str().is_some_and(|error| error.contains('"')));
    assert!(told.count() > 100);
}

/// The route API's lines, and the brief ones.
#[tokio::test]
async fn hostile_values_break_no_line_of_the_route_api_and_no_brief_one() {
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
    // A put_all of the start, and one each.
    let written = envoy.logged(sent + 1, |line| line["log"] == "route_api").await.unwrap();
    assert_eq!(written.len(), sent + 1);
    let brief = envoy.logged(sent, |line| line["log"] == "access" && line.get("path").is_none()).await.unwrap();
    assert_eq!(brief.len(), sent);
}
