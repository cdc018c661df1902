//! Unexpected bodies and unfinished bodies on the port of the route API: Envoy buffers little of them.

use std::net::SocketAddr;
use std::time::Duration;

use harness::Envoy;
use harness::envoy::is_native;
use reqwest::{Body, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{Api, no_vm_fell_over};
use crate::clients::{http1, http2};
use crate::wire;

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
        // While a rejection waits, Envoy itself rejects more than 32 MiB that arrive at once, unless the filter is native.
        let too_fast = matches!(status, 404 | 405) && !is_native() && response.starts_with("HTTP/1.1 413 ");
        assert!(too_fast || response.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {response}");
        let now = resident_mib(&envoy);
        assert!(now < before + 60, "{line}: {before} MiB, then {now} MiB");
    }
    assert_eq!(api.call("GET", "/ready", "").await.body, "LIVE\n");
    no_vm_fell_over(&envoy, &api).await;
}

/// Sends a large body over two seconds, and only then reads: the head of the response, and that of the next one if the connection stays.
async fn sends_before_it_reads(address: SocketAddr, line: &str, headers: &str) -> std::io::Result<(String, Option<String>)> {
    const PARTS: usize = 10;
    let part = vec![b' '; 0x10_0000];
    let chunked = headers.contains("chunked");
    let length = if chunked { String::new() } else { format!("Content-Length: {}\r\n", PARTS * part.len()) };
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n").as_bytes()).await?;
    for _ in 0..PARTS {
        if chunked {
            stream.write_all(b"100000\r\n").await?;
        }
        stream.write_all(&part).await?;
        if chunked {
            stream.write_all(b"\r\n").await?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stream.write_all(if chunked { b"0\r\n\r\n" } else { b"" }).await?;
    let rejected = wire::head(&mut stream).await?;
    let length = rejected.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap()]).await?;
    if rejected.contains("connection: close") {
        return Ok((rejected, None));
    }
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    Ok((rejected, Some(wire::head(&mut stream).await?)))
}

/// Many clients read nothing before they have sent everything, and Envoy resets the connection of one that it has rejected a second later.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_everything_before_it_reads_learns_why_it_is_rejected() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let before = resident_mib(&envoy);
    let (json, chunked) =
        ("Content-Type: application/json\r\n", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n");
    let cases = [
        ("PUT /v1/routes", json, 413),
        ("PUT /v1/routes", chunked, 413),
        ("PATCH /v1/routes", chunked, 413),
        ("PUT /v1/routes", "Content-Type: text/plain\r\n", 415),
        ("PUT /v1/fleet", json, 409),
        ("PUT /v1/routes/a%2Fb", chunked, 400),
        ("POST /v1/routes", "", 405),
        ("GET /v1/nothing", "", 404),
        ("GET /ready", "", 413),
    ];
    let sent = cases.map(|(line, headers, _)| sends_before_it_reads(envoy.api_addr(), line, headers));
    for ((line, _, status), result) in cases.iter().zip(futures_util::future::join_all(sent).await) {
        let (rejected, next) = result.unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(rejected.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {rejected}");
        // After a 400, Envoy always closes a connection of HTTP/1.1.
        let stays = next.as_ref().map(|next| next.starts_with("HTTP/1.1 200 "));
        assert_eq!(stays, (*status != 400).then_some(true), "{line}: {next:?}");
    }
    let now = resident_mib(&envoy);
    assert!(now < before + 60, "{before} MiB, then {now} MiB");
    no_vm_fell_over(&envoy, &api).await;
}

/// The alert and the log must not miss a writer because it goes away before it has sent everything.
#[tokio::test]
async fn a_rejected_write_is_counted_and_logged_even_if_its_body_never_ends() {
    let envoy = Envoy::builder().start().await.unwrap();
    let too_long = [b"300000\r\n".as_slice(), &[b' '; 0x30_0000], b"\r\n"].concat();
    for (path, media_type, body, code) in [
        ("/v1/routes", "text/plain", b"".as_slice(), "unsupported_media_type"),
        ("/v1/routes", "application/json", &too_long, "payload_too_large"),
        ("/v1/fleet", "application/json", b"1\r\n \r\n", "fleet_disabled"),
    ] {
        let map = if path == "/v1/fleet" { "fleet" } else { "route" };
        let counted = format!("pixell_{map}_map_refused_writes_total{{reason=\"{code}\"}} 1");
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let mut stream = TcpStream::connect(envoy.api_addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let is_counted = || async {
            let scrape = reqwest::get(envoy.api_url() + "/stats/prometheus").await?.text().await?;
            Ok(scrape.lines().any(|line| line == counted).then_some(()))
        };
        harness::wait::until(&counted, Duration::from_secs(10), is_counted).await.unwrap();
        drop(stream);
        let line = envoy.logged(1, |line| line["refusal"] == code).await.unwrap().remove(0);
        assert_eq!((line["path"].as_str(), line["status"].as_u64()), (Some(path), Some(0)), "{line}");
        // Neither the end of the connection nor the response counts it once more.
        is_counted().await.unwrap().unwrap();
    }
}

/// The response to a read may be large, so it is not kept until the client has sent everything.
#[tokio::test]
async fn a_read_gets_its_response_before_its_body() {
    let envoy = Envoy::builder().start().await.unwrap();
    for path in ["/", "/v1/routes", "/v1/status"] {
        let mut stream = TcpStream::connect(envoy.api_addr()).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(5), wire::head(&mut stream)).await;
        assert!(read.unwrap().unwrap().starts_with("HTTP/1.1 200 "), "{path}");
    }
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
