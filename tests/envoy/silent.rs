//! Unused connections: each is closed soon, and they lock nobody out for longer than that.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::{Envoy, EnvoyBuilder, agents, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients::{http1, http2};
use crate::wire;

/// How long a connection may stay silent.
const SILENCE: Duration = Duration::from_secs(15);
/// The shipped limit of client connections.
const SHIPPED: &str = "max_active_downstream_connections: 10000";
/// The limit in this test: low enough that opening them all takes a small part of that time, even on a busy machine.
const MOST: u64 = 200;

/// Connections that never send a byte use up the limit. After 15 s there is room again, and clients that kept a connection still have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_lock_nobody_out_for_long() {
    let envoy = Envoy::builder().edit(SHIPPED, &format!("max_active_downstream_connections: {MOST}")).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let call = async |client: &reqwest::Client| {
        let response = client.get(envoy.data_url()).header("x-deployment-id", "a").send().await.ok()?;
        response.bytes().await.ok()
    };
    let kept = [http1(), http2()];
    for client in &kept {
        call(client).await.unwrap();
    }
    let opened = async || envoy.stat("http.agents.downstream_cx_total").await.unwrap().unwrap();
    let before = opened().await;

    let mut silent = Vec::new();
    for _ in 2..MOST {
        silent.push(TcpStream::connect(envoy.data_addr()).await.unwrap());
    }
    let full = Instant::now();
    loop {
        let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
        // Envoy closes a connection at once if there is no room.
        if tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await.is_ok() {
            break;
        }
        silent.push(stream);
        assert!(full.elapsed() < Duration::from_secs(10), "the limit is not reached");
    }
    // On a connection of its own, whose end no client library can miss.
    let served = || async {
        let mut stream = TcpStream::connect(envoy.data_addr()).await?;
        Ok(wire::serves(&mut stream, "a").await.then_some(()))
    };
    wait::until("room for a connection", SILENCE * 2, served).await.unwrap();
    println!("{MOST} silent connections, a new client was served after {:?}", full.elapsed());
    assert!(full.elapsed() < SILENCE + Duration::from_secs(5), "{:?}", full.elapsed());
    // All of them end.
    let ended = || async {
        let active = envoy.stat("listener.agents.downstream_pre_cx_active").await?;
        Ok((active == Some(0)).then_some(()))
    };
    wait::until("the silent connections to end", SILENCE, ended).await.unwrap();
    for client in &kept {
        call(client).await.unwrap();
    }
    assert!(opened().await <= before + 3, "the clients still use the connections that they kept");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// HEADERS without END_HEADERS, which only CONTINUATION may follow.
const HALF: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x82";

/// A name, what a connection sends first, and what it then sends repeatedly.
type Case = (&'static str, [&'static [u8]; 3], &'static [u8]);

/// Connections that make no request.
pub(crate) const CASES: [Case; 9] = [
    ("nothing", [b"", b"", b""], b""),
    ("a byte", [b"G", b"", b""], b""),
    ("byte by byte", [b"G", b"", b""], b"E"),
    ("empty lines", [b"\r\n", b"", b""], b"\r\n"),
    ("a first line", [b"GET / HTTP/1.1\r\n", b"", b""], b""),
    ("headers byte by byte", [b"GET / HTTP/1.1\r\nx: ", b"", b""], b"y"),
    ("half a preface", [b"PRI * HTTP/2", b"", b""], b""),
    ("HTTP/2 without a request", [PREFACE, SETTINGS, b""], b""),
    ("HTTP/2 with half of its headers", [PREFACE, SETTINGS, HALF], b""),
];

/// An Envoy with a tenth of each shipped timeout, but more time to respond to PING, because this test's client may be slow.
fn quick() -> EnvoyBuilder {
    Envoy::builder()
        .edit("listener_filters_timeout: 15s", "listener_filters_timeout: 1.5s")
        .edit("request_headers_timeout: 10s\n                # ", "request_headers_timeout: 1s\n                # ")
        .edit("{ interval: 10s, timeout: 5s }", "{ interval: 1s, timeout: 3s }")
}

/// Sends `opening`, then `more` every 300 ms, until Envoy closes the connection. Returns how long that took.
pub(crate) async fn lasts(address: SocketAddr, opening: &[u8], more: &[u8]) -> Duration {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let started = Instant::now();
    stream.write_all(opening).await.unwrap();
    let mut some = [0; 4096];
    while started.elapsed() < Duration::from_secs(30) {
        match tokio::time::timeout(Duration::from_millis(300), stream.read(&mut some)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => {}
            Err(_) => {
                if stream.write_all(more).await.is_err() {
                    break;
                }
            }
        }
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_makes_no_request_ends_soon() {
    let envoy = quick().start().await.unwrap();
    let all = CASES.map(|(what, opening, more)| {
        let address = envoy.data_addr();
        async move { (what, lasts(address, &opening.concat(), more).await) }
    });
    for (what, lasted) in futures_util::future::join_all(all).await {
        assert!(lasted < Duration::from_secs(10), "{what}: {lasted:?}");
        println!("{what}: {lasted:?}");
    }
}

/// Connections that have had a response, and HTTP/2 connections that respond to PING, stay open for much longer than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_connections_and_silent_streams_live_on() {
    let envoy = quick().start().await.unwrap();
    let (source, agent) = crate::sse_and_websocket::event_agent();
    let echo = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("events", agent.port()), ("a", echo.port())]).await.unwrap();
    let (clients, readers) = ([http1(), http2()], [http1(), http2()]);
    let call = async |client: &reqwest::Client| {
        let response = client.get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
    };
    let mut streams = Vec::new();
    for (client, reader) in clients.iter().zip(&readers) {
        call(client).await;
        streams.push(reader.get(envoy.data_url()).header("x-deployment-id", "events").send().await.unwrap());
    }
    let opened = envoy.stat("http.agents.downstream_cx_total").await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    source.send("data: still here\n\n".into()).unwrap();
    for stream in &mut streams {
        let event = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.unwrap().unwrap();
        assert_eq!(event.unwrap(), "data: still here\n\n");
    }
    for client in &clients {
        call(client).await;
    }
    assert_eq!(envoy.stat("http.agents.downstream_cx_total").await.unwrap(), opened);
}
