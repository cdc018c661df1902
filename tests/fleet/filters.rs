//! Tasks of one fleet with different filters, as there are while a rolling deployment changes `PIXELL_FILTER`.

use std::cell::Cell;

use harness::agents;
use launcher::filter::Filter;
use reqwest::RequestBuilder;
use serde_json::json;

use crate::hops::{grpc_calls, metrics_name_nobody, redirecting, seen};
use crate::tasks::Tasks;

/// The filter of each task.
const FILTERS: [Filter; 2] = [Filter::Wasm, Filter::Native];

/// The ids of a task's agents, and one that its peer still believes to be there.
struct Ids {
    echo: &'static str,
    card: &'static str,
    grpc: &'static [&'static str],
    stale: &'static str,
}

const IDS: [Ids; 2] = [
    Ids { echo: "echo-0", card: "card-0", grpc: &["grpc-0", "stale-0"], stale: "stale-0" },
    Ids { echo: "echo-1", card: "card-1", grpc: &["grpc-1", "stale-1"], stale: "stale-1" },
];

#[tokio::test]
async fn tasks_with_different_filters_serve_each_others_agents() {
    let started = Cell::new(0);
    let next = || FILTERS[started.replace(started.get() + 1)];
    let tasks = Tasks::changed(2, |_| Vec::new(), |builder| builder.filter(next())).await;
    for (envoy, filter) in tasks.envoys.iter().zip(FILTERS) {
        let stats = envoy.stats().await.unwrap();
        let has = |pattern| !stats.matching(pattern).unwrap().is_empty();
        let is_native = (has(r"^wasmcustom\.pixell_panics_total$"), has(r"^wasm\..*\.vm_reload")) == (true, false);
        assert_eq!(is_native, filter == Filter::Native, "{stats:?}");
    }
    let mut agents = Vec::new();
    for (task, ids) in IDS.iter().enumerate() {
        let echo = tasks.echo(task, ids.echo).await;
        let card = redirecting(&tasks, task).await;
        let grpc = tasks.agent(task, || agents::grpc::start(ids.grpc[0])).await;
        tasks.routes(task, json!({ ids.echo: echo.port(), ids.card: card.port(), ids.grpc[0]: grpc.port() })).await;
        let all = [ids.echo, ids.card, ids.grpc[0], ids.stale].map(|id| (id, [task]));
        tasks.fleet(1 - task, &all.each_ref().map(|(id, peers)| (*id, &peers[..]))).await;
        agents.extend([echo, card, grpc]);
    }
    for (owner, ids) in IDS.iter().enumerate() {
        let edge = 1 - owner;
        // Client and agent see the same through either task.
        let path = format!("/agents/{}/x//y;%2f?q=%20", ids.echo);
        for (path, header, expected) in [("/x?y=z", ids.echo, "/x?y=z"), (&path, "", "/x//y;%2f?q=%20")] {
            let mut both = Vec::new();
            for task in 0..2 {
                let change = move |request: RequestBuilder| {
                    if header.is_empty() { request } else { request.header("x-deployment-id", header) }
                };
                both.push(seen(task, &tasks.send(task, path, change).await));
            }
            assert_eq!(both[0], both[1], "{path}");
            assert_eq!((&both[0]["agent"], &both[0]["path"]), (&json!(ids.echo), &json!(expected)), "{both:?}");
        }
        let prefix = format!("/agents/{}", ids.card);
        let seen = tasks.get_both(&format!("{prefix}/x"), &[]).await;
        assert_eq!(seen.header("location"), Some(&*format!("{prefix}/next")), "{seen:?}");
        let seen = tasks.get_both(&format!("{prefix}/.well-known/agent-card.json"), &[]).await;
        assert!(seen.body.contains(&format!("http://h.test{prefix}/")), "{seen:?}");
        let moved = Err((tonic::Code::Unavailable, "deployment_moved".to_owned()));
        assert_eq!(grpc_calls(&tasks, edge, ids.grpc).await, [Ok(ids.grpc[0].to_owned()), moved]);
        tasks.ask(edge, ids.stale).await.is_rejected("deployment_moved");
    }
    for task in 0..2 {
        let count = async |name: &str| tasks.count(task, &format!("wasmcustom.pixell_fleet_{name}")).await;
        assert!(count("requests_total.hop.out").await >= 7);
        assert!(count("misdirected_total.hop.in").await >= 2);
        assert_eq!(tasks.envoys[task].stats().await.unwrap().crashes().unwrap(), 0);
    }
    let all: Vec<_> = IDS.iter().flat_map(|ids| [ids.echo, ids.card, ids.grpc[0], ids.stale]).collect();
    metrics_name_nobody(&tasks, &all).await;
}
