//! Any id through any task: agents and clients see the same as without the hop.

use harness::proto::{self, Empty};
use harness::{Agent, agents};
use serde_json::{Value, json};

use crate::tasks::{Response, Tasks};

/// The headers that an agent saw, in the order of their names, without those that differ between any two requests.
fn headers(seen: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = seen["headers"].as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1])));
    let mut all: Vec<_> = all.filter(|(name, _)| name != "x-request-id" && name != "host").collect();
    all.sort();
    all
}

/// What the agent `echo` saw of a request to a task, in a form that is the same through each task.
pub(crate) fn seen(task: usize, response: &Response) -> Value {
    let mut seen = response.seen();
    let of_headers = headers(&seen).into_iter().map(|(name, value)| {
        // The client's address is not the same in each network.
        let value = match name.as_str() {
            "x-forwarded-for" => value.replace(&format!("198.18.{task}.1"), "CLIENT"),
            "x-envoy-external-address" => "CLIENT".to_owned(),
            _ => value,
        };
        [name, value]
    });
    seen["headers"] = json!(of_headers.collect::<Vec<_>>());
    seen
}

/// Checks that nothing that a task's Envoy counts, by what `/stats/prometheus` shows, names a peer, its address or one of these ids.
pub(crate) async fn metrics_name_nobody(tasks: &Tasks, ids: &[&str]) {
    for task in 0..tasks.envoys.len() {
        let url = format!("http://{}:9901/stats/prometheus", tasks.fabric.address(task));
        let scrape = move || async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            client.get(url).send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
        };
        let scrape = tasks.fabric.outside().run(scrape).await.unwrap();
        // Envoy writes a dot in a name as an underscore.
        let addresses = (0..tasks.envoys.len()).map(|task| tasks.fabric.address(task).to_string());
        let of_tasks = addresses.enumerate().flat_map(|(number, address)| {
            [format!("task-{number}"), format!("task_{number}"), address.replace('.', "_"), address]
        });
        for name in of_tasks.chain(ids.iter().map(|id| (*id).to_owned())).chain(ids.iter().map(|id| id.replace('-', "_"))) {
            let line = scrape.lines().find(|line| line.contains(&name));
            assert_eq!(line, None, "task {task} names {name}");
        }
        // Hops were counted, so this is the right page.
        let counted = |line: &str| line.starts_with("pixell_fleet_requests_total{") && !line.ends_with(" 0");
        assert!(scrape.lines().any(counted), "{scrape}");
    }
}

#[tokio::test]
async fn an_agent_sees_the_same_through_each_task() {
    const ID: &str = "echo-1";
    let tasks = Tasks::start(3).await;
    let agent = tasks.echo(1, "here").await;
    tasks.routes(1, json!({ ID: agent.port() })).await;
    for task in [0, 2] {
        tasks.fleet(task, &[(ID, &[1])]).await;
    }
    tasks.fleet(1, &[]).await;
    for path in ["/x?y=z", "/agents/echo-1/x//y;%2f?q=%20", "/agents/echo-1", "/agents/echo-1/-/a2a/x"] {
        let mut all = Vec::new();
        for task in 0..3 {
            let by_header = path == "/x?y=z";
            let response = tasks.send(task, path, move |request| {
                let request = if by_header { request.header("deployment-id", ID) } else { request };
                request
                    .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
                    .header("x-forwarded-for", "203.0.113.7")
                    .header("x-pixell-claims", "forged")
                    .header("x-pixell-addressed", "1")
                    .header("x-pixell-misdirected", "1")
            });
            let response = response.await;
            assert!(response.headers.keys().all(|name| !name.as_str().starts_with("x-pixell-")), "{response:?}");
            all.push(seen(task, &response));
        }
        assert_eq!(all[0], all[1], "{path}");
        assert_eq!(all[2], all[1], "{path}");
        assert!(!all[0].to_string().contains("x-pixell-"), "{}", all[0]);
    }
    // Both tasks tell of it by the same id.
    let response = tasks.send(0, "/agents/echo-1/x", |request| request.header("x-request-id", "mine")).await;
    assert!(headers(&response.seen()).iter().all(|(name, _)| name != "x-pixell-addressed"));
    for (task, hop) in [(0, "out"), (1, "in")] {
        let lines = tasks.envoys[task].logged(1, |line| line["request_id"] == "mine").await.unwrap();
        assert_eq!((&lines[0]["hop"], &lines[0]["deployment_id"]), (&json!(hop), &json!(ID)), "{}", lines[0]);
    }
    tasks.envoys[1].logged(1, |line| line["log"] == "access" && line["hop"].is_null()).await.unwrap();
    assert!(tasks.count(0, "wasmcustom.pixell_fleet_requests_total.hop.out").await >= 5);
    assert_eq!(tasks.count(1, "wasmcustom.pixell_fleet_misdirected_total.hop.in").await, 0);
    metrics_name_nobody(&tasks, &[ID]).await;
}

/// An agent with a card that names the agent itself; its other responses are redirects.
pub(crate) async fn redirecting(tasks: &Tasks, task: usize) -> Agent {
    let make = || {
        agents::http::start("card", 0, agents::http::Version::Http1, |request| async move {
            let card = request.uri().path().ends_with("agent-card.json");
            let body = if card { r#"{"url":"http://localhost:1/a2a"}"# } else { "" };
            let response = hyper::Response::builder().header("content-type", "application/json");
            let response = if card { response } else { response.status(302).header("location", "/next") };
            response.body(agents::http::whole(body)).unwrap()
        })
    };
    tasks.agent(task, make).await
}

#[tokio::test]
async fn redirects_and_cards_lead_back_to_the_task_that_the_client_reached() {
    let tasks = Tasks::start(2).await;
    let agent = tasks.agent(1, || agents::page::start("page", 0)).await;
    let card = redirecting(&tasks, 1).await;
    tasks.routes(1, json!({ "p": agent.port(), "c": card.port() })).await;
    tasks.fleet(0, &[("p", &[1]), ("c", &[1])]).await;
    let response = tasks.send(0, "/agents/c/x", |request| request).await;
    assert_eq!(response.header("location"), Some("/agents/c/next"), "{response:?}");
    let response = tasks.send(0, "/agents/c/.well-known/agent-card.json", |request| request).await;
    let host = format!("http://{}/agents/c/", tasks.data(0));
    assert!(response.body.contains(&host), "{response:?}");
    // A header named it: nothing is changed.
    let response = tasks.send(0, "/x", |request| request.header("x-deployment-id", "c")).await;
    assert_eq!(response.header("location"), Some("/next"), "{response:?}");
    assert_eq!(tasks.send(0, "/agents/p/ui/", |request| request).await.status, 200);
}

/// What gRPC calls to these ids get through a task: the agent's name, or the status and the code of the rejection.
pub(crate) async fn grpc_calls(
    tasks: &Tasks,
    task: usize,
    ids: &'static [&'static str],
) -> Vec<Result<String, (tonic::Code, String)>> {
    let address = tasks.data(task);
    let calls = move || async move {
        let mut client = proto::connect(address).await.unwrap();
        let mut results = Vec::new();
        for id in ids {
            let result = client.health(proto::request_to(id, Empty {}).unwrap()).await;
            results.push(result.map(|response| response.into_inner().message).map_err(|status| {
                let error = status.metadata().get("x-pixell-error").and_then(|code| code.to_str().ok().map(str::to_owned));
                assert!(status.metadata().get("x-pixell-misdirected").is_none());
                (status.code(), error.unwrap_or_default())
            }));
        }
        results
    };
    tasks.fabric.outside().run(calls).await.unwrap()
}

#[tokio::test]
async fn grpc_goes_through_with_status_and_rejections() {
    let tasks = Tasks::start(2).await;
    let agent = tasks.agent(1, || agents::grpc::start("g")).await;
    tasks.routes(1, json!({ "g": agent.port() })).await;
    tasks.fleet(0, &[("g", &[1]), ("stale", &[1]), ("gone", &[2])]).await;
    let unavailable = |code: &str| Err((tonic::Code::Unavailable, code.to_owned()));
    let expected = [Ok("g".to_owned()), unavailable("deployment_moved"), unavailable("peer_unreachable")];
    assert_eq!(grpc_calls(&tasks, 0, &["g", "stale", "gone"]).await, expected);
}
