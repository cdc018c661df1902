//! Clients that cancel share a connection between two tasks with all others, and cannot end it.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use harness::agents;
use serde_json::json;

use crate::tasks::Tasks;

#[tokio::test]
async fn a_client_that_cancels_ends_its_own_requests_only() {
    let tasks = Tasks::start(2).await;
    let agent = tasks.agent(1, || {
        agents::http::start("slow", 0, agents::http::Version::Http1, |_| async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            hyper::Response::new(agents::http::whole("done"))
        })
    });
    let agent = agent.await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    let url = format!("http://{}/", tasks.data(0));
    let cancel = move || async move {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = || client.get(&url).header("x-deployment-id", "a").timeout(Duration::from_millis(100)).send();
        stream::iter(0..400).map(|_| request()).buffer_unordered(40).for_each(|_| std::future::ready(())).await;
    };
    let cancel_many = async {
        let started = Instant::now();
        // On a busy machine some are cancelled before they have got that far. Each of both workers of task 0 has a connection of its own.
        while tasks.count(1, "http.peers.downstream_rq_rx_reset").await <= 800 {
            assert!(started.elapsed() < Duration::from_secs(60), "hardly any cancelled request has got to its agent's task");
            tasks.fabric.outside().run(cancel.clone()).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(tasks.ask(0, "a"), cancel_many);
    assert_eq!(tasks.count(1, "http.peers.downstream_rq_too_many_premature_resets").await, 0);
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"), "{answer:?}");
}
