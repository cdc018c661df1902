//! HTTP/1.1 through a hop: what clients and agents see byte by byte is what they see in one task.

use harness::{Agent, agents};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::both::request;
use crate::tasks::Tasks;

/// An agent that responds to each request with what `script` makes of it, and closes the connection after a response that is no good. It reads a
/// request's body if the request has `x-script: echo` or `continue`.
async fn scripted(tasks: &Tasks, script: impl Fn(&str) -> Vec<u8> + Clone + Send + Sync + 'static) -> Agent {
    let serve = move |mut stream: tokio::net::TcpStream| {
        let script = script.clone();
        async move {
            loop {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&request).into_owned();
                let of = |name: &str| head.contains(&format!("x-script: {name}\r\n"));
                if of("continue") {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                }
                if (of("continue") || of("echo")) && head.contains("transfer-encoding: chunked") {
                    while !ends(&request) {
                        request.push(stream.read_u8().await?);
                    }
                }
                stream.write_all(&script(&String::from_utf8_lossy(&request))).await?;
                if BROKEN.iter().any(|name| of(name)) {
                    return Ok(());
                }
            }
        }
    };
    tasks.agent(1, move || agents::raw::start("scripted", serve)).await
}

/// What ends the connection to the agent.
const BROKEN: [&str; 4] = ["reject", "bad", "malformed", "nothing"];

/// Whether a chunked request has ended with trailers.
fn ends(request: &[u8]) -> bool {
    request.ends_with(b"\r\n\r\n") && request.windows(5).any(|part| part == b"\r\n0\r\n")
}

async fn with(tasks: &Tasks, agent: &Agent) {
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    tasks.fleet(1, &[]).await;
}

/// A response whose body is the request, with its header lines in the order of their names.
fn echo(request: &str) -> Vec<u8> {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().collect();
    lines[1..].sort_unstable();
    let body = format!("{}\n\n{body}", lines.join("\n"));
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn requests_reach_the_agent_as_they_were_sent() {
    let tasks = Tasks::start(2).await;
    let agent = scripted(&tasks, echo).await;
    with(&tasks, &agent).await;
    let by = [("x-deployment-id", "a"), ("x-script", "echo")];
    for method in ["GET", "DELETE", "PURGE", "OPTIONS"] {
        let seen = tasks.both(request(method, "/a/../b//%2F%2f;v=1/@:!$&'()*+=~?q=a+b&=&u=http://h/p?x", &by)).await;
        let first = format!("{method} /a/../b//%2F%2f;v=1/@:!$&'()*+=~?q=a+b&=&u=http://h/p?x HTTP/1.1\n");
        assert!(seen.body.starts_with(&first), "{seen:?}");
    }
    // What a proxy keeps to itself, what no client may say, and what passes.
    let headers = [
        ("te", "trailers, gzip"),
        ("upgrade", "TLS/1.2"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-envoy-max-retries", "9"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-original-dst-host", "127.0.0.1:1"),
        ("x-envoy-expected-rq-timeout-ms", "1"),
        ("x-forwarded-for", "203.0.113.7, 203.0.113.8"),
        ("x-forwarded-host", "evil.test"),
        ("x_deployment_id", "evil"),
        ("x-pixell-claims", "evil"),
        ("forwarded", "for=203.0.113.7"),
        ("via", "1.1 before"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=1"),
        ("baggage", "k=v"),
        ("cookie", "a=1; b=2"),
        ("authorization", "Bearer opaque"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("x-empty", ""),
        ("x_under", "1"),
        ("range", "bytes=0-1"),
    ];
    let seen = tasks.get_both("/x", &[&by[..], &headers].concat()).await;
    for line in [
        "x-request-id: r",
        "x-forwarded-for: 203.0.113.7, 203.0.113.8,198.18.T.1",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: vendor=1",
        "cookie: a=1; b=2",
        "authorization: Bearer opaque",
        "x_under: 1",
        "te: trailers",
    ] {
        assert!(seen.body.lines().any(|found| found == line), "{line} in {}", seen.body);
    }
    for gone in ["evil", "upstream-rq", "retry-on", "upgrade", "keep-alive"] {
        assert!(!seen.body.contains(gone), "{gone} in {}", seen.body);
    }
    // As many and as long ones as may be.
    let many: Vec<_> = (0..80).map(|number| (format!("x-{number}"), "v".repeat(1_000))).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(by).collect();
    let seen = tasks.get_both("/x", &many).await;
    assert!(seen.status() == 200 && seen.body.len() > 80_000, "{}", seen.status());
    // A body in chunks, and trailers.
    let chunked = [&by[..], &[("transfer-encoding", "chunked"), ("trailer", "x-sum")]].concat();
    let seen = tasks.both(request("POST", "/x", &chunked) + "4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n").await;
    assert!(seen.body.contains("4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n"), "{seen:?}");
}

#[tokio::test]
async fn responses_reach_the_client_as_they_were_sent() {
    let tasks = Tasks::start(2).await;
    let large: String = (0..200).map(|number| format!("x-{number}: {}\r\n", "v".repeat(4_000))).collect();
    let many: String = (0..900).map(|number| format!("x-{number}: v\r\n")).collect();
    let script = move |head: &str| {
        let of = |name: &str| head.contains(&format!("x-script: {name}\r\n"));
        let text = if of("interim") {
            "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n\
             HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n"
        } else if of("reject") {
            "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        } else if of("continue") {
            "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok"
        } else if of("head") {
            "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\netag: \"e\"\r\n\r\n"
        } else if of("none") {
            "HTTP/1.1 204 No Content\r\nx-pixell-misdirected: 1\r\nx-pixell-error: made up\r\n\r\n"
        } else if of("unchanged") {
            "HTTP/1.1 304 Not Modified\r\netag: \"e\"\r\nserver: mine\r\nvary: a\r\nvary: b\r\n\r\n"
        } else if of("bad") {
            "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n"
        } else if of("malformed") {
            "no HTTP\r\n\r\n"
        } else if of("nothing") {
            ""
        } else if of("large") {
            return format!("HTTP/1.1 200 OK\r\n{large}content-length: 0\r\n\r\n").into_bytes();
        } else if of("many") {
            return format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n").into_bytes();
        } else {
            "HTTP/1.1 200 OK\r\nset-cookie: a=1; Path=/\r\nset-cookie: b=2\r\nx-envoy-custom: mine\r\ncontent-length: 2\r\n\r\nok"
        };
        text.as_bytes().to_vec()
    };
    let agent = scripted(&tasks, script).await;
    with(&tasks, &agent).await;
    let of = |name| [("x-deployment-id", "a"), ("x-script", name)];
    let seen = tasks.get_both("/x", &[&of("interim")[..], &[("te", "trailers")]].concat()).await;
    assert_eq!((seen.heads[0].0, seen.heads[0].1["link"].as_str()), (103, "</style.css>; rel=preload"), "{seen:?}");
    assert_eq!((seen.status(), &*seen.body, &*seen.trailers), (200, "body", "x-sum: 42"), "{seen:?}");
    let expects = |name| [&of(name)[..], &[("expect", "100-continue"), ("transfer-encoding", "chunked")]].concat();
    let seen = tasks.both(request("POST", "/x", &expects("reject"))).await;
    assert_eq!((seen.heads.len(), seen.status()), (1, 413), "no 100 Continue came before: {seen:?}");
    let seen = tasks.both(request("POST", "/x", &expects("continue")) + "2\r\nhi\r\n0\r\n\r\n").await;
    assert_eq!((seen.heads[0].0, seen.status(), &*seen.body), (100, 201, "ok"), "{seen:?}");
    let seen = tasks.both(request("HEAD", "/x", &of("head"))).await;
    assert_eq!((seen.status(), seen.header("content-length"), seen.header("etag")), (200, Some("12345"), Some("\"e\"")));
    let seen = tasks.get_both("/x", &of("none")).await;
    assert_eq!((seen.status(), seen.header("x-pixell-error"), seen.header("x-pixell-misdirected")), (204, None, None));
    let seen = tasks.get_both("/x", &of("unchanged")).await;
    assert_eq!((seen.status(), seen.header("server"), seen.header("vary")), (304, Some("mine"), Some("a,b")));
    for (name, code) in [("bad", "agent_protocol_error"), ("malformed", "agent_protocol_error"), ("nothing", "agent_closed")] {
        let seen = tasks.get_both("/x", &of(name)).await;
        assert_eq!((seen.status(), seen.header("x-pixell-error")), (502, Some(code)), "{seen:?}");
    }
    let seen = tasks.get_both("/x", &of("large")).await;
    assert_eq!((seen.status(), seen.header("x-199").map(str::len)), (200, Some(4_000)));
    let seen = tasks.get_both("/x", &of("many")).await;
    assert_eq!((seen.status(), seen.header("x-899")), (200, Some("v")));
    let seen = tasks.get_both("/x", &of("plain")).await;
    assert_eq!((seen.header("set-cookie"), seen.header("x-envoy-custom")), (Some("a=1; Path=/ | b=2"), Some("mine")));
}
