//! The promise of the fleet API: a map is published in one step, and once its write has a response, every later request sees it, on every worker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{join, join_all};
use harness::proto::DEPLOYMENT_ID;
use reqwest::{Client, Method};
use serde_json::{Map, Value, json};

use crate::tasks::Tasks;

/// How many ids the map has. All of them go from one peer to the other with each write.
const IDS: usize = 500;
const WRITES: usize = 100;
/// The ids that clients call. Each has an agent in both peers.
const CALLED: [usize; 4] = [0, 123, 321, 499];
const CONNECTIONS_PER_WORKER: usize = 2;
const REQUESTS_PER_WRITE: usize = 16;

fn id(number: usize) -> String {
    format!("id-{number}")
}

/// A client that keeps one connection open, to one worker.
#[derive(Clone)]
struct Connection {
    client: Client,
    url: String,
}

impl Connection {
    /// The agent that serves an id.
    async fn agent(&self, number: usize) -> String {
        let response = self.client.get(&self.url).header(DEPLOYMENT_ID, id(number)).send().await.unwrap();
        let seen: Value = response.json().await.unwrap();
        seen["agent"].as_str().unwrap_or_else(|| panic!("no agent responded: {seen}")).to_owned()
    }
}

/// Opens connections to task 0 until each of its two workers has its share.
async fn connections(tasks: &Tasks) -> Vec<Connection> {
    let (mut shares, mut connections) = ([0; 2], Vec::new());
    let by_worker = async || tasks.envoys[0].stats().await.unwrap().worker_connections("agents").unwrap();
    // Envoy balances its workers' connections, so this takes far fewer than 100.
    for _ in 0..100 {
        let before = by_worker().await;
        let client = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let connection = Connection { client, url: format!("http://{}/", tasks.data(0)) };
        let opened = connection.clone();
        tasks.fabric.outside().run(move || async move { opened.agent(0).await }).await.unwrap();
        let after = by_worker().await;
        let worker = after.keys().find(|worker| after[*worker] > before[*worker]).copied().unwrap();
        let share = &mut shares[usize::try_from(worker).unwrap()];
        if *share < CONNECTIONS_PER_WORKER {
            *share += 1;
            connections.push(connection);
        }
        if shares == [CONNECTIONS_PER_WORKER; 2] {
            return connections;
        }
    }
    panic!("a worker got too few connections");
}

/// A map in which this peer serves all ids.
async fn publish(tasks: &Tasks, peer: usize) {
    let peers: Map<_, _> =
        [1, 2].map(|task| (format!("task-{task}"), json!({ "host": tasks.fabric.address(task) }))).into_iter().collect();
    let routes: Map<_, _> = (0..IDS).map(|number| (id(number), json!([format!("task-{peer}")]))).collect();
    tasks.put(0, "/v1/fleet", json!({ "peers": peers, "routes": routes })).await;
}

/// Calls over each connection, one request after the other, until the write `is_done`. Returns the agents that each of them saw.
async fn watch(connections: Vec<Connection>, is_done: Arc<AtomicBool>) -> Vec<Vec<String>> {
    let watch = connections.into_iter().map(|connection| {
        let is_done = &is_done;
        async move {
            let mut seen = Vec::new();
            for number in CALLED.into_iter().cycle() {
                if is_done.load(Ordering::SeqCst) {
                    break;
                }
                seen.push(connection.agent(number).await);
            }
            seen
        }
    });
    join_all(watch).await
}

/// Reads the map all the time until the writes are done. Returns how many maps it saw.
async fn read(tasks: &Tasks, are_done: &AtomicBool) -> usize {
    let mut count = 0;
    while !are_done.load(Ordering::SeqCst) {
        let routes = tasks.envoys[0].routes();
        let get = move || async move { harness::RouteApi::send(routes.request(Method::GET, "/v1/fleet")).await.unwrap() };
        let map = tasks.fabric.task(0).unwrap().run(get).await.unwrap().json().unwrap();
        let routes = map["routes"].as_object().unwrap();
        let peers: BTreeSet<_> = routes.values().map(ToString::to_string).collect();
        assert_eq!((routes.len(), peers.len()), (IDS, 1), "a map of two writes: {peers:?}");
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_after_the_response_to_a_write_sees_it_on_both_workers() {
    let tasks = Tasks::start(3).await;
    let mut agents = Vec::new();
    for (task, name) in [(1, "1"), (2, "2")] {
        let mut routes = Map::new();
        for number in CALLED {
            let agent = tasks.echo(task, name).await;
            routes.insert(id(number), agent.port().into());
            agents.push(agent);
        }
        tasks.routes(task, routes.into()).await;
    }
    tasks.routes(0, json!({})).await;
    publish(&tasks, 1).await;
    let connections = connections(&tasks).await;
    let are_done = AtomicBool::new(false);
    let writes = async {
        let mut before = 0;
        for peer in [2, 1].into_iter().cycle().take(WRITES) {
            let is_done = Arc::new(AtomicBool::new(false));
            let (watched, told) = (connections.clone(), Arc::clone(&is_done));
            let meanwhile = tasks.fabric.outside().run(move || watch(watched, told));
            let write = async {
                publish(&tasks, peer).await;
                is_done.store(true, Ordering::SeqCst);
            };
            let (meanwhile, ()) = join(meanwhile, write).await;
            // A worker sees the write of all ids at once: after the new agent of one, never the old one of another.
            for seen in meanwhile.unwrap() {
                before += seen.iter().filter(|agent| **agent != peer.to_string()).count();
                assert!(seen.is_sorted_by_key(|agent| *agent == peer.to_string()), "{seen:?}, while {peer} gets all ids");
            }
            let asked = connections.clone();
            let ask = move || async move {
                let requests = (0..REQUESTS_PER_WRITE)
                    .map(|number| asked[number % asked.len()].agent(CALLED[number / asked.len() % CALLED.len()]));
                join_all(requests).await
            };
            let seen = tasks.fabric.outside().run(ask).await.unwrap();
            assert_eq!(seen, vec![peer.to_string(); REQUESTS_PER_WRITE]);
        }
        are_done.store(true, Ordering::SeqCst);
        before
    };
    let (before, maps) = join(writes, read(&tasks, &are_done)).await;
    assert!(before > 0 && maps > 10, "{before} requests before a write, {maps} maps");
    for task in [1, 2] {
        assert_eq!(tasks.count(task, "wasmcustom.pixell_fleet_misdirected_total.hop.in").await, 0);
    }
}
