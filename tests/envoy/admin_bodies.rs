//! Unexpected bodies and unfinished bodies on the port of the route API: Envoy buffers little of them.

use std::net::SocketAddr;
use std::time::Duration;

use harness::Envoy;
use reqwest::{Body, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{Api, no_vm_fell_over};
use crate::clients::{http1, http2};

/// How much is sent to each path.
const SENT: usize = 500 << 20;

fn resident_mib(envoy: &Envoy) -> u64 {
    envoy.resident_bytes().unwrap() >> 20
}

/// Sends `SENT` bytes in chunks, as fast as Envoy reads them, until it closes the connection. Returns its response.
async fn flood(address: SocketAddr, line: &str) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let head =
        format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    let send = async {
        let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
        writing.write_all(head.as_bytes()).await?;
        for _ in 0..SENT / 0x10000 {
            writing.write_all(&chunk).await?;
        }
        writing.write_all(b"0\r\n\r\n").await
    };
    let receive = async move {
        let mut response = Vec::new();
        let mut some = [0; 4096];
        // The head is enough. The connection may be reset after it.
        while let Ok(count @ 1..) = reading.read(&mut some).await {
            response.extend(&some[..count]);
            if response.windows(4).any(|end| end == b"\r\n\r\n") {
                break;
            }
        }
        String::from_utf8_lossy(&response).into_owned()
    };
    let sent = tokio::spawn(async { tokio::time::timeout(Duration::from_secs(60), receive).await });
    let _ = tokio::time::timeout(Duration::from_secs(60), send).await.unwrap();
    sent.await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unexpected_body_is_not_kept() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let before = resident_mib(&envoy);
    for (line, status) in [
        ("GET /ready", 413),
        ("GET /stats", 413),
        ("GET /stats/prometheus", 413),
        ("GET /server_info", 413),
        ("POST /ready", 413),
        ("HEAD /ready", 413),
        ("GET /nothing", 413),
        ("POST /quitquitquit", 413),
        ("GET /ready?x=/v1/", 413),
        ("GET /", 200),
        ("GET /v1/routes", 200),
        ("GET /v1/status", 200),
        ("DELETE /v1/routes/a", 204),
        ("POST /v1/routes", 405),
        ("GET /v1/nothing", 404),
        ("PUT /v1/routes", 413),
    ] {
        let response = flood(envoy.api_addr(), line).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {response}");
        let now = resident_mib(&envoy);
        assert!(now < before + 60, "{line}: {before} MiB, then {now} MiB");
    }
    assert_eq!(api.call("GET", "/ready", "").await.body, "LIVE\n");
    no_vm_fell_over(&envoy, &api).await;
}

/// Some clients send a body with every request.
#[tokio::test]
async fn a_short_body_is_ignored() {
    let envoy = Envoy::builder().start().await.unwrap();
    for client in [http1(), http2()] {
        for path in ["/ready", "/stats", "/server_info", "/", "/v1/status"] {
            for size in [2, 4096] {
                let url = envoy.api_url() + path;
                let whole = client.get(&url).body(vec![b'x'; size]).send().await.unwrap();
                assert_eq!(whole.status(), 200, "{path}, {size}");
                assert!(!whole.bytes().await.unwrap().is_empty());
                let parts = [vec![b'x'; size / 2], vec![b'x'; size - size / 2]].map(Ok::<_, std::io::Error>);
                let chunked = Body::wrap_stream(futures_util::stream::iter(parts));
                assert_eq!(client.get(&url).body(chunked).send().await.unwrap().status(), 200, "{path}, {size} in chunks");
            }
        }
        let long = client.get(envoy.api_url() + "/ready").body(vec![b'x'; 4097]).send().await.unwrap();
        assert_eq!(long.status(), 413);
        assert!(long.text().await.unwrap().contains("this path takes no body"));
    }
}

#[tokio::test]
async fn unfinished_bodies_are_bounded_together() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let before = resident_mib(&envoy);
    let head =
        "PUT /v1/routes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2500000\r\n\r\n";
    let part = vec![b' '; 2_400_000];
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(envoy.api_addr()).await.unwrap();
        // Envoy closes the connections that it rejects before they have sent everything.
        let sent = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&part).await
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), sent).await;
        held.push(stream);
    }
    let now = resident_mib(&envoy);
    assert!(now < before + 100, "{before} MiB, then {now} MiB");
    let mut rejected = 0;
    for stream in &mut held {
        let mut response = vec![0; 12];
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read_exact(&mut response)).await;
        rejected += usize::from(matches!(read, Ok(Ok(_))) && response == b"HTTP/1.1 503");
    }
    assert!(rejected > 100, "{rejected} of 200 get a 503");
    // A write whose body arrives at once needs no room, and connections that end free theirs.
    assert_eq!(api.call("PUT", "/v1/routes/a", "2000").await.status, 201);
    drop(held);
    let large = format!("{{\"routes\":{{\"a\":2000{}}}}}", " ".repeat(2_000_000));
    let accepted = || async {
        let pieces: Vec<_> = large.as_bytes().chunks(100_000).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
        let request = api.next().request(Method::PUT, "/v1/routes").header("content-type", "application/json");
        let response = request.body(Body::wrap_stream(futures_util::stream::iter(pieces))).send().await?;
        Ok((response.status() == 200).then_some(()))
    };
    harness::wait::until("room for a large body", Duration::from_secs(20), accepted).await.unwrap();
    no_vm_fell_over(&envoy, &api).await;
}
