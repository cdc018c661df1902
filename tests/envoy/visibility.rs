//! The promise of the route API: once a write is answered, every later request sees it, on every worker.

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
        seen["agent"].as_str().unwrap_or_else(|| panic!("no agent answered: {seen}")).to_owned()
    }
}

/// Opens connections until each of the two workers has its share, and gives them worker by worker.
async fn connections(envoy: &Envoy) -> [Vec<Connection>; 2] {
    let mut workers = [Vec::new(), Vec::new()];
    // The kernel spreads connections by chance; that one worker gets none of 200 does not happen.
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
async fn every_request_after_an_answered_write_sees_it_on_both_workers() {
    let envoy = Envoy::builder().start().await.unwrap();
    let [a, b] = ["a", "b"].map(|name| agents::echo::start(name).unwrap());
    envoy.routes().put_all([("moving", a.port())]).await.unwrap();
    check_moves(&envoy, &[&b, &a], &["wasmcustom.pixell_route_map_changes"]).await;
}

/// Where Envoy's configuration rejects the gauge, the signal goes through shared data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_where_the_gauge_is_switched_off() {
    let without_gauge =
        "stats_config: { stats_matcher: { exclusion_list: { patterns: [{ prefix: wasmcustom. }] } } }\n\nstatic_resources:\n";
    let envoy = Envoy::builder().edit("static_resources:\n", without_gauge).start().await.unwrap();
    let [a, b] = ["a", "b"].map(|name| agents::echo::start(name).unwrap());
    envoy.routes().put_all([("moving", a.port())]).await.unwrap();
    check_moves(&envoy, &[&b, &a], &[]).await;
}

/// Moves one id between two agents and asks over connections of both workers after each answer.
async fn check_moves(envoy: &Envoy, agents: &[&Agent], gauges: &[&str]) {
    let stats = envoy.stats().await.unwrap();
    let found = stats.matching("^wasmcustom\\.").unwrap();
    assert_eq!(found.iter().map(|(name, _)| *name).filter(|name| name.ends_with("changes")).collect::<Vec<_>>(), gauges);
    let workers = connections(envoy).await;
    let routes = envoy.routes();
    let mut asked = [0; 2];
    for (_, agent) in (0..MOVES).zip(agents.iter().cycle()) {
        routes.put_route("moving", &json!(agent.port())).await.unwrap().expect(reqwest::StatusCode::OK).unwrap();
        let requests = (0..REQUESTS_PER_MOVE).map(|n| {
            let (worker, connection) = (n % 2, n / 2 % CONNECTIONS_PER_WORKER);
            asked[worker] += 1;
            workers[worker][connection].agent("moving")
        });
        for answer in futures_util::future::join_all(requests).await {
            assert_eq!(answer, agent.name());
        }
    }
    assert_eq!(asked, [MOVES * REQUESTS_PER_MOVE / 2; 2]);
    assert_eq!(envoy.stats().await.unwrap().vm_reloads().unwrap(), 0);
}

/// A stream that is under way when its route goes keeps its agent.
#[tokio::test]
async fn requests_under_way_are_not_touched_by_a_write() {
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
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), removal);
    // Each call either was there before the removal and went through whole, or came after it and was refused.
    for answer in answers {
        match answer {
            Ok(result) => assert_eq!(result.into_inner().result, text),
            Err(status) => assert_eq!(status.code(), tonic::Code::NotFound, "{status}"),
        }
    }
    let later = client.health(proto::request_to("a", Empty {}).unwrap()).await.unwrap_err();
    assert_eq!(later.code(), tonic::Code::NotFound);
}
