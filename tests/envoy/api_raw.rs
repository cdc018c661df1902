//! Bytes that no HTTP client would send: Envoy stays up, no VM crashes, and the map does not change.

use std::net::SocketAddr;
use std::time::Duration;

use harness::{Envoy, EnvoyBuilder};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api::{Api, no_vm_fell_over};

/// How long a response may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends `parts` one after the other. Returns all that comes back until Envoy closes the connection.
async fn exchange(address: SocketAddr, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for part in parts {
        // Envoy may respond and close the connection before everything is sent.
        if stream.write_all(part).await.is_err() || stream.flush().await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut response = Vec::new();
    // If the connection is reset, what was read before that stays.
    let closed = timeout(PATIENCE, stream.read_to_end(&mut response)).await;
    assert!(closed.is_ok(), "Envoy has not closed the connection after {response:?}");
    String::from_utf8_lossy(&response).into_owned()
}

/// Sends `parts` and closes the connection without waiting for a response.
async fn abandon(address: SocketAddr, parts: &[&[u8]]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for part in parts {
        stream.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends `bytes`, closes its half of the connection, and waits for Envoy to close the other, whatever the response is.
async fn hang_up(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Envoy may respond and close the connection before everything is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let closed = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "Envoy has not closed the connection after {bytes:?}");
}

fn status(response: &str) -> u16 {
    response.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
}

/// The head of a write of one route, with these `headers`, on a connection that closes after the response.
fn head(headers: &str) -> Vec<u8> {
    format!(
        "PUT /v1/routes/raw HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}\r\n"
    )
    .into_bytes()
}

async fn start(settings: EnvoyBuilder) -> (Envoy, Api, Value) {
    let envoy = settings.start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.call("PUT", "/v1/routes", r#"{"routes":{"a":2000,"b":{"port":2001,"state":"draining"}}}"#).await;
    let map = api.map().await;
    (envoy, api, map)
}

#[tokio::test]
async fn broken_requests_are_rejected_in_the_form_of_the_api() {
    let (envoy, api, map) = start(Envoy::builder()).await;
    let address = envoy.api_addr();
    let long = format!("X-Long: {}\r\nContent-Length: 4\r\n", "x".repeat(70_000));
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (request, body, expected) in [
        (head("Content-Length: 4\r\nContent-Length: 5\r\n"), "2000", 400),
        (head("Content-Length: 4, 4\r\n"), "2000", 400),
        (head("Content-Length: -4\r\n"), "2000", 400),
        (head("Content-Length: +4\r\n"), "2000", 400),
        (head("Content-Length: 0x4\r\n"), "2000", 400),
        (head("Content-Length: 99999999999999999999\r\n"), "2000", 400),
        (head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), "4\r\n2000\r\n0\r\n\r\n", 400),
        (head("Transfer-Encoding: gzip, chunked\r\n"), "4\r\n2000\r\n0\r\n\r\n", 501),
        (head("Transfer-Encoding: identity\r\n"), "2000", 501),
        (head("Transfer-Encoding: chunked\r\n"), "zz\r\n2000\r\n0\r\n\r\n", 400),
        (head("Transfer-Encoding: chunked\r\n"), "-1\r\n2000\r\n0\r\n\r\n", 400),
        (head("Transfer-Encoding: chunked\r\n"), "ffffffffffffffffff\r\n2000\r\n0\r\n\r\n", 400),
        (head("Transfer-Encoding: chunked\r\n"), "4\r\n2000XX0\r\n\r\n", 400),
        (head(&long), "2000", 431),
        (head(&many), "2000", 431),
        (head("X-Nul: a\0b\r\n"), "", 400),
        (head("no colon\r\n"), "", 400),
        (b"\x00\x01\x02\x03\r\n\r\n".to_vec(), "", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "", 400),
        (b"GET\r\n\r\n".to_vec(), "", 400),
        (b"GET /v1/routes HTTP/9.9\r\n\r\n".to_vec(), "", 426),
        (b"GET /v1/routes HTTP/1.0\r\nConnection: close\r\n\r\n".to_vec(), "", 426),
        (b"GET /v1/routes HTTP/1.1\r\n\r\n".to_vec(), "", 400),
        (b"GET /v1/routes/\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(), "", 400),
        (b"GET /v1/routes/a%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(), "", 400),
        (b"GET /v1/routes/a#b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(), "", 400),
        (b"put /v1/routes/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(), "", 400),
        (b"CONNECT /v1/routes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(), "", 400),
        (b"GET /v1/routes HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec(), "", 403),
        (
            format!("GET /v1/routes/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "x".repeat(70_000))
                .into_bytes(),
            "",
            431,
        ),
    ] {
        let response = exchange(address, &[&request, body.as_bytes()]).await;
        let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        assert_eq!(status(&response), expected, "{shown:?} {body:?}: {response}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: application/problem+json"), "{shown:?}: {response}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&expected.into(), &"refused_by_envoy".into()),
            "{shown:?}: {response}"
        );
        assert_eq!(api.map().await, map, "{shown:?}");
    }
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn an_unfinished_request_changes_nothing() {
    let (envoy, api, map) = start(Envoy::builder().edit("request_timeout: 30s", "request_timeout: 1s")).await;
    let address = envoy.api_addr();
    let length = head("Content-Length: 4\r\n");
    let longer = head("Content-Length: 400\r\n");
    let chunked = head("Transfer-Encoding: chunked\r\n");
    let cut_off: [&[&[u8]]; 9] = [
        &[b"P"],
        &[b"PUT /v1/routes/raw HTTP/1.1\r\nHost: localhost\r\nContent-"],
        &[&length],
        &[&length, b"200"],
        // The JSON is complete, but the request is not.
        &[&longer, b"2000"],
        &[&chunked, b"4\r\n2000\r\n"],
        &[&chunked, b"4\r\n2000\r\n0\r\n"],
        &[&chunked, b"4\r\n20"],
        &[&chunked, b"4\r\n2000\r\n0\r\nX-Trailer: 1\r\n"],
    ];
    for parts in cut_off {
        for _ in 0..4 {
            abandon(address, parts).await;
        }
    }
    // Requests that stay open get a 408 after the timeout.
    let waiting = cut_off.iter().skip(2).map(|parts| exchange(address, parts));
    for (parts, response) in cut_off.iter().skip(2).zip(futures_util::future::join_all(waiting).await) {
        assert_eq!(status(&response), 408, "{parts:?}: {response}");
        assert!(response.contains("\"code\":\"refused_by_envoy\""), "{response}");
    }
    assert_eq!(api.map().await, map);
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn unusual_but_complete_requests_succeed() {
    let (envoy, api, _) = start(Envoy::builder()).await;
    let address = envoy.api_addr();
    let slowly: Vec<_> = [head("Content-Length: 14\r\n").as_slice(), b"{\"port\": 2005}"].concat();
    let bytes: Vec<&[u8]> = slowly.chunks(1).collect();
    assert_eq!(status(&exchange(address, &bytes).await), 201, "byte by byte");
    let expect = head("Expect: 100-continue\r\nContent-Length: 4\r\n");
    let response = exchange(address, &[&expect, b"2006"]).await;
    assert!(response.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{response}");
    let chunks = head("Transfer-Encoding: chunked\r\n");
    let response = exchange(address, &[&chunks, b"1;ext=1\r\n2\r\n", b"3\r\n007\r\n", b"0\r\nX-Trailer: 1\r\n\r\n"]).await;
    assert_eq!(status(&response), 200, "chunk extensions and trailers: {response}");

    // Two requests at once on one connection get one response each, in their order. (At a third request, Envoy itself closes the connection
    // if neither response has been sent yet.)
    let put = |port, headers| {
        format!(
            "PUT /v1/routes/raw HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}Content-Length: 4\r\n\r\n{port}"
        )
    };
    let response = exchange(address, &[(put(3000, "") + &put(3001, "Connection: close\r\n")).as_bytes()]).await;
    assert_eq!((response.matches("HTTP/1.1 200 OK").count(), response.matches("\"changed\":1").count()), (2, 2), "{response}");
    assert_eq!(api.call("GET", "/v1/routes/raw", "").await.json().unwrap()["port"], 3001);

    // A body that is ignored is not taken for the next request.
    let smuggled = "DELETE /v1/routes/raw HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (line, expected) in [
        ("GET /v1/status", 200),
        ("POST /v1/routes", 405),
        ("GET /v1/nowhere", 404),
        ("PUT /v1/routes?x", 400),
        ("DELETE /v1/routes/none", 204),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len());
        let response = exchange(
            address,
            &[request.as_bytes(), b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        )
        .await;
        assert_eq!(status(&response), expected, "{line}: {response}");
        assert_eq!(api.call("GET", "/v1/routes/raw", "").await.status, 200, "{line}");
    }
    no_vm_fell_over(&envoy, &api).await;
}

/// A dry run with random bytes changed. Whatever request results, it cannot change the map.
#[tokio::test]
async fn requests_with_random_changes_do_not_write() {
    let (envoy, api, map) = start(Envoy::builder()).await;
    let body = r#"{"routes":{"a":null,"raw":{"port":2005,"state":"draining"},"c":2006}}"#;
    let whole = format!(
        "PATCH /v1/routes?dry_run=true HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/merge-patch+json\r\nIf-Match: *\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes();
    assert_eq!(status(&exchange(envoy.api_addr(), &[&whole]).await), 200);
    let changes = vec((0..4, any::<Index>(), any::<u8>()), 1..=3);
    let mut runner = TestRunner::deterministic();
    for _ in 0..20 {
        let requests: Vec<_> =
            (0..50).map(|_| with_changes(&whole, &changes.new_tree(&mut runner).unwrap().current())).collect();
        futures_util::future::join_all(requests.iter().map(|request| hang_up(envoy.api_addr(), request))).await;
        assert_eq!(api.map().await, map);
    }
    no_vm_fell_over(&envoy, &api).await;
}

/// `whole` with bytes removed, inserted or changed.
fn with_changes(whole: &[u8], changes: &[(i32, Index, u8)]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for (kind, at, byte) in changes {
        let at = at.index(bytes.len());
        match kind {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, *byte),
            2 => bytes[at] = *byte,
            _ => bytes[at] ^= 1 << (byte % 8),
        }
    }
    bytes
}
