//! All clients of a worker share its connection to a peer. Many of them at a time, and some that stop in the middle, stall nobody else.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use harness::{Agent, agents, wait};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::tasks::Tasks;

/// How many requests a connection to a peer carries at a time, and how much of each may be on its way (`envoy/fleet/cluster.yaml` and
/// `envoy/fleet/listener.yaml`).
const STREAMS: usize = 256;
const WINDOW: usize = 256 * 1024;
/// More than a stream may have on its way.
const LARGE: usize = 4 * WINDOW;
/// How long a test waits for a thing to happen.
const WAIT: Duration = Duration::from_secs(60);

/// Two tasks with a worker each, and so with one connection between them. The second one has this agent as `stream`, and one that serves as `a`.
async fn tasks(start: impl FnOnce() -> anyhow::Result<Agent> + Send + 'static) -> (Tasks, [Agent; 2]) {
    let tasks = Tasks::changed(2, |_| Vec::new(), |builder| builder.concurrency(1)).await;
    let stream = tasks.agent(1, start).await;
    let other = tasks.agent(1, || {
        agents::http::start("other", 0, agents::http::Version::Http1, |request| async {
            let sent = request.into_body().collect().await.unwrap().to_bytes().len();
            hyper::Response::new(agents::http::whole(vec![7; sent]))
        })
    });
    let other = other.await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "stream": stream.port(), "a": other.port() })).await;
    tasks.fleet(0, &[("stream", &[1]), ("a", &[1])]).await;
    others_are_served(&tasks, 1).await;
    (tasks, [stream, other])
}

/// Another client is served at once, over the last one of so many connections to the peer.
async fn others_are_served(tasks: &Tasks, connections: u64) {
    for _ in 0..5 {
        let send = |request: reqwest::RequestBuilder| request.header("x-deployment-id", "a").body(vec![7; LARGE]);
        let response = tasks.send(0, "/x", send).await;
        assert_eq!((response.status, response.body.len()), (200, LARGE));
        assert!(response.took < Duration::from_secs(1), "{:?}", response.took);
    }
    assert_eq!(tasks.count(0, "cluster.peers.upstream_cx_active").await, connections);
}

/// Waits until each client has received at least this many bytes, and no more come.
async fn stalls(tasks: &Tasks, bytes: &str, clients: usize) {
    let least = u64::try_from(clients * WINDOW).unwrap();
    let started = Instant::now();
    let (mut before, mut looks) = (0, 0);
    while looks < 5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = tasks.count(0, bytes).await;
        assert!(started.elapsed() < WAIT, "{now} bytes, of at least {least}");
        // A PING now and then has some bytes, too.
        looks = if now >= least && now < before + 1024 { looks + 1 } else { 0 };
        before = now;
    }
    let active = tasks.count(0, "cluster.peers.upstream_rq_active").await;
    assert_eq!(active, u64::try_from(clients).unwrap(), "requests have ended");
}

#[tokio::test]
async fn more_clients_than_a_connection_carries_are_all_served() {
    const CLIENTS: usize = 300;
    let (tasks, _agents) = tasks(|| agents::page::start("page", 0)).await;
    let url = format!("http://{}/events", tasks.data(0));
    let open = move || async move {
        let client = reqwest::Client::builder().no_proxy().http1_only().build().unwrap();
        let streams = (0..CLIENTS).map(|_| async {
            let mut response = client.get(&url).header("x-deployment-id", "stream").send().await.unwrap();
            let first = tokio::time::timeout(WAIT, response.chunk()).await.unwrap().unwrap().unwrap();
            // On a busy machine the next one may be there, too.
            assert!(first.starts_with(b"data: event 1\n\n"), "{first:?}");
            response
        });
        // Not more at a time than an agent accepts on a busy machine.
        stream::iter(streams).buffered(20).collect::<Vec<_>>().await
    };
    let mut streams = tasks.fabric.outside().run(open).await.unwrap();
    assert_eq!(tasks.count(0, "cluster.peers.upstream_rq_active").await, 300);
    others_are_served(&tasks, 2).await;
    for stream in [0, STREAMS, CLIENTS - 1] {
        let next = tokio::time::timeout(WAIT, streams[stream].chunk()).await.unwrap().unwrap().unwrap();
        assert!(next.starts_with(b"data: event "), "{next:?}");
    }
    drop(streams);
    let gone = || async { Ok((tasks.count(1, "http.peers.downstream_rq_active").await == 0).then_some(())) };
    wait::until("the streams to end", WAIT, gone).await.unwrap();
}

/// Opens connections of so many clients that send this, and no more.
async fn clients(tasks: &Tasks, head: &'static str, count: usize) -> Vec<TcpStream> {
    let address = tasks.data(0);
    let open = move || async move {
        let mut streams = Vec::new();
        for _ in 0..count {
            // The kernel would hold megabytes for each of them, more than it has for all.
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_send_buffer_size(65_536).unwrap();
            socket.set_recv_buffer_size(65_536).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            streams.push(stream);
        }
        streams
    };
    tasks.fabric.outside().run(open).await.unwrap()
}

#[tokio::test]
async fn clients_that_never_read_stall_nobody_else() {
    let endless = |mut stream: TcpStream| async move {
        let mut some = vec![0; 64 * 1024];
        let _ = stream.read(&mut some).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await?;
        loop {
            stream.write_all(&some).await?;
        }
    };
    let (tasks, _agents) = tasks(move || agents::raw::start("endless", endless)).await;
    // One stream of the connection is left.
    let get = "GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: stream\r\n\r\n";
    let mut streams = clients(&tasks, get, STREAMS - 1).await;
    stalls(&tasks, "cluster.peers.upstream_cx_rx_bytes_total", STREAMS - 1).await;
    others_are_served(&tasks, 1).await;
    // And one that goes on is served, too. What it gets has come from the agent since.
    let mut last = streams.pop().unwrap();
    let read = move || async move {
        let mut some = vec![0; 16 * LARGE];
        tokio::time::timeout(WAIT, last.read_exact(&mut some)).await.unwrap().unwrap()
    };
    assert_eq!(tasks.fabric.outside().run(read).await.unwrap(), 16 * LARGE);
}

#[tokio::test]
async fn uploads_that_no_agent_reads_stall_nobody_else() {
    let deaf = |stream: TcpStream| async move {
        std::future::pending::<()>().await;
        drop(stream);
        Ok(())
    };
    let (tasks, _agents) = tasks(move || agents::raw::start("deaf", deaf)).await;
    let post = "POST / HTTP/1.1\r\nhost: h\r\nx-deployment-id: stream\r\ncontent-length: 1000000000000\r\n\r\n";
    let streams = clients(&tasks, post, STREAMS - 1).await;
    let send = move || async move {
        for mut stream in streams {
            tokio::task::spawn_local(async move { while stream.write_all(&[0; 64 * 1024]).await.is_ok() {} });
        }
    };
    tasks.fabric.outside().run(send).await.unwrap();
    stalls(&tasks, "cluster.peers.upstream_cx_tx_bytes_total", STREAMS - 1).await;
    others_are_served(&tasks, 1).await;
}
