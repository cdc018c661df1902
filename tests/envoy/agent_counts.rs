//! What Envoy counts for each agent's port, `GET /clusters`: the status page shows by it which route fails and which is idle.

use std::time::Duration;

use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents, wait};
use serde_json::Value;

use crate::access_log::client;
use crate::ends::{TIMES, close_websockets, websocket_agent};

/// The sum over all clusters of agents of what Envoy counts as `name` for `port`; `None` if it does not know the port.
async fn count(envoy: &Envoy, port: u16, name: &str) -> anyhow::Result<Option<u64>> {
    let response = envoy.routes().get("/clusters?format=json&filter=%5Eagents_").await?.json()?;
    let clusters = response["cluster_statuses"].as_array().unwrap();
    assert!(clusters.iter().all(|cluster| cluster["name"].as_str().unwrap().starts_with("agents_")), "{response}");
    let hosts = clusters.iter().flat_map(|cluster| cluster["host_statuses"].as_array().into_iter().flatten());
    let values = hosts.filter(|host| host["address"]["socket_address"]["port_value"] == port).map(|host| {
        let stat = host["stats"].as_array().unwrap().iter().find(|stat| stat["name"] == name);
        stat.unwrap().get("value").and_then(Value::as_str).map_or(0, |text| text.parse::<u64>().unwrap())
    });
    Ok(values.reduce(|a, b| a + b))
}

async fn becomes(envoy: &Envoy, port: u16, name: &str, expected: u64) {
    let reached = || async { Ok((count(envoy, port, name).await? == Some(expected)).then_some(())) };
    if let Err(error) = wait::until(name, Duration::from_secs(10), reached).await {
        panic!("{error}: {:?}, not {expected}", count(envoy, port, name).await);
    }
}

#[tokio::test]
async fn requests_in_flight_errors_and_failed_connections_are_told_for_each_port() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (agent, gate) = agents::gate::start("a").unwrap();
    let gone = agents::echo::start("gone").unwrap();
    let (port, dead) = (agent.port(), gone.port());
    envoy.routes().put_all([("a", port), ("gone", dead), ("idle", 5000)]).await.unwrap();
    gone.kill();
    let ask = async |id: &str, path: &str| {
        let url = format!("{}{path}", envoy.data_url());
        client().get(url).header(DEPLOYMENT_ID, id).send().await.unwrap().status().as_u16()
    };
    assert_eq!((ask("a", "/").await, ask("a", "/fails").await, ask("gone", "/").await), (200, 500, 503));
    for (name, expected) in [("rq_success", 1), ("rq_error", 1), ("cx_connect_fail", 0), ("rq_active", 0)] {
        becomes(&envoy, port, name, expected).await;
    }
    assert!(count(&envoy, dead, "cx_connect_fail").await.unwrap().is_some_and(|failed| failed > 0));
    assert_eq!(count(&envoy, dead, "rq_success").await.unwrap(), Some(0));
    assert_eq!(count(&envoy, 5000, "rq_active").await.unwrap(), None, "without traffic there is no entry");

    let held = tokio::join!(ask("a", "/held"), ask("a", "/held"), async {
        becomes(&envoy, port, "rq_active", 2).await;
        gate.open();
    });
    assert_eq!(held, (200, 200, ()));
    becomes(&envoy, port, "rq_active", 0).await;
}

/// A WebSocket ends with its connection, which is no error of its agent.
#[tokio::test]
async fn a_websocket_that_its_agent_closes_is_no_error() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = websocket_agent();
    envoy.routes().put_all([("ws", agent.port())]).await.unwrap();
    close_websockets(&envoy).await;
    becomes(&envoy, agent.port(), "rq_total", u64::try_from(TIMES).unwrap()).await;
    becomes(&envoy, agent.port(), "rq_active", 0).await;
    assert_eq!(count(&envoy, agent.port(), "rq_error").await.unwrap(), Some(0));
}
