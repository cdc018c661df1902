//! The limits of the shipped configuration: each one applies, and affects only the client that exceeds it.

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
async fn headers_are_limited_in_size_and_number() {
    let (envoy, _agent) = with_echo().await;
    let status = async |headers: String| {
        let request = format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-deployment-id: a\r\n{headers}\r\n");
        let response = wire::exchange(envoy.data_addr(), request.as_bytes(), PATIENCE).await;
        let response = String::from_utf8_lossy(&response).into_owned();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head[9..12].parse::<u16>().unwrap();
        assert!(status == 200 || !body.to_lowercase().contains("envoy"), "{body}");
        status
    };
    assert_eq!(status(format!("x: {}\r\n", "v".repeat(90 * 1024))).await, 200);
    assert_eq!(status(format!("x: {}\r\n", "v".repeat(97 * 1024))).await, 431);
    assert_eq!(status("x: v\r\n".repeat(90)).await, 200);
    assert_eq!(status("x: v\r\n".repeat(101)).await, 431);
}

/// A client that sends its headers byte by byte is cut off. In HTTP/2 there is no stream until the headers are complete, so the limit for
/// connections without a stream applies.
#[tokio::test]
async fn a_slow_loris_is_cut_off() {
    // These match only the listener for agents. The listener of the route API writes them in another form.
    let headers = "request_headers_timeout: 10s\n                # ";
    let idle = "                  idle_timeout: 300s\n";
    let settings = Envoy::builder().edit(headers, &headers.replace("10s", "1s")).edit(idle, &idle.replace("300s", "1s"));
    let envoy = settings.start().await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
                    \0\0\x01\x01\0\0\0\0\x01\x82"
        .as_slice();
    for opening in [b"GET / HTTP/1.1\r\nhost: h\r\nx-a: ".as_slice(), preface] {
        let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
        let started = Instant::now();
        stream.write_all(opening).await.unwrap();
        let is_http1 = opening.starts_with(b"GET");
        let (mut read, mut write) = stream.into_split();
        let trickle = tokio::spawn(async move {
            // In HTTP/2 the HEADERS frame had no END_HEADERS, and its continuation never comes.
            while is_http1 && write.write_all(b"v").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            write
        });
        let mut response = Vec::new();
        let mut ended = Box::pin(read.read_to_end(&mut response));
        let ended = tokio::time::timeout(Duration::from_secs(20), &mut ended).await;
        assert!(ended.is_ok(), "still open after {:?}", started.elapsed());
        assert!(started.elapsed() >= Duration::from_millis(900));
        trickle.abort();
        if is_http1 {
            assert!(response.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&response));
        }
    }
}

/// Envoy accepts a limited number of connections from clients. The route API has its own limit.
#[tokio::test]
async fn connections_are_limited_and_the_route_api_has_its_own_limit() {
    const MOST: usize = 5;
    let shipped = "max_active_downstream_connections: 10000";
    let envoy = Envoy::builder().edit(shipped, &shipped.replace("10000", &MOST.to_string())).start().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..MOST * 3 {
        held.push(TcpStream::connect(envoy.data_addr()).await.unwrap());
    }
    let mut refused = 0;
    for stream in &mut held {
        // Envoy closes at once what it does not accept.
        let ended = tokio::time::timeout(Duration::from_millis(300), stream.read_u8()).await;
        refused += usize::from(ended.is_ok());
    }
    assert_eq!(refused, MOST * 2);
    assert_eq!(envoy.routes().put_all([("a", 5000)]).await.unwrap().status, 200);
    drop(held);
    let again = || async { Ok(http1().get(envoy.data_url()).send().await.ok()) };
    assert_eq!(wait::until("room for a connection", Duration::from_secs(10), again).await.unwrap().status(), 400);
}

/// Fargate lets a process open 65,535 files: enough for all connections that the limits allow, and a thousand files more.
#[tokio::test]
async fn all_limits_together_fit_into_the_open_files_of_a_task() {
    let envoy = Envoy::builder().start().await.unwrap();
    let sum_of = |text: &str, pattern: &str| -> (usize, u64) {
        let found: Vec<u64> =
            regex::Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].parse().unwrap()).collect();
        (found.len(), found.iter().sum())
    };
    let config = envoy.admin("/config_dump").await.unwrap();
    let (monitors, clients) = sum_of(&config, r#""max_active_downstream_connections": "(\d+)""#);
    let (layers, route_api) = sum_of(&config, r#""envoy.resource_limits.listener.admin.connection_limit": (\d+)"#);
    let clusters = envoy.admin("/clusters").await.unwrap();
    let (thresholds, upstream) = sum_of(&clusters, r"::default_priority::max_connections::(\d+)");
    assert_eq!((monitors, layers, thresholds), (1, 1, 4), "{config}");
    let sum = clients + route_api + upstream;
    assert!(sum + 1_000 < 65_535, "{clients} + {route_api} + {upstream} = {sum}");
}

/// Envoy closes a connection that floods it. Other connections do not notice.
#[tokio::test]
async fn http2_floods_end_only_their_own_connection() {
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
        // The test does not read Envoy's responses, so they pile up.
        let flood = frame.repeat(20_000);
        let started = Instant::now();
        while stream.write_all(&flood).await.is_ok() {
            assert!(started.elapsed() < Duration::from_secs(30), "{name}: the connection is still open");
        }
        assert_eq!(ask().await, 200, "{name}");
    }
    // The counter moves after the connection is closed.
    let ended = || async {
        let ended = envoy.stat("http.agents.downstream_cx_destroy_local").await?;
        Ok((ended >= Some(2)).then_some(()))
    };
    wait::until("Envoy to close two connections", Duration::from_secs(10), ended).await.unwrap();
}

/// An agent that accepts connections and requests, and then neither reads nor responds.
fn stuck(version: agent::Version) -> Agent {
    let agent = agent::start("stuck", 0, version, |request| async {
        let _held = request;
        std::future::pending::<Response<agent::Body>>().await
    });
    agent.unwrap()
}

/// More calls wait for a stuck agent than Envoy's default thresholds allow for all agents together, and uploads to it fill their
/// windows. Calls to another agent, on the same connections of the clients, still get their responses.
#[tokio::test]
async fn one_stuck_agent_starves_no_other() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (stuck_grpc, stuck_http) = (stuck(agent::Version::Http2), stuck(agent::Version::Http1));
    let (good_grpc, good_http) = (agents::grpc::start("g").unwrap(), agents::echo::start("h").unwrap());
    let routes = [("sg", &stuck_grpc), ("sh", &stuck_http), ("g", &good_grpc), ("h", &good_http)];
    envoy.routes().put_all(routes.map(|(id, agent)| (id, agent.port()))).await.unwrap();
    let clients: Vec<_> = (0..10).map(|_| http2()).collect();
    let mut held = Vec::new();
    // A few at a time: of a burst of 2,000 on a busy machine, some find the agent unreachable, because no connection is ready in time.
    while held.len() < 2_000 {
        held.extend((held.len()..held.len() + 200).map(|number| {
            let client = &clients[number % clients.len()];
            let request = client.post(envoy.data_url());
            let request = match number % 2 {
                0 => {
                    request.header("x-deployment-id", "sg").header("content-type", "application/grpc").header("te", "trailers")
                }
                _ => request.header("x-deployment-id", "sh"),
            };
            // Two of a hundred upload more than any window holds.
            let body = if number % 100 < 2 { Bytes::from(vec![0; 2 << 20]) } else { Bytes::from_static(b"wait") };
            tokio::spawn(request.body(body).send())
        }));
        let most = u64::try_from(held.len() - held.len() / 20).unwrap();
        let waiting = || async {
            let active = envoy.stats().await?.sum(r"^cluster\.agents_http[12]\.upstream_rq_active$")?;
            Ok((active >= most).then_some(active))
        };
        wait::until("the stuck calls to be in flight", Duration::from_secs(60), waiting).await.unwrap();
    }
    let started = Instant::now();
    for round in 0..20 {
        for client in &clients {
            let response = client.post(envoy.data_url()).header("x-deployment-id", "h").body("x".repeat(100_000)).send();
            let response = tokio::time::timeout(Duration::from_secs(20), response).await.expect("not starved").unwrap();
            assert_eq!(response.status(), 200, "round {round}");
        }
    }
    let mut grpc = harness::proto::connect(envoy.data_addr()).await.unwrap();
    for _ in 0..100 {
        let request = harness::proto::request_to("g", harness::proto::Empty {}).unwrap();
        grpc.health(request).await.unwrap();
    }
    println!("300 calls beside {} stuck ones took {:?}", held.len(), started.elapsed());
    let heap = envoy.stat("overload.envoy.resource_monitors.fixed_heap.pressure").await.unwrap();
    println!("{heap:?} % of the heap in use");
    for (number, call) in held.into_iter().enumerate() {
        if call.is_finished() {
            panic!("stuck call {number} of 2000 has ended: {:?}; {heap:?} % of the heap in use", call.await.unwrap());
        }
        call.abort();
    }
}

/// A request beyond a threshold gets a code of its own. (The shipped configuration has no such threshold, so the test sets one.)
#[tokio::test]
async fn a_request_beyond_a_threshold_is_rejected_as_overloaded() {
    let envoy = Envoy::builder().edit("max_pending_requests: 4294967295", "max_pending_requests: 0").start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let response = http1().get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["x-pixell-error"]), (503, &"overloaded".parse().unwrap()));
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&"overloaded".into(), &503.into()));
    let line = envoy.logged(1, |line| line["log"] == "access").await.unwrap().remove(0);
    assert_eq!((&line["response_flags"], &line["error"]), (&"UO".into(), &"overloaded".into()), "{line}");
}

/// Waits until Envoy has read nothing from the agents of a cluster for a second, because their clients do not read. If it buffered
/// what they do not read, it would go on.
async fn until_it_stops_reading(envoy: &Envoy, cluster: &str) {
    let (begun, stat) = (Instant::now(), format!("cluster.{cluster}.upstream_cx_rx_bytes_total"));
    let (mut last, mut since) = (0, Instant::now());
    while last == 0 || since.elapsed() < Duration::from_secs(1) {
        assert!(begun.elapsed() < Duration::from_secs(60), "Envoy still reads: {last} bytes so far");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let read = envoy.stat(&stat).await.unwrap().unwrap();
        if read != last {
            (last, since) = (read, Instant::now());
        }
    }
    println!("{cluster}: Envoy has read {last} bytes");
}

/// A client that does not read its response does not hold up other clients of the same agent.
#[tokio::test]
async fn a_slow_client_starves_no_other() {
    let (envoy, _agent) = with_echo().await;
    let (streams, _) = agents::streams::start("s").unwrap();
    envoy.routes().put_all([("s", streams.port())]).await.unwrap();
    let large = || harness::proto::streams::Chunk { number: 100_000, data: vec![1; 1024] };
    let mut unread = Vec::new();
    let mut slow = agents::streams::connect(envoy.data_addr()).await.unwrap();
    for _ in 0..20 {
        let request = harness::proto::request_to("s", large()).unwrap();
        unread.push(slow.download(request).await.unwrap().into_inner());
    }
    until_it_stops_reading(&envoy, "agents_http2").await;
    let mut quick = agents::streams::connect(envoy.data_addr()).await.unwrap();
    for number in 0..100 {
        let chunk = harness::proto::streams::Chunk { number, data: vec![2; 50_000] };
        let call = quick.unary(harness::proto::request_to("s", chunk).unwrap());
        let response = tokio::time::timeout(Duration::from_secs(10), call).await.expect("not starved").unwrap();
        assert_eq!(response.into_inner().number, number);
    }
    assert!(envoy.resident_bytes().unwrap() < 400 << 20, "Envoy buffers what its clients do not read");
}

/// Envoy passes on an endless response at the pace of its reader.
#[tokio::test]
async fn an_unread_response_is_not_buffered() {
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
    let mut responses = Vec::new();
    for _ in 0..10 {
        responses.push(http1().get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap());
    }
    until_it_stops_reading(&envoy, "agents_http1").await;
    let grown = envoy.resident_bytes().unwrap().saturating_sub(before) >> 20;
    assert!(grown < 32, "Envoy grew by {grown} MiB for ten responses that nobody reads");
}
