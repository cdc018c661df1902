//! Requests of another task that wait for a connection of a busy agent while the map changes. The native filter looks at them again, as it
//! does at those of this task's own clients (`tests/native/queues.rs`), and sends them back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::agents::http as agent;
use harness::{Agent, wait};
use launcher::filter::Filter;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::tasks::{Response, Tasks};

/// How long anything here may take, on a busy machine.
const LONGEST: Duration = Duration::from_secs(30);

/// How often a test is repeated. A request is rejected after it has waited for five seconds, and a busy machine may take longer than that.
const ROUNDS: usize = 5;

/// Three tasks. The second one opens one connection to each agent, and has an agent that holds its requests: one that has the connection,
/// and one that waits for it. The first task has sent both. The third has an agent, too.
struct Busy {
    tasks: Arc<Tasks>,
    agent: Agent,
    _other: Agent,
    /// How many requests the busy agent has seen.
    seen: Arc<AtomicUsize>,
    /// How many it may respond to.
    responds: Arc<Semaphore>,
    held: JoinHandle<Response>,
    waits: JoinHandle<Response>,
}

impl Busy {
    async fn start() -> Self {
        let shipped = "- max_connections: 1024";
        let one = shipped.replace("1024", "1");
        let tasks =
            Tasks::changed(3, |_| Vec::new(), |builder| builder.filter(Filter::Native).concurrency(1).edit(shipped, &one))
                .await;
        let (seen, responds) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(0)));
        let shared = (Arc::clone(&seen), Arc::clone(&responds));
        let busy = move || {
            agent::start("busy", 0, agent::Version::Http1, move |_| {
                let (seen, responds) = shared.clone();
                async move {
                    seen.fetch_add(1, Ordering::Relaxed);
                    responds.acquire().await.unwrap().forget();
                    hyper::Response::new(agent::whole("done"))
                }
            })
        };
        let (agent, third) = (tasks.agent(1, busy).await, tasks.echo(2, "third").await);
        tasks.routes(0, json!({})).await;
        tasks.routes(1, json!({ "a": agent.port() })).await;
        tasks.routes(2, json!({ "a": third.port() })).await;
        tasks.fleet(0, &[("a", &[1, 2])]).await;
        let tasks = Arc::new(tasks);
        let held = ask(&tasks);
        let reached = || async { Ok((seen.load(Ordering::Relaxed) == 1).then_some(())) };
        wait::until("the agent to have a request", LONGEST, reached).await.unwrap();
        let waits = ask(&tasks);
        let queued =
            || async { Ok((tasks.count(1, "cluster.agents_http1.upstream_rq_pending_active").await == 1).then_some(())) };
        wait::until("a request to wait", LONGEST, queued).await.unwrap();
        Self { tasks, agent, _other: third, seen, responds, held, waits }
    }

    /// What the request that waited got, after the change of the map; `None` if the machine was too busy.
    async fn waited(&mut self) -> Option<Response> {
        let response = tokio::time::timeout(LONGEST, &mut self.waits).await.unwrap().unwrap();
        (response.header("x-pixell-error") != Some("overloaded")).then_some(response)
    }

    /// Lets the busy agent respond to everything. The request that it held gets its response, whatever the map says.
    async fn respond(&mut self) {
        self.responds.add_permits(10);
        let held = tokio::time::timeout(LONGEST, &mut self.held).await.unwrap().unwrap();
        assert_eq!((held.status, held.body.as_str()), (200, "done"), "{held:?}");
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    async fn misdirected(&self) -> u64 {
        self.tasks.count(0, "wasmcustom.pixell_fleet_misdirected_total.hop.out").await
    }
}

fn ask(tasks: &Arc<Tasks>) -> JoinHandle<Response> {
    let tasks = Arc::clone(tasks);
    tokio::spawn(async move { tasks.ask(0, "a").await })
}

/// Runs `round` until the machine was quick enough.
async fn until_in_time(round: impl AsyncFn(Busy) -> Option<()>) {
    for _ in 0..ROUNDS {
        if round(Busy::start().await).await.is_some() {
            return;
        }
    }
    panic!("the machine is too busy: the requests waited for five seconds, {ROUNDS} times");
}

/// The port of a dying agent has a new owner, and the agent now runs in another task: that one gets the request, and the new owner does not.
#[tokio::test]
async fn a_request_that_waits_goes_to_the_task_to_which_its_agent_has_moved() {
    until_in_time(async |mut busy| {
        busy.tasks.routes(1, json!({ "new": busy.agent.port() })).await;
        let response = busy.waited().await?;
        assert_eq!(response.seen()["agent"], "third");
        assert_eq!(response.header("x-pixell-misdirected"), None);
        assert_eq!(busy.misdirected().await, 1);
        busy.respond().await;
        assert_eq!(busy.seen(), 1);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_that_waits_is_told_to_retry_if_no_task_has_its_agent() {
    until_in_time(async |mut busy| {
        busy.tasks.routes(2, json!({})).await;
        busy.tasks.routes(1, json!({ "new": busy.agent.port() })).await;
        let response = busy.waited().await?;
        assert_eq!((response.status, response.header("x-pixell-error")), (503, Some("deployment_moved")), "{response:?}");
        assert_eq!(response.header("x-pixell-misdirected"), None);
        assert_eq!(busy.misdirected().await, 2);
        busy.respond().await;
        assert_eq!(busy.seen(), 1);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_that_waits_gets_its_connection_if_its_agent_still_has_the_port() {
    until_in_time(async |mut busy| {
        let draining = json!({ "port": busy.agent.port(), "state": "draining" });
        busy.tasks.routes(1, json!({ "a": draining, "new": 5000 })).await;
        busy.respond().await;
        let response = busy.waited().await?;
        assert_eq!((response.status, response.body.as_str()), (200, "done"), "{response:?}");
        assert_eq!((busy.seen(), busy.misdirected().await), (2, 0));
        Some(())
    })
    .await;
}
