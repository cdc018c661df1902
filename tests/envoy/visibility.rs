//! The promise of the route API: once a write has its response, every later request sees it, on every worker.

use harness::envoy::is_native;
use harness::proto::{DEPLOYMENT_ID, Empty};
use harness::{Agent, Envoy, agents, proto};
use reqwest::Client;
use serde_json::{Value, json};

const MOVES: usize = 200;
const CONNECTIONS_PER_WORKER: usize = 4;
const REQUESTS_PER_MOVE: usize = 20;

/// A client that keeps one connection open, to one worker.
struct Connection {
    client: Client,
    url: String,
}

impl Connection {
    async fn open(envoy: &Envoy) -> Self {
        let client = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let connection = Self { client, url: envoy.data_url() };
        connection.ask("warm-up").await;
        connection
    }

    async fn ask(&self, id: &str) -> reqwest::Response {
        self.client.get(&self.url).header(DEPLOYMENT_ID, id).send().await.unwrap()
    }

    async fn agent(&self, id: &str) -> String {
        let seen: Value = self.ask(id).await.json().await.unwrap();
        seen["agent"].as_str().unwrap_or_else(|| panic!("no agent responded: {seen}")).to_owned()
    }
}

/// Opens connections until each of the two workers has its share. Returns them by worker.
async fn connections(envoy: &Envoy) -> [Vec<Connection>; 2] {
    let mut workers = [Vec::new(), Vec::new()];
    // Envoy balances its workers' connections, so this takes far fewer than 200.
    for _ in 0..200 {
        let before = envoy.stats().await.unwrap().worker_connections("agents").unwrap();
        let connection = Connection::open(envoy).await;
        let after = envoy.stats().await.unwrap().worker_connections("agents").unwrap();
        let worker = after.keys().find(|worker| after[*worker] > before[*worker]).copied().unwrap();
        let share = &mut workers[usize::try_from(worker).unwrap()];
        if share.len() < CONNECTIONS_PER_WORKER {
            share.push(connection);
        }
        if workers.iter().all(|share| share.len() == CONNECTIONS_PER_WORKER) {
            return workers;
        }
    }
    panic!("a worker got too few connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_after_the_response_to_a_write_sees_it_on_both_workers() {
    let envoy = Envoy::builder().start().await.unwrap();
    let [a, b] = ["a", "b"].map(|name| agents::echo::start(name).unwrap());
    envoy.routes().put_all([("moving", a.port())]).await.unwrap();
    check_moves(&envoy, &[&b, &a], &["wasmcustom.pixell_route_map_changes"]).await;
}

/// If Envoy's configuration rejects the gauge, the signal goes through shared data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_if_the_gauge_is_switched_off() {
    let without_gauge =
        "stats_config: { stats_matcher: { exclusion_list: { patterns: [{ prefix: wasmcustom. }] } } }\n\nstatic_resources:\n";
    let envoy = Envoy::builder().edit("static_resources:\n", without_gauge).start().await.unwrap();
    let [a, b] = ["a", "b"].map(|name| agents::echo::start(name).unwrap());
    envoy.routes().put_all([("moving", a.port())]).await.unwrap();
    check_moves(&envoy, &[&b, &a], &[]).await;
}

/// Moves one id between two agents. After the response to each write, sends requests over connections of both workers.
async fn check_moves(envoy: &Envoy, agents: &[&Agent], gauges: &[&str]) {
    let stats = envoy.stats().await.unwrap();
    let found = stats.matching("^wasmcustom\\.").unwrap();
    assert_eq!(found.iter().map(|(name, _)| *name).filter(|name| name.ends_with("changes")).collect::<Vec<_>>(), gauges);
    let workers = connections(envoy).await;
    let routes = envoy.routes();
    let mut sent = [0; 2];
    for (_, agent) in (0..MOVES).zip(agents.iter().cycle()) {
        routes.put_route("moving", &json!(agent.port())).await.unwrap().expect(reqwest::StatusCode::OK).unwrap();
        let requests = (0..REQUESTS_PER_MOVE).map(|n| {
            let (worker, connection) = (n % 2, n / 2 % CONNECTIONS_PER_WORKER);
            sent[worker] += 1;
            workers[worker][connection].agent("moving")
        });
        for response in futures_util::future::join_all(requests).await {
            assert_eq!(response, agent.name());
        }
    }
    assert_eq!(sent, [MOVES * REQUESTS_PER_MOVE / 2; 2]);
    if !(gauges.is_empty() && is_native()) {
        assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
    }
}

/// A request in flight keeps its agent when its route is removed.
#[tokio::test]
async fn a_write_does_not_touch_requests_in_flight() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::grpc::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    let text = "x".repeat(8 * 1024 * 1024);
    let action = proto::ActionRequest {
        action: "echo".to_owned(),
        parameters: [("text".to_owned(), text.clone())].into(),
        request_id: "1".to_owned(),
    };
    let calls = (0..4).map(|_| {
        let mut client = client.clone();
        let request = proto::request_to("a", action.clone()).unwrap();
        async move { client.invoke(request).await }
    });
    let removal = async {
        envoy.routes().delete_route("a").await.unwrap().expect(reqwest::StatusCode::NO_CONTENT).unwrap();
    };
    let (responses, ()) = tokio::join!(futures_util::future::join_all(calls), removal);
    // Each call either came before the removal and succeeded, or came after it and was rejected.
    for response in responses {
        match response {
            Ok(result) => assert_eq!(result.into_inner().result, text),
            Err(status) => assert_eq!(status.code(), tonic::Code::NotFound, "{status}"),
        }
    }
    let later = client.health(proto::request_to("a", Empty {}).unwrap()).await.unwrap_err();
    assert_eq!(later.code(), tonic::Code::NotFound);
}
