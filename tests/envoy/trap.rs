//! A VM that traps: its worker has the map again within two seconds, and nobody else notices.

use std::time::{Duration, Instant};

use harness::agents::streams;
use harness::proto::request_to;
use harness::proto::streams::Chunk;
use harness::proto::streams::streams_client::StreamsClient;
use harness::{Envoy, agents, wait};
use reqwest::Client;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::clients::http2;

/// The header that makes a VM trap. See the feature `test-trap` in the root manifest.
const TRAP: &str = "x-test-trap";

/// A connection for HTTP and one for gRPC, both on this worker.
struct Connections {
    worker: u32,
    http: Client,
    grpc: StreamsClient<Channel>,
}

/// Opens one connection for HTTP and one for gRPC on this worker. The worker's counter says where a connection is. Envoy gives a new
/// connection to the worker that has the fewest, so those on the other worker stay open meanwhile: if they were closed, the next one
/// would go there, too.
async fn connections_on(envoy: &Envoy, worker: u32) -> Connections {
    let on = async |wanted: u32, before: &std::collections::BTreeMap<u32, u64>| {
        let now = envoy.stats().await.unwrap().worker_connections("agents").unwrap();
        now[&wanted] > before[&wanted]
    };
    let counts = async || envoy.stats().await.unwrap().worker_connections("agents").unwrap();
    let (mut other_http, mut other_grpc) = (Vec::new(), Vec::new());
    let http = loop {
        let (before, client) = (counts().await, http2());
        client.get(envoy.data_url()).header("x-deployment-id", "h").send().await.unwrap();
        if on(worker, &before).await {
            break client;
        }
        other_http.push(client);
    };
    let grpc = loop {
        let (before, mut client) = (counts().await, streams::connect(envoy.data_addr()).await.unwrap());
        client.unary(request_to("s", Chunk::default()).unwrap()).await.unwrap();
        if on(worker, &before).await {
            break client;
        }
        other_grpc.push(client);
    };
    Connections { worker, http, grpc }
}

#[tokio::test]
async fn a_trapped_worker_recovers_and_nobody_else_notices() {
    let modules = harness::envoy::modules::locate_trap().unwrap();
    let envoy = Envoy::builder().modules(modules).start().await.unwrap();
    let ((s, _), h) = (streams::start("s").unwrap(), agents::echo::start("h").unwrap());
    envoy.routes().put_all([("s", s.port()), ("h", h.port())]).await.unwrap();
    let (hit, mut spared) = (connections_on(&envoy, 0).await, connections_on(&envoy, 1).await);
    assert_eq!((hit.worker, spared.worker), (0, 1));
    let (send, receive) = mpsc::channel(1);
    let mut stream = spared.grpc.chat(request_to("s", ReceiverStream::new(receive)).unwrap()).await.unwrap().into_inner();

    let epoch = envoy.routes().status().await.unwrap().json().unwrap()["epoch"].clone();
    let trapped = Instant::now();
    // The request that traps gets a response or a broken stream.
    drop(hit.http.get(envoy.data_url()).header("x-deployment-id", "h").header(TRAP, "now").send().await);
    let mut back = None;
    let mut number = 0;
    while trapped.elapsed() < Duration::from_secs(3) {
        // On the other worker, the stream goes on and calls get their responses. So does the route API.
        number += 1;
        send.send(Chunk { number, data: Vec::new() }).await.unwrap();
        assert_eq!(stream.message().await.unwrap().unwrap().number, number);
        let other = spared.http.get(envoy.data_url()).header("x-deployment-id", "h").send().await.unwrap();
        assert_eq!(other.status(), 200);
        assert_eq!(envoy.routes().status().await.unwrap().json().unwrap()["epoch"], epoch);
        let next = hit.http.get(envoy.data_url()).header("x-deployment-id", "h").send().await;
        let served = next.is_ok_and(|response| response.status() == 200);
        match back {
            None if served => back = Some(trapped.elapsed()),
            Some(_) => assert!(served, "the worker failed again after it was back"),
            None => {}
        }
    }
    let back = back.expect("the worker did not come back");
    println!("the trapped worker was back after {back:?}");
    assert!(back < Duration::from_secs(2), "{back:?}");
    let stats = envoy.stats().await.unwrap();
    assert!(stats.sum(r"^wasm\.pixell\.router\.vm_reload_success$").unwrap() > 0, "the VM did trap");
    assert_eq!(envoy.routes().routes().await.unwrap().json().unwrap()["routes"]["h"]["port"], h.port());
}

/// The route API's VM traps before each of its writes to the shared data. The map is whole, either the old one or the new one, the next
/// writer is not held up, and the data path does not notice.
#[tokio::test]
async fn a_writer_that_traps_leaves_a_whole_map_and_blocks_nobody() {
    let modules = harness::envoy::modules::locate_trap().unwrap();
    let envoy = Envoy::builder().modules(modules).start().await.unwrap();
    let h = agents::echo::start("h").unwrap();
    envoy.routes().put_all([("h", h.port())]).await.unwrap();
    let api = Client::builder().no_proxy().build().unwrap();
    let writing = |id: &str| api.put(format!("{}/v1/routes/{id}", envoy.api_url()));
    let data_path = http2();
    let (mut trapped, mut number) = (0, 0);
    loop {
        number += 1;
        let id = format!("trapped-{number}");
        let write =
            writing(&id).header("x-test-trap-write", number.to_string()).json(&serde_json::json!({"port": 20_000 + number}));
        let whole = write.send().await.is_ok_and(|response| response.status() == 201);
        // The next writer retries: Envoy restarts the VM at the worker's next request, and rejects requests until then.
        let started = Instant::now();
        let next = serde_json::json!({"port": 30_000 + number});
        while !writing(&format!("next-{number}")).json(&next).send().await.is_ok_and(|response| response.status().is_success())
        {
            assert!(started.elapsed() < Duration::from_secs(10), "blocked after a trap before write {number}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let read = || async {
            let map = envoy.routes().routes().await?.json().ok();
            Ok(map.filter(|map| map["routes"].is_object()))
        };
        let map = wait::until("the map", Duration::from_secs(10), read).await.unwrap();
        let routes = map["routes"].as_object().unwrap();
        assert_eq!(routes[&format!("next-{number}")]["port"], 30_000 + number, "{map}");
        assert!(!whole || routes.contains_key(&id), "{map}");
        let response = data_path.get(envoy.data_url()).header("x-deployment-id", "h").send().await.unwrap();
        assert_eq!(response.status(), 200);
        if whole {
            break;
        }
        trapped += 1;
    }
    println!("{trapped} traps");
    // At least before the write of a shard and before that of the head.
    assert!(trapped >= 2, "{trapped}");
    let stats = envoy.stats().await.unwrap();
    assert!(stats.sum(r"^wasm\.pixell\.admin\.vm_reload_success$").unwrap() >= trapped, "the VM did trap");
    assert_eq!(stats.sum(r"^wasm\.pixell\.router\.vm_reload_success$").unwrap(), 0);
}

/// The shipped modules do not contain the name of the header, so nobody can trap them with it.
#[test]
fn the_shipped_modules_have_no_trap() {
    let has = |directory: &str, name: &str| {
        let path = workspace::target().join(directory).join(name);
        let module = std::fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}: run `cargo xtask build` and `cargo xtask build --test-trap`", path.display())
        });
        module.windows(TRAP.len()).any(|bytes| bytes == TRAP.as_bytes())
    };
    assert!(has("pixell-trap", "router.wasm"), "the test build has no trap");
    for name in harness::envoy::modules::NAMES {
        assert!(!has("pixell", name), "{name} has the trap");
    }
}
