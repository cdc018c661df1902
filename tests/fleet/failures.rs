//! Maps that are wrong, peers that are gone: one hop at most, a response within 2 s, and nothing runs twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Agent, agents, wait};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::tasks::Tasks;

/// How many requests a task's Envoy has got from peers.
async fn arrived(tasks: &Tasks, task: usize) -> u64 {
    tasks.count(task, "wasmcustom.pixell_fleet_requests_total.hop.in").await
}

/// An agent that counts the requests that it gets, and pretends to be a proxy.
async fn counting(tasks: &Tasks, task: usize, count: &Arc<AtomicUsize>) -> Agent {
    let count = Arc::clone(count);
    tasks
        .agent(task, move || {
            agents::http::start("counting", 0, agents::http::Version::Http1, move |request| {
                count.fetch_add(1, Ordering::Relaxed);
                async move {
                    drop(request.into_body().collect().await);
                    let response = hyper::Response::builder().header("x-pixell-misdirected", "1").status(503);
                    response.body(agents::http::whole("mine")).unwrap()
                }
            })
        })
        .await
}

#[tokio::test]
async fn maps_that_point_at_each_other_cost_one_hop() {
    let tasks = Tasks::start(3).await;
    // Each says that the next one has it, and the second that it is itself. Nobody has it.
    tasks.fleet(0, &[("a", &[1]), ("b", &[1, 2]), ("c", &[0])]).await;
    tasks.fleet(1, &[("a", &[0]), ("b", &[0, 2]), ("c", &[1])]).await;
    tasks.fleet(2, &[("a", &[2, 1, 0])]).await;
    for task in 0..3 {
        tasks.routes(task, json!({})).await;
    }
    let mut expected = [0, 0, 0];
    for (task, id, hops) in [
        (0, "a", [0, 1, 0]),
        (1, "a", [1, 0, 0]),
        (0, "b", [0, 1, 1]),
        (0, "c", [1, 0, 0]),
        (1, "c", [0, 1, 0]),
        (2, "a", [1, 1, 1]),
    ] {
        tasks.ask(task, id).await.is_rejected("deployment_moved");
        for (sum, more) in expected.iter_mut().zip(hops) {
            *sum += more;
        }
        for (other, expected) in expected.iter().enumerate() {
            assert_eq!(arrived(&tasks, other).await, *expected, "{task} {id} at {other}");
        }
    }
}

#[tokio::test]
async fn a_stale_record_costs_one_attempt_and_the_agent_gets_the_request_once() {
    let tasks = Tasks::start(3).await;
    let count = Arc::new(AtomicUsize::new(0));
    let agent = counting(&tasks, 2, &count).await;
    tasks.routes(1, json!({})).await;
    tasks.routes(2, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1, 2])]).await;
    for number in 1..=20 {
        let response = tasks.send(0, "/x", |request| request.header("x-deployment-id", "a").body("body"));
        let response = response.await;
        // The proxy does not trust the headers of the agent, and does not retry its response.
        assert_eq!((response.status, response.body.as_str(), response.header("x-pixell-misdirected")), (503, "mine", None));
        assert_eq!((arrived(&tasks, 1).await, arrived(&tasks, 2).await), (number, number));
    }
    assert_eq!(count.load(Ordering::Relaxed), 20);
    assert_eq!(tasks.count(0, "wasmcustom.pixell_fleet_misdirected_total.hop.out").await, 20);
}

#[tokio::test]
async fn an_agent_that_has_moved_here_is_reached_by_the_map_as_it_is_now() {
    let tasks = Tasks::start(2).await;
    let agent = tasks.echo(0, "moved").await;
    tasks.routes(1, json!({})).await;
    tasks.routes(0, json!({ "a": { "port": agent.port(), "state": "draining" } })).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    // It drains here, and is not there yet.
    tasks.ask(0, "a").await.is_rejected("deployment_moved");
    tasks.routes(0, json!({ "a": agent.port() })).await;
    assert_eq!(tasks.ask(0, "a").await.seen()["agent"], "moved");
}

#[tokio::test]
async fn an_agent_that_moves_while_its_request_waits_there_is_reached_where_it_is() {
    let tasks = Tasks::start(3).await;
    let agent = tasks.echo(2, "moved").await;
    // Nothing listens at this port.
    tasks.routes(1, json!({ "a": 1024 })).await;
    tasks.routes(2, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1, 2])]).await;
    tasks.fleet(1, &[("a", &[2])]).await;
    let moves = async {
        while arrived(&tasks, 1).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tasks.routes(1, json!({})).await;
    };
    let (response, ()) = tokio::join!(tasks.ask(0, "a"), moves);
    assert_eq!(response.seen()["agent"], "moved");
    assert_eq!(response.header("x-pixell-misdirected"), None);
    assert_eq!(tasks.count(0, "wasmcustom.pixell_fleet_misdirected_total.hop.out").await, 1);
}

#[tokio::test]
async fn a_dead_peer_is_left_out() {
    let tasks = Tasks::start(3).await;
    let agent = tasks.echo(2, "second").await;
    tasks.routes(2, json!({ "both": agent.port() })).await;
    tasks.routes(0, json!({})).await;
    // Nothing listens at task 3's address, because it does not exist; task 1 is cut off, so its packets vanish.
    tasks.fabric.cut(1, true).unwrap();
    tasks.fleet(0, &[("both", &[1, 2]), ("cut", &[1]), ("none", &[3]), ("all", &[1, 3])]).await;
    let first = tasks.ask(0, "both").await;
    assert_eq!(first.seen()["agent"], "second");
    assert!(first.took < Duration::from_secs(1), "{first:?}");
    for id in ["cut", "none", "all"] {
        tasks.ask(0, id).await.is_rejected("peer_unreachable");
    }
    // Both workers know it by now, most likely: at once, and without another attempt.
    let mut soonest = Duration::MAX;
    for _ in 0..5 {
        let response = tasks.ask(0, "cut").await;
        response.is_rejected("peer_unreachable");
        soonest = soonest.min(response.took);
    }
    assert!(soonest < Duration::from_millis(100), "{soonest:?}");
    tasks.fabric.cut(1, false).unwrap();
    tasks.routes(1, json!({ "cut": 1024 })).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // The peer is tried again, once for each request. Its agent does not run, which is not a failure of the peer.
    for requests in 1..=2 {
        let response = tasks.ask(0, "cut").await;
        assert_eq!(response.header("x-pixell-error"), Some("agent_unreachable"), "{response:?}");
        assert_eq!(arrived(&tasks, 1).await, requests);
    }
    assert!(tasks.count(0, "wasmcustom.pixell_fleet_peer_failures_total").await >= 2);
}

/// An agent of HTTP/1.1 that counts the requests that it takes, and fails in the way that the path names.
async fn failing(tasks: &Tasks, task: usize, count: &Arc<AtomicUsize>) -> Agent {
    let count = Arc::clone(count);
    let serve = move |mut stream: tokio::net::TcpStream| {
        let count = Arc::clone(&count);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            count.fetch_add(1, Ordering::Relaxed);
            if head.starts_with(b"GET /broken") {
                stream.write_all(b"no HTTP\r\n\r\n").await?;
            } else if head.starts_with(b"GET /error") {
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await?;
            }
            Ok(())
        }
    };
    tasks.agent(task, move || agents::raw::start("failing", serve)).await
}

/// The same of gRPC.
async fn failing_grpc(tasks: &Tasks, task: usize, count: &Arc<AtomicUsize>) -> Agent {
    let count = Arc::clone(count);
    let serve = move |stream| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = h2::server::handshake(stream).await.map_err(std::io::Error::other)?;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                match request.uri().path() {
                    "/reset" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                    "/error" => {
                        let response = http::Response::builder().header("content-type", "application/grpc");
                        let response = response.header("grpc-status", "14").body(()).unwrap();
                        respond.send_response(response, true).map_err(std::io::Error::other)?;
                    }
                    _ => return Ok(()),
                }
            }
            Ok(())
        }
    };
    tasks.agent(task, move || agents::raw::start("failing", serve)).await
}

#[tokio::test]
async fn an_agent_that_fails_is_asked_no_more_often_than_without_the_hop() {
    let tasks = Tasks::start(3).await;
    let count = Arc::new(AtomicUsize::new(0));
    let mut agents = Vec::new();
    for task in [1, 2] {
        let (http, grpc) = (failing(&tasks, task, &count).await, failing_grpc(&tasks, task, &count).await);
        // Nothing listens at the last port.
        tasks.routes(task, json!({ "http": http.port(), "grpc": grpc.port(), "down": 1024 })).await;
        agents.extend([http, grpc]);
    }
    tasks.routes(0, json!({})).await;
    // A second task could serve each of them, too.
    tasks.fleet(0, &[("http", &[1, 2]), ("grpc", &[1, 2]), ("down", &[1, 2])]).await;
    let (http, grpc) = ("text/plain", "application/grpc");
    let mut requests = 0;
    for (id, path, content_type, code, executions) in [
        ("down", "/x", http, Some("agent_unreachable"), 0),
        ("http", "/closed", http, Some("agent_closed"), 1),
        ("http", "/broken", http, Some("agent_protocol_error"), 1),
        ("http", "/error", http, None, 1),
        ("down", "/x", grpc, Some("agent_unreachable"), 0),
        ("grpc", "/closed", grpc, Some("agent_closed"), 1),
        ("grpc", "/reset", grpc, Some("agent_closed"), 1),
        ("grpc", "/error", grpc, None, 1),
    ] {
        count.store(0, Ordering::Relaxed);
        let ask =
            move |request: reqwest::RequestBuilder| request.header("x-deployment-id", id).header("content-type", content_type);
        let response = tasks.send(0, path, ask).await;
        requests += 1;
        assert_eq!(response.header("x-pixell-error"), code, "{id}{path}: {response:?}");
        assert_eq!(count.load(Ordering::Relaxed), executions, "{id}{path}");
        assert_eq!([arrived(&tasks, 1).await, arrived(&tasks, 2).await], [requests, 0], "{id}{path}");
    }
}

#[tokio::test]
async fn a_peer_that_accepts_and_closes_is_named_and_not_its_agent() {
    // For task 1, task 0 is not in the fleet.
    let networks = |task| if task == 1 { vec![("PIXELL_FLEET_CIDRS", "198.18.1.0/24".to_owned())] } else { Vec::new() };
    let tasks = Tasks::with(2, networks).await;
    tasks.routes(0, json!({})).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    let response = tasks.ask(0, "a").await;
    assert_eq!((response.status, response.header("x-pixell-error")), (502, Some("agent_closed")), "{response:?}");
    let problem: serde_json::Value = serde_json::from_str(&response.body).unwrap();
    let detail = "The task of the agent took the request and ended the connection before it responded";
    assert_eq!((&problem["detail"], &problem["code"]), (&json!(detail), &json!("agent_closed")));
    let response =
        tasks.send(0, "/x", |request| request.header("x-deployment-id", "a").header("content-type", "application/grpc"));
    let response = response.await;
    let of_grpc = |name| response.header(name).unwrap_or_default().replace("%20", " ");
    assert_eq!((of_grpc("grpc-status"), of_grpc("grpc-message")), ("14".to_owned(), detail.to_owned()), "{response:?}");
}

#[tokio::test]
async fn a_large_upload_cannot_be_sent_again() {
    let tasks = Tasks::start(3).await;
    let [one, other] = [tasks.echo(2, "one").await, tasks.echo(2, "other").await];
    tasks.routes(1, json!({})).await;
    tasks.routes(2, json!({ "a": one.port(), "b": other.port() })).await;
    tasks.fleet(0, &[("a", &[1, 2]), ("b", &[2])]).await;
    const LARGE: usize = 100_000_000;
    let upload = |id: &'static str, size: usize| {
        move |request: reqwest::RequestBuilder| request.header("x-deployment-id", id).body(vec![7; size])
    };
    // The peer takes the connection, and responds only when more of the body has come than can be kept for another attempt.
    tasks.envoys[1].freeze().unwrap();
    let too_large = async {
        let abandoned = || async { Ok((tasks.count(0, "cluster.peers.retry_or_shadow_abandoned").await == 1).then_some(())) };
        wait::until("more of the body than can be kept", Duration::from_secs(30), abandoned).await.unwrap();
        tasks.envoys[1].thaw().unwrap();
    };
    let (response, ()) = tokio::join!(tasks.send(0, "/x", upload("a", LARGE)), too_large);
    assert_eq!((response.status, response.header("x-pixell-error")), (503, Some("deployment_moved")), "{response:?}");
    assert_eq!(response.header("x-pixell-misdirected"), None);
    assert_eq!(tasks.send(0, "/x", upload("a", 100_000)).await.seen()["body_bytes"], 100_000);
    assert_eq!(tasks.send(0, "/x", upload("b", LARGE)).await.seen()["body_bytes"], LARGE);
}
