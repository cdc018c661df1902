//! Any id through any task: agents and clients see the same as without the hop.

use harness::agents;
use harness::proto::{self, Empty};
use serde_json::{Value, json};

use crate::tasks::Tasks;

/// The headers that an agent saw, in the order of their names, without those that differ between any two requests.
fn headers(seen: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = seen["headers"].as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1])));
    let mut all: Vec<_> = all.filter(|(name, _)| name != "x-request-id" && name != "host").collect();
    all.sort();
    all
}

#[tokio::test]
async fn an_agent_sees_the_same_through_each_task() {
    let tasks = Tasks::start(3).await;
    let agent = tasks.echo(1, "here").await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    for task in [0, 2] {
        tasks.fleet(task, &[("a", &[1])]).await;
    }
    tasks.fleet(1, &[]).await;
    for path in ["/x?y=z", "/agents/a/x//y;%2f?q=%20", "/agents/a", "/agents/a/-/a2a/x"] {
        let mut all = Vec::new();
        for task in 0..3 {
            let by_header = path == "/x?y=z";
            let response = tasks.send(task, path, move |request| {
                let request = if by_header { request.header("deployment-id", "a") } else { request };
                request
                    .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
                    .header("x-forwarded-for", "203.0.113.7")
                    .header("x-pixell-claims", "forged")
                    .header("x-pixell-addressed", "1")
                    .header("x-pixell-misdirected", "1")
            });
            let response = response.await;
            let mut seen = response.seen();
            assert!(response.headers.keys().all(|name| !name.as_str().starts_with("x-pixell-")), "{response:?}");
            seen["headers"] = json!(
                headers(&seen)
                    .into_iter()
                    .map(|(name, value)| {
                        // The client's address is not the same in each network.
                        let value = if name == "x-forwarded-for" {
                            value.replace(&format!("198.18.{task}.1"), "CLIENT")
                        } else {
                            value
                        };
                        let value = if name == "x-envoy-external-address" { "CLIENT".to_owned() } else { value };
                        [name, value]
                    })
                    .collect::<Vec<_>>()
            );
            all.push(seen);
        }
        assert_eq!(all[0], all[1], "{path}");
        assert_eq!(all[2], all[1], "{path}");
        assert!(!all[0].to_string().contains("x-pixell-"), "{}", all[0]);
    }
    // Both tasks tell of it by the same id.
    let response = tasks.send(0, "/agents/a/x", |request| request.header("x-request-id", "mine")).await;
    assert!(headers(&response.seen()).iter().all(|(name, _)| name != "x-pixell-addressed"));
    for (task, hop) in [(0, "out"), (1, "in")] {
        let lines = tasks.envoys[task].logged(1, |line| line["request_id"] == "mine").await.unwrap();
        assert_eq!((&lines[0]["hop"], &lines[0]["deployment_id"]), (&json!(hop), &json!("a")), "{}", lines[0]);
    }
    tasks.envoys[1].logged(1, |line| line["log"] == "access" && line["hop"].is_null()).await.unwrap();
    assert!(tasks.count(0, "wasmcustom.pixell_fleet_requests_total.hop.out").await >= 5);
    assert_eq!(tasks.count(1, "wasmcustom.pixell_fleet_misdirected_total.hop.in").await, 0);
}

#[tokio::test]
async fn redirects_and_cards_lead_back_to_the_task_that_the_client_reached() {
    let tasks = Tasks::start(2).await;
    let agent = tasks.agent(1, || agents::page::start("page", 0)).await;
    let card = tasks.agent(1, || {
        agents::http::start("card", 0, agents::http::Version::Http1, |request| async move {
            let card = request.uri().path().ends_with("agent-card.json");
            let body = if card { r#"{"url":"http://localhost:1/a2a"}"# } else { "" };
            let response = hyper::Response::builder().header("content-type", "application/json");
            let response = if card { response } else { response.status(302).header("location", "/next") };
            response.body(agents::http::whole(body)).unwrap()
        })
    });
    let card = card.await;
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

#[tokio::test]
async fn grpc_goes_through_with_status_and_rejections() {
    let tasks = Tasks::start(2).await;
    let agent = tasks.agent(1, || agents::grpc::start("g")).await;
    tasks.routes(1, json!({ "g": agent.port() })).await;
    tasks.fleet(0, &[("g", &[1]), ("stale", &[1]), ("gone", &[2])]).await;
    let address = tasks.data(0);
    let calls = move || async move {
        let mut client = proto::connect(address).await.unwrap();
        let mut call = async |id| {
            let result = client.health(proto::request_to(id, Empty {}).unwrap()).await;
            result.map(|response| response.into_inner().message).map_err(|status| {
                let error = status.metadata().get("x-pixell-error").and_then(|code| code.to_str().ok().map(str::to_owned));
                assert!(status.metadata().get("x-pixell-misdirected").is_none());
                (status.code(), error.unwrap_or_default())
            })
        };
        [call("g").await, call("stale").await, call("gone").await]
    };
    let unavailable = |code: &str| Err((tonic::Code::Unavailable, code.to_owned()));
    let expected = [Ok("g".to_owned()), unavailable("deployment_moved"), unavailable("peer_unreachable")];
    assert_eq!(tasks.fabric.outside().run(calls).await.unwrap(), expected);
}
