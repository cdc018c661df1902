//! Which peers a worker leaves out because they failed, and what is no failure of a peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use harness::proto::{self, Empty};
use harness::{Agent, agents, wait};
use reqwest::{Client, RequestBuilder};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::tasks::Tasks;

const FAILURES: &str = "wasmcustom.pixell_fleet_peer_failures_total";

/// For how long a peer that failed is left out.
const PAUSE: Duration = Duration::from_secs(2);

/// How long a test waits for a thing to happen.
const WAIT: Duration = Duration::from_secs(30);

/// What a peer does that is no Envoy.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Does {
    Close,
    Reset,
    Respond,
}

/// A peer that is no Envoy, in a task of its own.
#[derive(Clone, Default)]
struct Peer(Arc<AtomicU8>);

impl Peer {
    /// Starts it in a new task, which is the last one.
    async fn start(tasks: &mut Tasks, does: Does) -> Self {
        let peer = Self::default();
        peer.now(does);
        let (number, of_task) = (tasks.fabric.add().unwrap(), peer.clone());
        let serve = move || async move {
            let listener = TcpListener::bind(("0.0.0.0", harness::ports::PEERS)).await.unwrap();
            tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    if of_task.does(Does::Close) {
                        continue;
                    }
                    tokio::task::spawn_local(of_task.clone().serve(stream));
                }
            });
        };
        tasks.fabric.task(number).unwrap().run(serve).await.unwrap();
        peer
    }

    fn now(&self, does: Does) {
        self.0.store(does as u8, Ordering::Relaxed);
    }

    fn does(&self, does: Does) -> bool {
        self.0.load(Ordering::Relaxed) == does as u8
    }

    async fn serve(self, stream: TcpStream) {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            if self.does(Does::Reset) {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
            } else {
                let response = http::Response::builder().status(418).body(()).unwrap();
                respond.send_response(response, true).unwrap();
            }
        }
    }
}

/// Three tasks, the first of which has one worker and knows of two peers for `a`: the last task, which `does` this, and task 1 after it.
async fn tasks(does: Does) -> (Tasks, Peer, Agent) {
    let mut tasks = Tasks::changed(2, |_| Vec::new(), |builder| builder.concurrency(1)).await;
    let peer = Peer::start(&mut tasks, does).await;
    let agent = tasks.echo(1, "second").await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[2, 1]), ("only", &[2]), ("nobody", &[1])]).await;
    (tasks, peer, agent)
}

/// Waits until there is a connection to the only peer of `nobody`, which has no such agent and sends the request back. On a busy machine a
/// connection may take longer than it may.
async fn is_connected(tasks: &Tasks) {
    let is_back =
        || async { Ok((tasks.ask(0, "nobody").await.header("x-pixell-error") == Some("deployment_moved")).then_some(())) };
    wait::until("a connection to a peer", WAIT, is_back).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_closes_or_resets_is_left_out_for_two_seconds() {
    for does in [Does::Close, Does::Reset] {
        let (tasks, peer, _agent) = tasks(does).await;
        is_connected(&tasks).await;
        let before = tasks.count(0, FAILURES).await;
        let started = Instant::now();
        let (mut served, mut closed) = (0, 0);
        // On a busy machine a connection may take longer than it may: then this is the failure, and nothing is closed until two seconds later.
        while started.elapsed() < Duration::from_secs(5) || closed == 0 {
            assert!(started.elapsed() < WAIT, "it ends no connection");
            let response = tasks.ask(0, "a").await;
            if response.header("x-pixell-error").is_some() {
                assert_eq!(response.header("x-pixell-error"), Some("agent_closed"), "{response:?}");
                closed += 1;
            } else {
                assert_eq!(response.seen()["agent"], "second");
                served += 1;
            }
        }
        assert!(served > 5, "{served}");
        // Once every two seconds at most, a request finds out whether it is still so.
        let failures = tasks.count(0, FAILURES).await - before;
        let most = 1 + started.elapsed().as_secs() / 2;
        assert!((closed..=most).contains(&failures), "{closed} closed, {failures} failures of at most {most}");
        // If no other peer has the agent, this one is tried all the same: it may have recovered.
        let is_closed = || async { tasks.ask(0, "only").await.header("x-pixell-error") == Some("agent_closed") };
        let is_asked = || async { Ok((is_closed().await && is_closed().await).then_some(())) };
        wait::until("the only peer to be tried", WAIT, is_asked).await.unwrap();
        peer.now(Does::Respond);
        wait::until("the only peer to respond", WAIT, || async {
            Ok((tasks.ask(0, "only").await.status == 418).then_some(()))
        })
        .await
        .unwrap();
        // And so it is, after its pause, for ids that another one has.
        wait::until("the first peer to be tried again", WAIT, || async {
            Ok((tasks.ask(0, "a").await.status == 418).then_some(()))
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn clients_with_a_short_deadline_find_out_that_a_peer_accepts_no_connection() {
    let tasks = Tasks::changed(3, |_| Vec::new(), |builder| builder.concurrency(1)).await;
    let agent = tasks.agent(2, || agents::grpc::start("second")).await;
    tasks.routes(2, json!({ "a": agent.port() })).await;
    tasks.routes(0, json!({})).await;
    tasks.fleet(0, &[("a", &[1, 2]), ("nobody", &[2])]).await;
    is_connected(&tasks).await;
    tasks.fabric.cut(1, true).unwrap();
    let address = tasks.data(0);
    // The time for a connection is 250 ms. No client waits that long.
    let calls = move || async move {
        let mut client = proto::connect(address).await.unwrap();
        let mut codes = Vec::new();
        for _ in 0..20 {
            let mut request = proto::request_to("a", Empty {}).unwrap();
            request.set_timeout(Duration::from_millis(100));
            match client.health(request).await {
                Ok(response) => return (codes, response.into_inner().message),
                Err(status) => codes.push(status.code()),
            }
        }
        (codes, "nobody".to_owned())
    };
    let (codes, served) = tasks.fabric.outside().run(calls).await.unwrap();
    assert_eq!(served, "second", "{codes:?}");
    assert!((2..10).contains(&codes.len()), "{codes:?}");
    assert!(tasks.count(0, FAILURES).await >= 1);
}

#[tokio::test]
async fn an_upload_that_cannot_be_sent_again_tells_of_its_peer() {
    let mut tasks = Tasks::changed(2, |_| Vec::new(), |builder| builder.concurrency(1)).await;
    let agent = tasks.echo(1, "second").await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    // Packets to the first peer vanish. Of so large a body, more than can be kept has come before that is known.
    let silent = tasks.fabric.add().unwrap();
    tasks.fabric.cut(silent, true).unwrap();
    tasks.fleet(0, &[("a", &[2, 1]), ("nobody", &[1])]).await;
    is_connected(&tasks).await;
    let upload = |request: RequestBuilder| request.header("x-deployment-id", "a").body(vec![7; 20_000_000]);
    let told = async {
        loop {
            let (before, began) = (tasks.count(0, FAILURES).await, Instant::now());
            let first = tasks.send(0, "/x", upload).await;
            // On a busy machine less may have come: then Envoy has kept all of it, and has sent it to the other peer. Or the next upload comes
            // when the peer is no longer left out.
            if first.status == 200 {
                continue;
            }
            first.is_rejected("peer_unreachable");
            let next = tasks.send(0, "/x", upload).await;
            if began.elapsed() < PAUSE {
                assert_eq!(next.seen()["body_bytes"], 20_000_000);
                return tasks.count(0, FAILURES).await - before;
            }
        }
    };
    assert_eq!(tokio::time::timeout(WAIT, told).await.expect("an upload that is rejected, and one after it"), 1);
}

/// An agent that responds late, closes without a response, or breaks its response off, as the path says.
async fn bad(tasks: &Tasks) -> Agent {
    let serve = |mut stream: TcpStream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        if head.starts_with(b"GET /late") {
            tokio::time::sleep(Duration::from_secs(5)).await;
        } else if head.starts_with(b"GET /broken") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await?;
        }
        Ok(())
    };
    tasks.agent(1, move || agents::raw::start("bad", serve)).await
}

#[tokio::test]
async fn clients_and_agents_do_no_harm_to_a_peer() {
    let tasks = Tasks::changed(3, |_| Vec::new(), |builder| builder.concurrency(1)).await;
    let (bad, good, other) = (bad(&tasks).await, tasks.echo(1, "first").await, tasks.echo(2, "second").await);
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "bad": bad.port(), "a": good.port(), "down": 1024 })).await;
    tasks.routes(2, json!({ "a": other.port() })).await;
    tasks.fleet(0, &[("bad", &[1, 2]), ("a", &[1, 2]), ("down", &[1, 2])]).await;
    let url = format!("http://{}", tasks.data(0));
    let abuse = move || async move {
        let client = Client::builder().no_proxy().build().unwrap();
        let get = |path: &str, id: &'static str| client.get(format!("{url}{path}")).header("x-deployment-id", id);
        // At once, while the task connects to its peer, and while the agent works.
        for milliseconds in (0..100).chain([500, 700]) {
            let late = get("/late", "bad").timeout(Duration::from_millis(milliseconds)).send().await;
            assert!(late.is_err(), "{milliseconds}");
        }
        let mut codes = Vec::new();
        for (path, id) in [("/none", "bad"), ("/x", "down")] {
            let response = get(path, id).send().await.unwrap();
            codes.push(response.headers()["x-pixell-error"].to_str().unwrap().to_owned());
        }
        let broken = get("/broken", "bad").send().await.unwrap();
        (codes, broken.status().as_u16(), broken.bytes().await.is_err())
    };
    let seen = tasks.fabric.outside().run(abuse).await.unwrap();
    assert_eq!(seen, (vec!["agent_closed".to_owned(), "agent_unreachable".to_owned()], 200, true));
    assert_eq!(tasks.count(0, FAILURES).await, 0);
    for _ in 0..10 {
        assert_eq!(tasks.ask(0, "a").await.seen()["agent"], "first");
    }
    assert_eq!(tasks.count(2, "wasmcustom.pixell_fleet_requests_total.hop.in").await, 0);
}
