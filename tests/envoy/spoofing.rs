//! No request reaches a port that is not in the route map, or another route than the one it names.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::agents::{self, http as agent};
use harness::{Agent, Envoy};
use http_body_util::BodyExt;
use hyper::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients::http2;
use crate::wire;

/// How long the first response of a connection may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the test then waits for more, such as a response to a smuggled request.
const PATIENCE: Duration = Duration::from_millis(700);

/// The id and path of each request that an agent got.
type Noted = Arc<Mutex<Vec<(String, String)>>>;

/// Envoy, an agent `a` that records the id and path of each request, an agent `b` that must get no request, and a port without a route
/// that must get no connection.
struct Scene {
    envoy: Envoy,
    _agents: [Agent; 2],
    at_a: Noted,
    at_b: Noted,
    victim: Agent,
    touched: Arc<AtomicU32>,
}

fn noting() -> (Agent, Noted) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let agent = agent::start("noting", 0, agent::Version::Http1, move |request| {
        let noted = noted.clone();
        async move {
            let ids = request.headers().get_all("x-deployment-id").iter();
            let ids = ids.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned()).collect::<Vec<_>>().join(",");
            noted.lock().unwrap().push((ids, request.uri().to_string()));
            drop(request.into_body().collect().await);
            Response::new(agent::whole("noted"))
        }
    });
    (agent.unwrap(), seen)
}

/// Sends `bytes` on a new connection. Returns all that comes back: a whole response or the end of the connection, and what follows.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Envoy may close the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut responses = read_until(&mut stream, is_whole).await;
    responses.extend(wire::drain(&mut stream, PATIENCE).await);
    (stream, responses)
}

/// What comes until `enough` is true of it, or until the connection ends.
async fn read_until(stream: &mut TcpStream, enough: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut all = Vec::new();
    let reading = async {
        while !enough(&String::from_utf8_lossy(&all)) && stream.read_buf(&mut all).await.is_ok_and(|count| count > 0) {}
    };
    let ended = tokio::time::timeout(LIMIT, reading).await;
    assert!(ended.is_ok(), "after {LIMIT:?} there is only {:?}", String::from_utf8_lossy(&all));
    all
}

/// Whether `text` starts with a whole response: its head, and its body by its length or its last chunk.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    match head.split_once("\r\ncontent-length: ") {
        Some((_, rest)) => body.len() >= rest.lines().next().unwrap().parse().unwrap(),
        None => !head.contains("\r\ntransfer-encoding: chunked") || body.contains("0\r\n\r\n"),
    }
}

/// How many responses start in these bytes.
fn responses_in(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).matches("HTTP/1.1 ").count()
}

impl Scene {
    async fn set() -> Self {
        let touched = Arc::new(AtomicU32::new(0));
        let count = touched.clone();
        let victim = agents::raw::start("victim", move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        });
        let ((a, at_a), (b, at_b)) = (noting(), noting());
        let envoy = Envoy::builder().start().await.unwrap();
        envoy.routes().put_all([("a", a.port()), ("b", b.port())]).await.unwrap();
        Self { envoy, _agents: [a, b], at_a, at_b, victim: victim.unwrap(), touched }
    }

    fn address(&self) -> SocketAddr {
        self.envoy.data_addr()
    }

    /// Checks that only `a` got requests, that all of them named `a`, and that none has a path that only smuggling can produce.
    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        assert_eq!(self.touched.load(Ordering::SeqCst), 0, "{what}: the port without a route got a connection");
        assert_eq!(*self.at_b.lock().unwrap(), [], "{what}: b got a request");
        for (id, path) in self.at_a.lock().unwrap().iter() {
            assert_eq!(id, "a", "{what}");
            assert!(!path.contains("smuggled"), "{what}: {path}");
        }
    }
}

#[tokio::test]
async fn no_header_chooses_an_upstream() {
    let scene = Scene::set().await;
    let target = format!("127.0.0.1:{}", scene.victim.port());
    let headers = [
        "x-envoy-original-dst-host",
        "x-envoy-original-dst",
        "x-envoy-original-path",
        "x-envoy-original-url",
        "x-envoy-decorator-operation",
        "x-envoy-upstream-alt-stat-name",
        "x-envoy-external-address",
        "x-envoy-internal",
        "x-envoy-force-trace",
        "x-pixell-port",
        "x-pixell-upstream",
        "x-pixell-route",
        "x-forwarded-host",
        "x-forwarded-for",
        "x-forwarded-port",
        "x-original-dst-host",
        "x-deployment_id",
        "x_deployment_id",
        "forwarded",
    ];
    let client = http2();
    for name in headers {
        let url = scene.envoy.data_url();
        let without = client.get(&url).header(name, &target).send().await.unwrap();
        assert_eq!(
            (without.status().as_u16(), &without.headers()["x-pixell-error"]),
            (400, &"missing_deployment_id".parse().unwrap()),
            "{name}"
        );
        let with = client.get(&url).header(name, &target).header("x-deployment-id", "a").send().await.unwrap();
        assert_eq!(with.status(), 200, "{name}");
        let host = client.get(&url).header("host", &target).header(name, &target).header("x-deployment-id", "a");
        assert_eq!(host.send().await.unwrap().status(), 200, "{name}");
        scene.assert_untouched(name);
    }
    assert_eq!(scene.at_a.lock().unwrap().len(), headers.len() * 2);
}

#[tokio::test]
async fn no_protocol_trick_reaches_another_port() {
    let scene = Scene::set().await;
    let port = scene.victim.port();
    let cases: Vec<(&str, String)> = vec![
        ("absolute URI", format!("GET http://127.0.0.1:{port}/x HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n\r\n")),
        ("absolute URI without id", format!("GET http://127.0.0.1:{port}/x HTTP/1.1\r\nhost: h\r\n\r\n")),
        ("id in the authority", format!("GET http://b@127.0.0.1:{port}/ HTTP/1.1\r\nhost: b\r\nx-deployment-id: a\r\n\r\n")),
        ("CONNECT", format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-deployment-id: a\r\n\r\nhello")),
        ("CONNECT without id", format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nhost: h\r\n\r\nhello")),
        (
            "h2c upgrade",
            format!(
                "GET /x HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-deployment-id: a\r\nconnection: upgrade, http2-settings\r\n\
                 upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n"
            ),
        ),
        (
            "another upgrade",
            "GET /x HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n".into(),
        ),
        ("two ids", "GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\nx-deployment-id: b\r\n\r\n".into()),
        ("folded id", "GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n b\r\n\r\n".into()),
        ("space before the colon", "GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id : b\r\nx-deployment-id: a\r\n\r\n".into()),
        ("bare CR", "GET / HTTP/1.1\r\nhost: h\r\nx-a: 1\rx-deployment-id: b\r\nx-deployment-id: a\r\n\r\n".into()),
        ("NUL in the id", "GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\0b\r\n\r\n".into()),
        ("id made hop-by-hop", "GET / HTTP/1.1\r\nhost: h\r\nconnection: x-deployment-id\r\nx-deployment-id: a\r\n\r\n".into()),
        ("HTTP/1.0", "GET / HTTP/1.0\r\nx-deployment-id: b,a\r\n\r\n".into()),
        ("PRI in the midst", "GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        (
            "proxy protocol",
            format!("PROXY TCP4 127.0.0.1 127.0.0.1 1 {port}\r\nGET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n\r\n"),
        ),
    ];
    for (what, request) in &cases {
        let (_stream, response) = exchange(scene.address(), request.as_bytes()).await;
        let response = String::from_utf8_lossy(&response).to_ascii_lowercase();
        for inside in ["envoy", "upstream", "no healthy", "cluster"] {
            let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            assert!(!body.contains(inside), "{what}: {body}");
        }
        // A special case: Envoy may remove the id, and then the request must go nowhere.
        if *what == "id made hop-by-hop" {
            scene.at_a.lock().unwrap().retain(|(id, _)| !id.is_empty());
        }
        scene.assert_untouched(what);
    }
    // Afterwards, an HTTP/1.1 client gets its response as before.
    let plain = b"GET /after HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n\r\n";
    assert!(exchange(scene.address(), plain).await.1.starts_with(b"HTTP/1.1 200"));
}

/// What only HTTP/2 can express: CONNECT, plain and extended (RFC 8441), and an authority or a scheme that names another server.
#[tokio::test]
async fn no_http2_pseudo_header_reaches_another_port() {
    let scene = Scene::set().await;
    let target = format!("127.0.0.1:{}", scene.victim.port());
    let connect = || http::Request::builder().method("CONNECT").uri(target.as_str());
    let extended = |protocol: &'static str| {
        let request = http::Request::builder().method("CONNECT").uri(format!("http://{target}/smuggled"));
        request.extension(h2::ext::Protocol::from_static(protocol)).header("x-deployment-id", "b,a")
    };
    let get = |uri: &str| http::Request::builder().uri(uri).header("x-deployment-id", "a");
    let requests = [
        ("CONNECT", connect().header("x-deployment-id", "a")),
        ("CONNECT without id", connect()),
        ("extended CONNECT", extended("websocket")),
        ("extended CONNECT of an unknown kind", extended("connect-udp")),
        ("another authority", get(&format!("http://{target}/"))),
        ("another scheme", get(&format!("ftp://{target}/"))),
    ];
    for (what, request) in requests {
        let stream = tokio::net::TcpStream::connect(scene.address()).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let driving = tokio::spawn(connection);
        let exchange = async {
            let mut client = client.ready().await?;
            let (response, mut body) = client.send_request(request.body(()).unwrap(), false)?;
            // Data for the tunnel, if there is one.
            body.send_data("GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n".into(), true)?;
            response.await.map(|response| response.status().as_u16())
        };
        let status = tokio::time::timeout(Duration::from_secs(10), exchange).await.expect("a response or a reset");
        let routed = status.as_ref().is_ok_and(|status| *status == 200);
        assert_eq!(routed, what.starts_with("another"), "{what}: {status:?}");
        scene.assert_untouched(what);
        driving.abort();
    }
}

/// Requests whose length two parsers could read differently. Neither Envoy nor the agent takes a part of the body for a second request.
#[tokio::test]
async fn nothing_is_smuggled_by_length_or_chunking() {
    let scene = Scene::set().await;
    let inner = "GET /smuggled HTTP/1.1\r\nhost: h\r\nx-deployment-id: b\r\n\r\n";
    let chunked = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let head = "POST /outer HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n";
    let requests = [
        // Both lengths (RFC 9112, 6.3), in either order.
        format!("{head}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}", inner.len() + 5),
        format!("{head}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{chunked}"),
        // Two lengths.
        format!("{head}content-length: 0\r\ncontent-length: {}\r\n\r\n{inner}", inner.len()),
        format!("{head}content-length: 0, {}\r\n\r\n{inner}", inner.len()),
        format!("{head}content-length: +0\r\n\r\n{inner}"),
        format!("{head}content-length: 0x0\r\n\r\n{inner}"),
        format!("{head}content-length: -1\r\n\r\n{inner}"),
        format!("{head}content-length : {}\r\n\r\n{inner}", inner.len()),
        // Encodings that only some parsers take for chunked.
        format!("{head}transfer-encoding: xchunked\r\n\r\n{inner}"),
        format!("{head}transfer-encoding: chunked, identity\r\ncontent-length: 0\r\n\r\n{inner}"),
        format!("{head}transfer-encoding:\x0bchunked\r\ncontent-length: 0\r\n\r\n{inner}"),
        format!("{head}transfer-encoding : chunked\r\ncontent-length: {}\r\n\r\n0\r\n\r\n{inner}", inner.len() + 5),
        format!("{head}transfer-encoding: identity\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n{inner}"),
        format!("{head}x: y\r\n transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n{inner}"),
        // Broken chunks.
        format!("{head}transfer-encoding: chunked\r\n\r\n0;{}\r\n\r\n{inner}", "a".repeat(10)),
        format!("{head}transfer-encoding: chunked\r\n\r\n0\n\n{inner}"),
        format!("{head}transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n{inner}"),
        format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n{inner}"),
        format!("{head}transfer-encoding: chunked\r\n\r\n2\r\nabX{inner}"),
        // Bare line feeds as line ends.
        format!("POST /outer HTTP/1.1\nhost: h\nx-deployment-id: a\ncontent-length: {}\n\n{inner}", inner.len()),
    ];
    for request in &requests {
        let ahead = scene.at_a.lock().unwrap().len();
        let (mut stream, mut responses) = exchange(scene.address(), request.as_bytes()).await;
        // If Envoy sees a second request on this connection, it routes it to `b`, which the request names. That is not smuggling. It is
        // smuggling if `a` gets that part, or if `b` gets it although Envoy sent only one response.
        let at_b = std::mem::take(&mut *scene.at_b.lock().unwrap());
        if !at_b.is_empty() && responses_in(&responses) < 2 {
            responses.extend(read_until(&mut stream, |text| responses_in(text.as_bytes()) > 0).await);
        }
        let second = responses_in(&responses) > 1;
        let at_a = scene.at_a.lock().unwrap();
        assert!(at_a.iter().skip(ahead).all(|(id, path)| id == "a" && path == "/outer"), "{request:?}: {at_a:?}");
        assert!(at_b.is_empty() || second, "{request:?}: b got a request that Envoy did not see");
    }
    assert_eq!(scene.touched.load(Ordering::SeqCst), 0);
    // The connections to `a` are not out of step: each response belongs to its request.
    let client = http2();
    for number in 0..50 {
        let url = format!("{}/after/{number}", scene.envoy.data_url());
        assert_eq!(client.get(url).header("x-deployment-id", "a").send().await.unwrap().status(), 200);
    }
    let paths: HashSet<String> = scene.at_a.lock().unwrap().iter().map(|(_, path)| path.clone()).collect();
    assert!(!paths.iter().any(|path| path.contains("smuggled")), "{paths:?}");
}

#[tokio::test]
async fn ports_of_envoy_and_par_cannot_be_routed_to() {
    let envoy = Envoy::builder().start().await.unwrap();
    for port in [50050, 50051, 50052, 8080, 9090, 9901, 1, 22, 80, 1023, 0, 65536, -1] {
        let response = envoy.routes().put_routes(&json!({"routes": {"a": port}})).await.unwrap();
        assert_eq!(response.status.as_u16(), 422, "{port}: {response}");
        let problem: Value = response.json().unwrap();
        assert_eq!(problem["code"], "invalid_routes");
        assert!(problem["errors"][0]["pointer"].as_str().unwrap().starts_with("/routes/a"), "{problem}");
    }
}
