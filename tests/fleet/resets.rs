//! Clients that cancel share a connection between two tasks with all others, and cannot end it.

use std::time::Duration;

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
        let cancelled = stream::iter(0..1200).map(|_| request()).buffer_unordered(40);
        cancelled.filter(|response| std::future::ready(response.as_ref().is_err_and(reqwest::Error::is_timeout))).count().await
    };
    let (answer, cancelled) = tokio::join!(tasks.ask(0, "a"), tasks.fabric.outside().run(cancel));
    assert!(cancelled.unwrap() > 1000);
    // Each of both workers of task 0 has a connection of its own.
    assert!(tasks.count(1, "http.peers.downstream_rq_rx_reset").await > 800);
    assert_eq!(tasks.count(1, "http.peers.downstream_rq_too_many_premature_resets").await, 0);
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"), "{answer:?}");
}
