//! Requests that wait for a connection of a busy agent while the map changes. The native filter looks at them again; with Wasm they wait on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::agents::{self, Agent, http as agent};
use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, wait};
use hyper::Response;
use launcher::filter::Filter;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::clients::http1;

/// How long anything here may take, on a busy machine.
const LONGEST: Duration = Duration::from_secs(30);

/// An Envoy that opens one connection to each agent, and an agent that holds its requests: one that has the connection, and one that waits
/// for it.
struct Busy {
    envoy: Envoy,
    agent: Agent,
    /// How many requests the agent has seen.
    seen: Arc<AtomicUsize>,
    /// How many it may respond to.
    responds: Arc<Semaphore>,
    held: JoinHandle<(u16, String)>,
    waits: JoinHandle<(u16, String)>,
}

impl Busy {
    async fn start() -> Self {
        let shipped = "- max_connections: 1024";
        let one = shipped.replace("1024", "1");
        let envoy = Envoy::builder().filter(Filter::Native).concurrency(1).edit(shipped, &one).start().await.unwrap();
        let (seen, responds) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(0)));
        let shared = (Arc::clone(&seen), Arc::clone(&responds));
        let agent = agent::start("busy", 0, agent::Version::Http1, move |_| {
            let (seen, responds) = shared.clone();
            async move {
                seen.fetch_add(1, Ordering::Relaxed);
                responds.acquire().await.unwrap().forget();
                Response::new(agent::whole("done"))
            }
        });
        let agent = agent.unwrap();
        envoy.routes().put_all([("busy", agent.port())]).await.unwrap();
        let held = ask(&envoy);
        let reached = || async { Ok((seen.load(Ordering::Relaxed) == 1).then_some(())) };
        wait::until("the agent to have a request", LONGEST, reached).await.unwrap();
        let waits = ask(&envoy);
        let queued = || async {
            Ok(envoy.stat("cluster.agents_http1.upstream_rq_pending_active").await?.filter(|count| *count == 1).map(drop))
        };
        wait::until("a request to wait", LONGEST, queued).await.unwrap();
        Self { envoy, agent, seen, responds, held, waits }
    }

    /// Lets the agent respond to everything. The request that it held gets its response, whatever the map says.
    async fn respond(&mut self) {
        self.responds.add_permits(10);
        assert_eq!((&mut self.held).await.unwrap(), (200, String::new()));
    }

    /// What the request that waited got, and how many requests the agent has seen.
    async fn ended(mut self, responds_first: bool) -> ((u16, String), usize) {
        if responds_first {
            self.respond().await;
        }
        let response = tokio::time::timeout(LONGEST, &mut self.waits).await.unwrap().unwrap();
        if !responds_first {
            self.respond().await;
        }
        assert_eq!(self.envoy.stats().await.unwrap().crashes().unwrap(), 0);
        (response, self.seen.load(Ordering::Relaxed))
    }
}

/// Sends a request, and returns the status and the code of its rejection, if it is one.
fn ask(envoy: &Envoy) -> JoinHandle<(u16, String)> {
    let request = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "busy").send();
    tokio::spawn(async {
        let response = request.await.unwrap();
        let code = response.headers().get("x-pixell-error").map(|code| code.to_str().unwrap().to_owned());
        (response.status().as_u16(), code.unwrap_or_default())
    })
}

/// The new owner of the port would get a request that was meant for the old one.
#[tokio::test]
async fn a_request_that_waits_is_rejected_if_its_deployment_is_displaced() {
    let busy = Busy::start().await;
    busy.envoy.routes().put_route("other", &busy.agent.port().into()).await.unwrap();
    assert_eq!(busy.ended(false).await, ((404, "unknown_deployment".to_owned()), 1));
}

#[tokio::test]
async fn a_request_that_waits_is_told_to_retry_if_its_deployment_has_moved() {
    let busy = Busy::start().await;
    let other = agents::echo::start("busy").unwrap();
    busy.envoy.routes().put_route("busy", &other.port().into()).await.unwrap();
    assert_eq!(busy.ended(false).await, ((503, "deployment_moved".to_owned()), 1));
}

#[tokio::test]
async fn a_request_that_waits_gets_its_connection_if_its_deployment_still_has_the_port() {
    let busy = Busy::start().await;
    let draining = json!({"port": busy.agent.port(), "state": "draining"});
    busy.envoy.routes().put_route("busy", &draining).await.unwrap();
    busy.envoy.routes().put_route("other", &5000.into()).await.unwrap();
    assert_eq!(busy.ended(true).await, ((200, String::new()), 2));
}
