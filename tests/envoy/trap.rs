//! A VM that traps: its worker is back within two seconds with the map, and nobody else notices.

use std::time::{Duration, Instant};

use harness::agents::streams;
use harness::proto::request_to;
use harness::proto::streams::Chunk;
use harness::proto::streams::streams_client::StreamsClient;
use harness::{Envoy, agents, workspace};
use reqwest::Client;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::clients::http2;

/// The header that kills; see the feature `test-trap` in the root manifest.
const TRAP: &str = "x-test-trap";

/// A caller whose one connection is on a known worker.
struct Caller {
    worker: u32,
    http: Client,
    grpc: StreamsClient<Channel>,
}

/// A connection each for HTTP and gRPC on the same worker, found by the worker's counter.
async fn caller(envoy: &Envoy, worker: u32) -> Caller {
    let on = async |wanted: u32, before: &std::collections::BTreeMap<u32, u64>| {
        let now = envoy.stats().await.unwrap().worker_connections("agents").unwrap();
        now[&wanted] > before[&wanted]
    };
    let counts = async || envoy.stats().await.unwrap().worker_connections("agents").unwrap();
    let http = loop {
        let (before, client) = (counts().await, http2());
        client.get(envoy.data_url()).header("x-deployment-id", "h").send().await.unwrap();
        if on(worker, &before).await {
            break client;
        }
    };
    let grpc = loop {
        let (before, mut client) = (counts().await, streams::connect(envoy.data_addr()).await.unwrap());
        client.unary(request_to("s", Chunk::default()).unwrap()).await.unwrap();
        if on(worker, &before).await {
            break client;
        }
    };
    Caller { worker, http, grpc }
}

#[tokio::test]
async fn a_trapped_worker_is_back_and_nobody_else_notices() {
    let modules = harness::envoy::modules::locate_trap().unwrap();
    let envoy = Envoy::builder().modules(modules).start().await.unwrap();
    let ((s, _), h) = (streams::start("s").unwrap(), agents::echo::start("h").unwrap());
    envoy.routes().put_all([("s", s.port()), ("h", h.port())]).await.unwrap();
    let (hit, mut spared) = (caller(&envoy, 0).await, caller(&envoy, 1).await);
    assert_eq!((hit.worker, spared.worker), (0, 1));
    let (send, receive) = mpsc::channel(1);
    let mut stream = spared.grpc.chat(request_to("s", ReceiverStream::new(receive)).unwrap()).await.unwrap().into_inner();

    let epoch = envoy.routes().status().await.unwrap().json().unwrap()["epoch"].clone();
    let trapped = Instant::now();
    // The request that kills gets an answer or a broken stream, as it happens.
    drop(hit.http.get(envoy.data_url()).header("x-deployment-id", "h").header(TRAP, "now").send().await);
    let mut back = None;
    let mut number = 0;
    while trapped.elapsed() < Duration::from_secs(3) {
        // The other worker: its stream goes on, its calls are answered. The route API, too.
        number += 1;
        send.send(Chunk { number, data: Vec::new() }).await.unwrap();
        assert_eq!(stream.message().await.unwrap().unwrap().number, number);
        let other = spared.http.get(envoy.data_url()).header("x-deployment-id", "h").send().await.unwrap();
        assert_eq!(other.status(), 200);
        assert_eq!(envoy.routes().status().await.unwrap().json().unwrap()["epoch"], epoch);
        let again = hit.http.get(envoy.data_url()).header("x-deployment-id", "h").send().await;
        let answered = again.is_ok_and(|answer| answer.status() == 200);
        match back {
            None if answered => back = Some(trapped.elapsed()),
            Some(_) => assert!(answered, "once it is back it stays"),
            None => {}
        }
    }
    let back = back.expect("the worker came back");
    println!("the trapped worker was back after {back:?}");
    assert!(back < Duration::from_secs(2), "{back:?}");
    let stats = envoy.stats().await.unwrap();
    assert!(stats.sum(r"^wasm\.pixell\.router\.vm_reload_success$").unwrap() > 0, "the VM did trap");
    assert_eq!(envoy.routes().routes().await.unwrap().json().unwrap()["routes"]["h"]["port"], h.port());
}

/// What ships cannot be trapped so: the name of the header is not even in it.
#[test]
fn the_shipped_modules_have_no_trap() {
    let has = |directory: &str, name: &str| {
        let path = workspace::target().join(directory).join(name);
        let module =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask build`", path.display()));
        module.windows(TRAP.len()).any(|bytes| bytes == TRAP.as_bytes())
    };
    assert!(has("pixell-trap", "router.wasm"), "the test build has it");
    for name in harness::envoy::modules::NAMES {
        assert!(!has("pixell", name), "{name} has the trap");
    }
}
