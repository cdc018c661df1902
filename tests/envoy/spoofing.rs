//! Nothing that a caller sends reaches a port that is not a route of the map, or another route than the one it names.

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

use crate::clients::http2;
use crate::wire;

const PATIENCE: Duration = Duration::from_millis(700);

/// Id and path of each request that an agent got.
type Noted = Arc<Mutex<Vec<(String, String)>>>;

/// Envoy, an agent `a` that notes the id and path of each request it gets, an agent `b` that must get none, and a port that is no
/// route and must get no connection.
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

    /// Nobody was reached but `a`, by requests that said `a`, and none of them at a path that only smuggling could have made.
    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        assert_eq!(self.touched.load(Ordering::SeqCst), 0, "{what}: the port without a route was connected to");
        assert_eq!(*self.at_b.lock().unwrap(), [], "{what}: b was reached");
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
        "deployment-id",
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
        let answer = wire::exchange(scene.address(), request.as_bytes(), PATIENCE).await;
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        for inside in ["envoy", "upstream", "no healthy", "cluster"] {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            assert!(!body.contains(inside), "{what}: {body}");
        }
        // The one trick that needs a look of its own: the id may be taken away, the request must then go nowhere.
        if *what == "id made hop-by-hop" {
            scene.at_a.lock().unwrap().retain(|(id, _)| !id.is_empty());
        }
        scene.assert_untouched(what);
    }
    // An HTTP/1.1 caller is answered as ever.
    let plain = b"GET /after HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n\r\n";
    assert!(wire::exchange(scene.address(), plain, PATIENCE).await.starts_with(b"HTTP/1.1 200"));
}

/// What only HTTP/2 can say: CONNECT, plain and extended (RFC 8441), an authority that is a port, and a path that is none.
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
        let asked = async {
            let mut client = client.ready().await?;
            let (response, mut body) = client.send_request(request.body(()).unwrap(), false)?;
            // The data of a tunnel, were there one.
            body.send_data("GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n".into(), true)?;
            response.await.map(|response| response.status().as_u16())
        };
        let status = tokio::time::timeout(Duration::from_secs(10), asked).await.expect("an answer or a reset");
        let routed = status.as_ref().is_ok_and(|status| *status == 200);
        assert_eq!(routed, what.starts_with("another"), "{what}: {status:?}");
        scene.assert_untouched(what);
        driving.abort();
    }
}

/// Requests whose length two readers could understand differently: the part that would be a second request is never one, neither
/// for Envoy nor for the agent behind it.
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
        // Encodings that only some readers take for chunked.
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
        // Bare line feeds for line ends.
        format!("POST /outer HTTP/1.1\nhost: h\nx-deployment-id: a\ncontent-length: {}\n\n{inner}", inner.len()),
    ];
    for request in &requests {
        let ahead = scene.at_a.lock().unwrap().len();
        let answers = wire::exchange(scene.address(), request.as_bytes(), PATIENCE).await;
        // What Envoy itself takes for a second request of this connection names `b` and is routed by that, which is no
        // smuggling. What must not be: that a's connection carries it, or that `b` gets it out of a body.
        let answers = String::from_utf8_lossy(&answers);
        let second = answers.matches("HTTP/1.1 ").count() > 1;
        let (at_a, at_b) = (scene.at_a.lock().unwrap(), std::mem::take(&mut *scene.at_b.lock().unwrap()));
        assert!(at_a.iter().skip(ahead).all(|(id, path)| id == "a" && path == "/outer"), "{request:?}: {at_a:?}");
        assert!(at_b.is_empty() || second, "{request:?}: b was reached behind Envoy's back");
    }
    assert_eq!(scene.touched.load(Ordering::SeqCst), 0);
    // The pool of connections to `a` is not out of step: each answer belongs to its request.
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
    for port in [50051, 9901, 8080, 9090, 1, 22, 80, 1023, 0, 65536, -1] {
        let reply = envoy.routes().put_routes(&json!({"routes": {"a": port}})).await.unwrap();
        assert_eq!(reply.status.as_u16(), 422, "{port}: {reply}");
        let faults: Value = reply.json().unwrap();
        assert_eq!(faults["code"], "invalid_routes");
        assert!(faults["errors"][0]["pointer"].as_str().unwrap().starts_with("/routes/a"), "{faults}");
    }
}
