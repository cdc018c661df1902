//! A panic of the native filter before the cluster of peers fails only the request in which it happened.

use harness::envoy::modules::locate_trap;
use launcher::filter::Filter;
use reqwest::Client;
use serde_json::json;

use crate::hooks::{self, BODY, CARD, Got, OF_A_FLEET, Stage, TRAP, with_trailers};
use crate::tasks::Tasks;

/// Two tasks, the first of which sends requests to the second.
struct Edge(Tasks);

impl Stage for Edge {
    async fn ask(&self, _: &str, _: &str, trap: Option<&str>) -> Got {
        let (url, trap) = (format!("http://{}{CARD}", self.0.data(0)), trap.map(str::to_owned));
        let ask = move || async move {
            let client = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
            let request = client.get(url).body(with_trailers(BODY));
            Got::of(trap.into_iter().fold(request, |request, trap| request.header(TRAP, trap))).await
        };
        self.0.fabric.outside().run(ask).await.unwrap()
    }

    async fn panics(&self) -> u64 {
        // What no stream of the data path could count is counted by the next call of the route API.
        self.0.routes(0, json!({})).await;
        self.0.count(0, "wasmcustom.pixell_panics_total").await
    }

    fn log(&self) -> String {
        self.0.envoys[0].log()
    }
}

#[tokio::test]
async fn every_hook_before_a_peer_survives_a_panic() {
    let tasks = Tasks::changed(
        2,
        |_| Vec::new(),
        |builder| builder.filter(Filter::Native).modules(locate_trap().unwrap()).concurrency(1),
    );
    let tasks = tasks.await;
    let agent = tasks.agent(1, hooks::card).await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "card": agent.port() })).await;
    tasks.fleet(0, &[("card", &[1])]).await;
    hooks::check(&Edge(tasks), &OF_A_FLEET).await;
}
