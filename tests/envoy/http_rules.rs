//! What HTTP lets clients and agents send by default, and what a proxy must do with it (RFC 9110 and 9112).

use std::time::Duration;

use harness::{Envoy, agents};
use tokio::io::AsyncWriteExt;

use crate::clients::{http1, http2};
use crate::http1::{scripted, with};
use crate::wire;

const PATIENCE: Duration = Duration::from_secs(5);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The response to these bytes.
async fn exchange(envoy: &Envoy, request: &str) -> String {
    String::from_utf8_lossy(&wire::exchange(envoy.data_addr(), request.as_bytes(), PATIENCE).await).into_owned()
}

#[tokio::test]
async fn an_upgrade_that_envoy_does_not_speak_is_ignored() {
    let (agent, heads) = scripted(OK);
    let envoy = with(&agent).await;
    let upgrades = [
        "TLS/1.2",
        "tls/1.3",
        "h2c",
        "HTTP/2.0",
        "foo",
        "foo/1, bar/2",
        "IRC/6.9",
        "w",
        "web",
        "webdav",
        "webSock",
        "websockets",
        "TLS/1.2, h2c",
        "SHTTP/1.3",
        "x",
    ];
    for upgrade in upgrades {
        let settings = if upgrade == "h2c" { ("HTTP2-Settings, ", "http2-settings: AAMAAABkAAQAAP__\r\n") } else { ("", "") };
        let head = format!(
            "GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\nconnection: Upgrade, {}close\r\n{}upgrade: {upgrade}\r\n\r\n",
            settings.0, settings.1
        );
        let response = exchange(&envoy, &head).await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok"), "{upgrade}: {response}");
        let seen = heads.lock().unwrap().pop().unwrap().to_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{upgrade}: {seen}");
    }
    // An upgrade that Envoy speaks passes.
    let head =
        "GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\r\n";
    let response = exchange(&envoy, head).await;
    assert!(response.starts_with("HTTP/1.1 "), "{response}");
    let seen = heads.lock().unwrap().pop().unwrap().to_lowercase();
    assert!(seen.contains("upgrade: websocket"), "{seen}");
}

#[tokio::test]
async fn headers_of_one_connection_do_not_reach_the_agent() {
    let (agent, heads) = scripted(OK);
    let envoy = with(&agent).await;
    for (field, stays) in [
        ("keep-alive: timeout=5", false),
        ("proxy-connection: keep-alive", false),
        ("te: gzip, deflate", false),
        ("te: trailers", true),
        ("connection: close, x-hop\r\nx-hop: 1", false),
        ("accept: */*", true),
    ] {
        let close = if field.starts_with("connection") { "" } else { "connection: close\r\n" };
        let response =
            exchange(&envoy, &format!("GET / HTTP/1.1\r\nhost: h\r\n{close}x-deployment-id: a\r\n{field}\r\n\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{field}: {response}");
        let seen = heads.lock().unwrap().pop().unwrap();
        let field = field.split("\r\n").last().unwrap();
        assert_eq!(seen.contains(field), stays, "{field}: {seen}");
    }
}

/// nginx speaks HTTP/1.0 to its upstreams by default.
#[tokio::test]
async fn http_1_0_works_with_a_host() {
    let (agent, heads) = scripted(OK);
    let envoy = with(&agent).await;
    let response = exchange(&envoy, "GET /x HTTP/1.0\r\nHost: h\r\nConnection: close\r\nx-deployment-id: a\r\n\r\n").await;
    assert!(
        response.starts_with("HTTP/1.") && response.contains(" 200 OK\r\n") && response.ends_with("\r\n\r\nok"),
        "{response}"
    );
    let seen = heads.lock().unwrap().pop().unwrap();
    assert!(seen.starts_with("GET /x HTTP/1.1\r\nhost: h\r\n"), "{seen}");
    let response = exchange(&envoy, "GET /x HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nx-deployment-id: a\r\n\r\n").await;
    assert!(response.ends_with("ok"), "{response}");
    let response = exchange(&envoy, "POST /x HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\nx-deployment-id: a\r\n\r\nhi").await;
    assert!(response.ends_with("ok"), "{response}");
    // Without a host there is no authority to forward.
    let response = exchange(&envoy, "GET /x HTTP/1.0\r\nx-deployment-id: a\r\n\r\n").await;
    assert!(response.contains(" 400 Bad Request\r\n"), "{response}");
    let rejected = exchange(&envoy, "GET /x HTTP/1.0\r\nHost: h\r\nx-deployment-id: b\r\n\r\n").await;
    assert!(rejected.contains(" 404 ") && rejected.contains("unknown_deployment"), "{rejected}");
}

#[tokio::test]
async fn methods_and_targets_pass() {
    let (agent, heads) = scripted(OK);
    let envoy = with(&agent).await;
    let passing = [
        "OPTIONS /x",
        "PROPFIND /dav",
        "REPORT /",
        "PURGE /x",
        "M-SEARCH /",
        "TRACE /",
        "PATCH /x",
        "DELETE /x",
        "BREW /pot",
        "LINK /x",
        "get /x",
        "COPY /x",
    ];
    for line in passing {
        let request = format!("{line} HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-deployment-id: a\r\n\r\n");
        let response = exchange(&envoy, &request).await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{line}: {response}");
        let seen = heads.lock().unwrap().pop().unwrap();
        assert!(seen.starts_with(&format!("{line} HTTP/1.1\r\n")), "{line}: {seen}");
    }
    // `OPTIONS *` is about the server as a whole (RFC 9110, 9.3.7). Envoy has no route for it and responds itself.
    let response = exchange(&envoy, "OPTIONS * HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-deployment-id: a\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 404 Not Found\r\n") && heads.lock().unwrap().is_empty(), "{response}");
    // A QUERY must have a content type, or Envoy rejects it.
    let query = http::Method::from_bytes(b"QUERY").unwrap();
    for client in [http1(), http2()] {
        let request = client.request(query.clone(), envoy.data_url() + "/q").header("x-deployment-id", "a");
        let response = request.header("content-type", "text/plain").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(heads.lock().unwrap().pop().unwrap().starts_with("QUERY /q HTTP/1.1\r\n"));
    }
}

/// A request target is ASCII (RFC 3986, 2; RFC 9112, 3.2): a client percent-encodes anything else.
#[tokio::test]
async fn a_raw_utf8_path_is_a_bad_request() {
    let (agent, heads) = scripted(OK);
    let envoy = with(&agent).await;
    let response = exchange(&envoy, "GET /ä/ö?ü=ß HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
    assert!(heads.lock().unwrap().is_empty());
    let path = "/%C3%A4?%C3%BC=%c3%9f";
    exchange(&envoy, &format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-deployment-id: a\r\n\r\n")).await;
    assert!(heads.lock().unwrap().pop().unwrap().starts_with(&format!("GET {path} HTTP/1.1\r\n")));
}

/// A server must send neither a length nor chunks with a 204 (RFC 9110, 8.6; RFC 9112, 6.1). A length of 0 is harmless, and Envoy removes
/// it. With anything else it is unclear where the next response starts. A 304 may have the length that a 200 would have.
#[tokio::test]
async fn a_response_without_a_body_says_so() {
    for (response, expected, without) in [
        ("204 No Content\r\n", "204 ", "content-length"),
        ("204 No Content\r\ncontent-length: 0\r\n", "204 ", "content-length"),
        ("204 No Content\r\ncontent-length: 5\r\n", "502 ", "x-a"),
        ("204 No Content\r\ntransfer-encoding: chunked\r\n", "502 ", "x-a"),
        ("304 Not Modified\r\ncontent-length: 1000\r\n", "304 ", "transfer-encoding"),
    ] {
        let bytes = format!("HTTP/1.1 {response}x-a: 1\r\n\r\n").into_bytes().leak();
        let (agent, _) = scripted(bytes);
        let envoy = with(&agent).await;
        let seen = exchange(&envoy, "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-deployment-id: a\r\n\r\n").await;
        assert!(seen.starts_with(&format!("HTTP/1.1 {expected}")) && !seen.contains(without), "{response}: {seen}");
        assert_eq!(seen.contains("agent_protocol_error"), expected == "502 ", "{response}: {seen}");
    }
}

/// By default, gunicorn closes a connection after 2 s of silence. Requests that arrive just then are not lost.
#[tokio::test]
async fn an_agent_that_closes_silent_connections_after_two_seconds_loses_no_request() {
    const KEEP_ALIVE: Duration = Duration::from_secs(2);
    let agent = agents::raw::start("a", |mut stream| async move {
        while let Ok(head) = tokio::time::timeout(KEEP_ALIVE, wire::head(&mut stream)).await {
            head?;
            stream.write_all(OK).await?;
        }
        Ok(())
    });
    let agent = agent.unwrap();
    let envoy = with(&agent).await;
    let client = http2();
    let ask = async |number: u64| {
        let (client, url) = (client.clone(), envoy.data_url());
        let mut failed = 0;
        for _ in 0..4 {
            failed +=
                u32::from(client.post(&url).header("x-deployment-id", "a").body("x").send().await.unwrap().status() != 200);
            tokio::time::sleep(KEEP_ALIVE - Duration::from_millis(20) + Duration::from_millis(number * 2)).await;
        }
        failed
    };
    let failed: u32 = futures_util::future::join_all((0..20).map(ask)).await.iter().sum();
    assert_eq!(failed, 0, "of 80 requests");
}

/// A parameter of the content type has no meaning in gRPC. The call reaches its agent over HTTP/2, and each rejection is a gRPC status.
#[tokio::test]
async fn a_grpc_content_type_may_have_a_parameter() {
    let agent = agents::grpc::start("a").unwrap();
    let down = agents::echo::start("down").unwrap();
    let envoy = Envoy::builder().start().await.unwrap();
    let closes =
        agents::raw::start("closes", |mut stream| async move { tokio::io::AsyncReadExt::read_u8(&mut stream).await.map(drop) });
    let closes = closes.unwrap();
    envoy.routes().put_all([("a", agent.port()), ("down", down.port()), ("closes", closes.port())]).await.unwrap();
    down.kill();
    for content_type in
        ["application/grpc", "application/grpc; charset=utf-8", "application/grpc;x=y", "application/grpc+proto; charset=utf-8"]
    {
        for (id, expected) in [("a", "0"), ("nobody", "5"), ("no id!", "3"), ("down", "14"), ("closes", "14")] {
            let stream = tokio::net::TcpStream::connect(envoy.data_addr()).await.unwrap();
            let (client, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let request = http::Request::post("http://h/pixell.agent.AgentService/Health").header("te", "trailers");
            let request = request.header("x-deployment-id", id).header("content-type", content_type).body(()).unwrap();
            let (response, mut body) = client.ready().await.unwrap().send_request(request, false).unwrap();
            body.send_data(bytes::Bytes::from_static(&[0; 5]), true).unwrap();
            let (head, mut body) = response.await.unwrap().into_parts();
            while body.data().await.is_some() {}
            let trailers = body.trailers().await.unwrap();
            let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")).or(head.headers.get("grpc-status"));
            assert_eq!(status.map(|status| status.to_str().unwrap()), Some(expected), "{content_type} {id}");
        }
    }
}
