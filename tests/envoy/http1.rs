//! HTTP/1.1 between clients and agents: paths, bodies, interim responses and trailers pass unchanged.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harness::agents::{self, http as agent};
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy};
use http_body_util::BodyExt;
use hyper::Response;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::clients::{http1, http2};
use crate::wire;

const PATIENCE: Duration = Duration::from_secs(5);

/// An agent that records the head of each request and responds with `response`.
pub(crate) fn scripted(response: &'static [u8]) -> (Agent, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = heads.clone();
    let agent = agents::raw::start("scripted", move |mut stream| {
        let noted = noted.clone();
        async move {
            loop {
                let head = wire::head(&mut stream).await?;
                noted.lock().unwrap().push(head);
                stream.write_all(response).await?;
            }
        }
    });
    (agent.unwrap(), heads)
}

pub(crate) async fn with(agent: &Agent) -> Envoy {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    envoy
}

#[tokio::test]
async fn paths_pass_byte_for_byte() {
    let (agent, heads) = scripted(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let envoy = with(&agent).await;
    let paths = [
        "/",
        "//twice//",
        "/a/../b/./c",
        "/%2F%2f%5C/%00/%C3%A4",
        "/a;v=1/b,c/@:!$&'()*+=~",
        "/x?q=a+b&q=%20&empty=&=&a[]=1&u=http://h/p?x",
        "/x??//..?",
        "/*",
    ];
    let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
    for path in paths {
        // One after the other on one connection, which stays open.
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = wire::head(&mut stream).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {response}");
        let seen = heads.lock().unwrap().pop().unwrap();
        assert_eq!(seen.lines().next().unwrap(), format!("GET {path} HTTP/1.1"));
        assert!(seen.contains("\r\nx-deployment-id: a\r\n"), "{seen}");
    }
    let accepted = envoy.stat("http.agents.downstream_cx_total").await.unwrap();
    assert_eq!(accepted, Some(1), "all on one connection");
}

#[tokio::test]
async fn interim_responses_and_trailers_pass() {
    let (agent, _) = scripted(
        b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n\
          HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n",
    );
    let envoy = with(&agent).await;
    let request = b"GET / HTTP/1.1\r\nhost: h\r\nte: trailers\r\nconnection: close\r\nx-deployment-id: a\r\n\r\n";
    let response = String::from_utf8(wire::exchange(envoy.data_addr(), request, PATIENCE).await).unwrap();
    // Envoy writes its own reason phrase, which has no meaning (RFC 9112, 4).
    assert!(
        response.starts_with("HTTP/1.1 103 ") && response.contains("\r\nlink: </style.css>; rel=preload\r\n"),
        "{response}"
    );
    assert!(response.contains("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n"), "{response}");
}

/// The agent itself says whether it wants the body.
#[tokio::test]
async fn the_agent_responds_to_expect_continue() {
    let (agent, _) = scripted(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let envoy = with(&agent).await;
    let head = "POST / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n";
    let response = wire::exchange(envoy.data_addr(), head.as_bytes(), PATIENCE).await;
    let response = String::from_utf8_lossy(&response).into_owned();
    assert!(response.starts_with("HTTP/1.1 413 "), "no 100 Continue came before: {response}");
}

#[tokio::test]
async fn a_response_to_head_has_the_length_and_no_body() {
    let (agent, heads) = scripted(b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\netag: \"e\"\r\n\r\n");
    let envoy = with(&agent).await;
    for client in [http1(), http2()] {
        let response = client.head(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["content-length"]), (200, &"12345".parse().unwrap()));
        assert_eq!(response.headers()["etag"], "\"e\"");
        assert_eq!(response.bytes().await.unwrap().len(), 0);
        assert!(heads.lock().unwrap().pop().unwrap().starts_with("HEAD / HTTP/1.1\r\n"));
    }
}

#[tokio::test]
async fn http2_clients_reach_an_agent_that_speaks_http1_only() {
    let agent = agents::echo::start("one").unwrap();
    let envoy = with(&agent).await;
    let url = envoy.data_url() + "/p?q=1";
    let response = http2().post(url).header(DEPLOYMENT_ID, "a").body("four").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    let seen: Value = response.json().await.unwrap();
    assert_eq!((&seen["version"], &seen["path"], &seen["body_bytes"]), (&"HTTP/1.1".into(), &"/p?q=1".into(), &4.into()));
}

/// Envoy buffers no body: while 200 MB pass, its memory does not grow with them, and every byte arrives.
#[tokio::test]
async fn an_upload_of_200_mb_leaves_envoys_memory_flat() {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 200_000_000 / CHUNK + 1;
    let agent = agent::start("up", 0, agent::Version::Http1, |request| async move {
        let chunked = request.headers().get("transfer-encoding").is_some_and(|value| value == "chunked");
        let (mut body, mut count, mut sum) = (request.into_body(), 0_usize, 0_u64);
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.into_data().unwrap_or_default();
            count += data.len();
            sum = data.chunks(4096).fold(sum, |sum, part| sum.wrapping_mul(31).wrapping_add(u64::from(part[0])));
        }
        Response::new(agent::whole(format!("{chunked} {count} {}", sum > 0)))
    });
    let agent = agent.unwrap();
    let envoy = with(&agent).await;
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    let upload = |chunks: usize| {
        let parts = (0..chunks).map({
            let chunk = chunk.clone();
            move |_| Ok::<_, std::io::Error>(chunk.clone())
        });
        let body = reqwest::Body::wrap_stream(tokio_stream::iter(parts));
        http1().post(envoy.data_url()).header(DEPLOYMENT_ID, "a").body(body).send()
    };
    assert_eq!(upload(16).await.unwrap().status(), 200);
    let before = envoy.resident_bytes().unwrap();
    let mut most = before;
    let mut sending = Box::pin(upload(CHUNKS));
    let response = loop {
        tokio::select! {
            response = &mut sending => break response.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(50)) => most = most.max(envoy.resident_bytes().unwrap()),
        }
    };
    assert_eq!(response.text().await.unwrap(), format!("true {} true", CHUNK * CHUNKS));
    let grown = (most - before) >> 20;
    println!("200 MB through Envoy: its memory grew by {grown} MiB");
    assert!(grown < 16, "Envoy grew by {grown} MiB");
}

/// An agent may respond before it has read an upload (RFC 9112, 9.3). If it keeps reading for a moment, its response reaches every client.
/// If it closes at once, Envoy may lose the response, but must not say that the agent is unreachable.
#[tokio::test]
async fn an_early_response_to_an_upload_reaches_the_client() {
    let early = |name: &'static str, lingers: bool| {
        agents::raw::start(name, move |mut stream| async move {
            wire::head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig").await?;
            if lingers {
                stream.shutdown().await?;
                wire::drain(&mut stream, PATIENCE).await;
            }
            Ok(())
        })
        .unwrap()
    };
    let (lingering, closing) = (early("lingering", true), early("closing", false));
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("lingering", lingering.port()), ("closing", closing.port())]).await.unwrap();
    let upload = async |number: usize, id: &str| {
        let client = if number.is_multiple_of(2) { http1() } else { http2() };
        let request = client.post(envoy.data_url()).header(DEPLOYMENT_ID, id).body(vec![0; 4 << 20]);
        request.send().await.map(|response| {
            (response.status().as_u16(), response.headers().get("x-pixell-error").map(|code| code.to_str().unwrap().to_owned()))
        })
    };
    for number in 0..20 {
        assert_eq!(upload(number, "lingering").await.unwrap(), (413, None), "{number}");
        // A client may also see its own write fail, as with any server that closes early.
        if let Ok(seen) = upload(number, "closing").await {
            assert!(seen == (413, None) || seen == (502, Some("agent_closed".to_owned())), "{number}: {seen:?}");
        }
    }
}
