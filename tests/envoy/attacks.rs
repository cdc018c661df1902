//! Attacks that do not work: floods and compression in HTTP/2, tunnels through port 9901, IPv4 addresses mapped into IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use harness::{Agent, Envoy, agents};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::clients::http2;
use crate::wire;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(2);
/// Frame types and flags (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:method GET`, `:scheme http`, `:path /`, `:authority h`, and the id, by the static table and never indexed (RFC 7541).
const GET: &[u8] = b"\x82\x86\x84\x41\x01h\x10\x0fx-deployment-id\x01a";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

async fn scene() -> (Envoy, Agent) {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    (envoy, agent)
}

/// Envoy closes a connection that floods it with frames. Other connections do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_only_their_own_connection() {
    let (envoy, _agent) = scene().await;
    let client = http2();
    let ask = async || client.get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap().status();
    assert_eq!(ask().await, 200);
    let opened = frame(HEADERS, END_HEADERS, 1, GET);
    let rapid_resets = || {
        (0..2_000_u32).map(|n| 1 + 2 * n).flat_map(|stream| {
            [frame(HEADERS, END_HEADERS | END_STREAM, stream, GET), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        })
    };
    let floods: [(&str, Vec<u8>, Vec<u8>); 5] = [
        ("requests that are reset at once", Vec::new(), rapid_resets().collect()),
        ("headers that never end", frame(HEADERS, 0, 1, GET), frame(CONTINUATION, 0, 1, b"\x10\x01x\x01y").repeat(20_000)),
        ("empty data", opened.clone(), frame(DATA, 0, 1, b"").repeat(20_000)),
        ("windows", opened.clone(), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(200_000)),
        ("priorities", opened, frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(200_000)),
    ];
    for (what, opening, flood) in floods {
        let before = envoy.resident_bytes().unwrap();
        let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &opening].concat()).await.unwrap();
        let started = Instant::now();
        while tokio::time::timeout(PATIENCE, stream.write_all(&flood)).await.is_ok_and(|written| written.is_ok()) {
            assert!(started.elapsed() < Duration::from_secs(20), "{what}: the connection is still open");
            // The test reads what Envoy sends, so that only the flood can be the reason.
            wire::drain(&mut stream, Duration::from_millis(1)).await;
        }
        assert_eq!(ask().await, 200, "{what}");
        let grown = envoy.resident_bytes().unwrap().saturating_sub(before) >> 20;
        assert!(grown < 32, "{what}: Envoy grew by {grown} MiB");
    }
    assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
}

/// A header of 4,000 bytes in the dynamic table, and ten thousand references to it of one byte each: 40 MB of headers in 14 KB. Then
/// clients that announce huge tables.
#[tokio::test]
async fn header_compression_does_not_blow_up() {
    let (envoy, _agent) = scene().await;
    let before = envoy.resident_bytes().unwrap();
    let value = vec![b'v'; 4_000 - 33];
    // A literal with incremental indexing. Its length takes three bytes: 127, and the rest in groups of seven bits.
    let rest = value.len() - 127;
    let length = [0x7f, u8::try_from(rest & 0x7f).unwrap() | 0x80, u8::try_from(rest >> 7).unwrap()];
    let bomb = [GET, b"\x40\x01x", &length, &value, &[0xbe; 10_000]].concat();
    let huge = &[0, 1, 0xff, 0xff, 0xff, 0xff];
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
        // The client allows a table of 4 GiB for responses. Envoy's table for requests stays as it is.
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, huge), &frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)].concat();
        stream.write_all(&opening).await.unwrap();
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &bomb)).await.unwrap();
        let response = wire::drain(&mut stream, Duration::from_millis(20)).await;
        assert!(response.len() < 100_000, "{} bytes", response.len());
        held.push(stream);
    }
    let grown = envoy.resident_bytes().unwrap().saturating_sub(before) >> 20;
    assert!(grown < 32, "Envoy grew by {grown} MiB");
    // A table larger than the 4,096 that Envoy allows: the connection ends (RFC 7541, 4.2).
    let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
    let larger = [b"\x3f\xe1\xff\xff\x07".as_slice(), GET].concat();
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, b""), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &larger)].concat();
    stream.write_all(&bytes).await.unwrap();
    wire::drain(&mut stream, PATIENCE).await;
    assert!(stream.write_all(&bytes).await.is_err() || stream.write_all(&bytes).await.is_err(), "it is ended");
    let client = http2();
    assert_eq!(client.get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap().status(), 200);
}

/// Port 9901 opens no tunnel and accepts no upgrade.
#[tokio::test]
async fn port_9901_is_not_a_proxy() {
    let (envoy, agent) = scene().await;
    let target = format!("127.0.0.1:{}", agent.port());
    for request in [
        format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("GET http://{target}/ HTTP/1.1\r\nhost: {target}\r\nx-deployment-id: a\r\nconnection: close\r\n\r\n"),
        "GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_owned(),
        "OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(),
        "TRACE /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(),
    ] {
        let response = wire::exchange(envoy.api_addr(), request.as_bytes(), PATIENCE).await;
        let response = String::from_utf8_lossy(&response);
        assert!(!response.starts_with("HTTP/1.1 101") && !response.contains("\"agent\""), "{request}: {response}");
        assert!(!request.starts_with("CONNECT") || !response.starts_with("HTTP/1.1 2"), "{request}: {response}");
    }
    assert_eq!(envoy.stat("cluster.agents_http1.upstream_cx_total").await.unwrap(), Some(0));
}

/// A listener for both families sees IPv4 clients at addresses mapped into IPv6. They count as IPv4 addresses: loopback may write
/// routes, and an agent sees the IPv4 address.
#[tokio::test]
async fn an_ipv4_address_mapped_into_ipv6_counts_as_ipv4() {
    let both = |port: u16| format!("address: 0.0.0.0, port_value: {port} ");
    let builder = [50051, 9901].into_iter().fold(Envoy::builder(), |builder, port| {
        builder.edit(&format!("{}}}", both(port)), &format!("{}, ipv4_compat: true }}", both(port)))
    });
    let envoy = builder.bind(Ipv6Addr::UNSPECIFIED).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    assert!(envoy.data_addr().is_ipv4() && envoy.data_addr().ip() == Ipv4Addr::LOCALHOST);
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let response = http2().get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap().text().await.unwrap();
    assert!(response.contains("\"127.0.0.1\"") && !response.contains("::ffff"), "{response}");
    let line = envoy.logged(1, |line| line["log"] == "access").await.unwrap().remove(0);
    assert!(line["caller"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    // No header makes a client local.
    let forged = "GET /v1/routes HTTP/1.1\r\nhost: h.example\r\nx-forwarded-for: ::ffff:127.0.0.1\r\nconnection: close\r\n\r\n";
    let response = wire::exchange(envoy.api_addr(), forged.as_bytes(), PATIENCE).await;
    assert!(response.starts_with(b"HTTP/1.1 403"), "{}", response.escape_ascii());
}
