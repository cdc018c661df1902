//! The limits of the shipped configuration, each seen at work, and nobody else hurt by it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::agents::{self, http as agent};
use harness::{Agent, Envoy, wait};
use http_body_util::BodyExt;
use hyper::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients::{http1, http2};
use crate::wire;

const PATIENCE: Duration = Duration::from_secs(5);

async fn with_echo() -> (Envoy, Agent) {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    (envoy, agent)
}

#[tokio::test]
async fn headers_have_a_size_and_a_number() {
    let (envoy, _agent) = with_echo().await;
    let status = async |headers: String| {
        let request = format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-deployment-id: a\r\n{headers}\r\n");
        let answer = wire::exchange(envoy.data_addr(), request.as_bytes(), PATIENCE).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head[9..12].parse::<u16>().unwrap();
        assert!(status == 200 || !body.to_lowercase().contains("envoy"), "{body}");
        status
    };
    assert_eq!(status(format!("x: {}\r\n", "v".repeat(50 * 1024))).await, 200);
    assert_eq!(status(format!("x: {}\r\n", "v".repeat(61 * 1024))).await, 431);
    assert_eq!(status("x: v\r\n".repeat(90)).await, 200);
    assert_eq!(status("x: v\r\n".repeat(101)).await, 431);
}

/// A caller that sends its headers byte by byte is cut off. In HTTP/2 there is no stream before the headers are whole, so it is
/// the limit for connections without one that does it.
#[tokio::test]
async fn a_slow_loris_is_cut_off() {
    let headers = "request_headers_timeout: 10s\n                # Neither";
    let idle = "idle_timeout: 300s\n                  # Names";
    let settings = Envoy::builder().edit(headers, &headers.replace("10s", "1s")).edit(idle, &idle.replace("300s", "1s"));
    let envoy = settings.start().await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
                    \0\0\x01\x01\0\0\0\0\x01\x82"
        .as_slice();
    for opening in [b"GET / HTTP/1.1\r\nhost: h\r\nx-a: ".as_slice(), preface] {
        let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
        let begun = Instant::now();
        stream.write_all(opening).await.unwrap();
        let is_http1 = opening.starts_with(b"GET");
        let (mut read, mut write) = stream.into_split();
        let trickle = tokio::spawn(async move {
            // In HTTP/2 the headers frame has ended without END_HEADERS, and what would go on with it never comes.
            while is_http1 && write.write_all(b"v").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            write
        });
        let mut answer = Vec::new();
        let mut ended = Box::pin(read.read_to_end(&mut answer));
        let ended = tokio::time::timeout(Duration::from_secs(20), &mut ended).await;
        assert!(ended.is_ok(), "still open after {:?}", begun.elapsed());
        assert!(begun.elapsed() >= Duration::from_millis(900));
        trickle.abort();
        if is_http1 {
            assert!(answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
        }
    }
}

/// The process takes so many connections from callers and no more; the route API has its own.
#[tokio::test]
async fn connections_have_a_number_and_the_route_api_its_own() {
    const MOST: usize = 5;
    let shipped = "max_active_downstream_connections: 10000";
    let envoy = Envoy::builder().edit(shipped, &shipped.replace("10000", &MOST.to_string())).start().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..MOST * 3 {
        held.push(TcpStream::connect(envoy.data_addr()).await.unwrap());
    }
    let mut refused = 0;
    for stream in &mut held {
        // Envoy ends at once what it does not take.
        let ended = tokio::time::timeout(Duration::from_millis(300), stream.read_u8()).await;
        refused += usize::from(ended.is_ok());
    }
    assert_eq!(refused, MOST * 2);
    assert_eq!(envoy.routes().put_all([("a", 5000)]).await.unwrap().status, 200);
    drop(held);
    let again = || async { Ok(http1().get(envoy.data_url()).send().await.ok()) };
    assert_eq!(wait::until("room", Duration::from_secs(10), again).await.unwrap().status(), 400);
}

/// All connections that the limits allow at once, and a thousand files besides, are fewer than what Fargate lets a process open.
#[tokio::test]
async fn all_limits_together_fit_into_the_open_files_of_a_task() {
    let envoy = Envoy::builder().start().await.unwrap();
    let sum_of = |text: &str, pattern: &str| -> (usize, u64) {
        let found: Vec<u64> =
            regex::Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].parse().unwrap()).collect();
        (found.len(), found.iter().sum())
    };
    let config = envoy.admin("/config_dump").await.unwrap();
    let (monitors, callers) = sum_of(&config, r#""max_active_downstream_connections": "(\d+)""#);
    let (layers, route_api) = sum_of(&config, r#""envoy.resource_limits.listener.admin.connection_limit": (\d+)"#);
    let clusters = envoy.admin("/clusters").await.unwrap();
    let (thresholds, upstream) = sum_of(&clusters, r"::default_priority::max_connections::(\d+)");
    assert_eq!((monitors, layers, thresholds), (1, 1, 3), "{config}");
    let sum = callers + route_api + upstream;
    assert!(sum + 1_000 < 65_535, "{callers} + {route_api} + {upstream} = {sum}");
}

/// One connection that floods is ended; the others do not notice.
#[tokio::test]
async fn http2_floods_end_their_connection_only() {
    let (envoy, _agent) = with_echo().await;
    let client = http2();
    let ask = async || client.get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap().status();
    assert_eq!(ask().await, 200);
    let settings = b"\0\0\0\x04\0\0\0\0\0".as_slice();
    let ping = b"\0\0\x08\x06\0\0\0\0\0pingpong".as_slice();
    for (name, frame) in [("PING", ping), ("SETTINGS", settings)] {
        let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(settings).await.unwrap();
        // What Envoy answers is not read, so its answers pile up.
        let flood = frame.repeat(20_000);
        let begun = Instant::now();
        while stream.write_all(&flood).await.is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{name}: the connection is still open");
        }
        assert_eq!(ask().await, 200, "{name}");
    }
    let ended = envoy.stat("http.agents.downstream_cx_destroy_local").await.unwrap();
    assert!(ended >= Some(2), "Envoy ended {ended:?} connections");
}

/// An agent that takes connections and requests, and never answers nor reads on.
fn stuck(version: agent::Version) -> Agent {
    let agent = agent::start("stuck", 0, version, |request| async {
        let _held = request;
        std::future::pending::<Response<agent::Body>>().await
    });
    agent.unwrap()
}

/// More calls wait for a stuck agent than Envoy's default thresholds admit for all agents together, and uploads to it fill their
/// windows. The calls to another agent, on the same connections of the caller, are answered as ever.
#[tokio::test]
async fn one_stuck_agent_starves_no_other() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (stuck_grpc, stuck_http) = (stuck(agent::Version::Http2), stuck(agent::Version::Http1));
    let (good_grpc, good_http) = (agents::grpc::start("g").unwrap(), agents::echo::start("h").unwrap());
    let routes = [("sg", &stuck_grpc), ("sh", &stuck_http), ("g", &good_grpc), ("h", &good_http)];
    envoy.routes().put_all(routes.map(|(id, agent)| (id, agent.port()))).await.unwrap();
    let clients: Vec<_> = (0..10).map(|_| http2()).collect();
    let held: Vec<_> = (0..2_000)
        .map(|number| {
            let client = &clients[number % clients.len()];
            let request = client.post(envoy.data_url());
            let request = match number % 2 {
                0 => {
                    request.header("x-deployment-id", "sg").header("content-type", "application/grpc").header("te", "trailers")
                }
                _ => request.header("x-deployment-id", "sh"),
            };
            // Each hundredth uploads more than any window holds.
            let body = if number % 100 < 2 { Bytes::from(vec![0; 2 << 20]) } else { Bytes::from_static(b"wait") };
            tokio::spawn(request.body(body).send())
        })
        .collect();
    let waiting = || async {
        let active = envoy.stats().await?.sum(r"^cluster\.agents_http[12]\.upstream_rq_active$")?;
        Ok((active >= 1_900).then_some(active))
    };
    wait::until("the stuck calls to be on their way", Duration::from_secs(60), waiting).await.unwrap();
    let begun = Instant::now();
    for round in 0..20 {
        for client in &clients {
            let answer = client.post(envoy.data_url()).header("x-deployment-id", "h").body("x".repeat(100_000)).send();
            let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("not starved").unwrap();
            assert_eq!(answer.status(), 200, "round {round}");
        }
    }
    let mut grpc = harness::proto::connect(envoy.data_addr()).await.unwrap();
    for _ in 0..100 {
        let request = harness::proto::request_to("g", harness::proto::Empty {}).unwrap();
        grpc.health(request).await.unwrap();
    }
    println!("300 calls beside {} stuck ones took {:?}", held.len(), begun.elapsed());
    let heap = envoy.stat("overload.envoy.resource_monitors.fixed_heap.pressure").await.unwrap();
    println!("{heap:?} % of the heap in use");
    for (number, call) in held.into_iter().enumerate() {
        if call.is_finished() {
            panic!("stuck call {number} of 2000 waits no more: {:?}; {heap:?} % of the heap in use", call.await.unwrap());
        }
        call.abort();
    }
}

/// A threshold that is reached is told by a code of its own. (As shipped there is none; here one is set.)
#[tokio::test]
async fn a_reached_threshold_is_told_as_overloaded() {
    let envoy = Envoy::builder().edit("max_pending_requests: 4294967295", "max_pending_requests: 0").start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let answer = http1().get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-pixell-error"]), (503, &"overloaded".parse().unwrap()));
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&"overloaded".into(), &503.into()));
    let line = envoy.logged(1, |line| line["log"] == "access").await.unwrap().remove(0);
    assert_eq!((&line["response_flags"], &line["error"]), (&"UO".into(), &"overloaded".into()), "{line}");
}

/// A caller that does not read its answer holds up no other caller of the same agent.
#[tokio::test]
async fn a_slow_caller_starves_no_other() {
    let (envoy, _agent) = with_echo().await;
    let (streams, _) = agents::streams::start("s").unwrap();
    envoy.routes().put_all([("s", streams.port())]).await.unwrap();
    let asked = || harness::proto::streams::Chunk { number: 100_000, data: vec![1; 1024] };
    let mut unread = Vec::new();
    let mut slow = agents::streams::connect(envoy.data_addr()).await.unwrap();
    for _ in 0..20 {
        let request = harness::proto::request_to("s", asked()).unwrap();
        unread.push(slow.download(request).await.unwrap().into_inner());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut quick = agents::streams::connect(envoy.data_addr()).await.unwrap();
    for number in 0..100 {
        let chunk = harness::proto::streams::Chunk { number, data: vec![2; 50_000] };
        let call = quick.unary(harness::proto::request_to("s", chunk).unwrap());
        let answer = tokio::time::timeout(Duration::from_secs(10), call).await.expect("not starved").unwrap();
        assert_eq!(answer.into_inner().number, number);
    }
    assert!(envoy.resident_bytes().unwrap() < 400 << 20, "what is unread is held back at the agent, not in Envoy");
}

/// A response without end is passed on at the pace of its reader.
#[tokio::test]
async fn an_unread_answer_is_not_gathered() {
    let agent = agent::start("endless", 0, agent::Version::Http1, |_| async {
        let chunks = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(hyper::body::Frame::data(Bytes::from(vec![0; 65536])))
        });
        Response::new(http_body_util::StreamBody::new(chunks).boxed())
    });
    let agent = agent.unwrap();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let before = envoy.resident_bytes().unwrap();
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(http1().get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = envoy.resident_bytes().unwrap().saturating_sub(before) >> 20;
    assert!(grown < 32, "Envoy grew by {grown} MiB for ten answers that nobody reads");
}
