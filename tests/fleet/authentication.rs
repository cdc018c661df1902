//! Tokens, claims and rates in a fleet: only the task that a client reaches checks them.

use std::process::{Command, Stdio};
use std::time::Duration;

use harness::certificate;
use harness::fabric::Namespace;
use harness::tokens::{Algorithm, Issuer};
use harness::wait;
use serde_json::{Value, json};

use crate::tasks::{Response, Tasks};

const PATIENCE: Duration = Duration::from_secs(30);

/// How many requests a task's Envoy has got from peers.
async fn arrived(tasks: &Tasks, task: usize) -> u64 {
    tasks.count(task, "wasmcustom.pixell_fleet_requests_total.hop.in").await
}

/// How many requests a task has taken from its clients' rates.
async fn counted(tasks: &Tasks, task: usize) -> u64 {
    let name = "clients.http_local_rate_limit.ok";
    tasks.envoys[task].stat(name).await.unwrap().unwrap_or_else(|| panic!("task {task} has no rate"))
}

/// The status of a request for an id to task 0, from a namespace.
async fn status_from(tasks: &Tasks, from: &Namespace, id: &'static str) -> u16 {
    let url = format!("http://{}/x", tasks.data(0));
    let send = move || async move {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(url).header("x-deployment-id", id).send().await.unwrap().status().as_u16()
    };
    from.run(send).await.unwrap()
}

/// Sends a request with a token for the id `a`.
async fn ask(tasks: &Tasks, task: usize, token: &str) -> Response {
    let value = format!("Bearer {token}");
    tasks.send(task, "/x", move |request| request.header("x-deployment-id", "a").header("authorization", value)).await
}

#[tokio::test]
async fn a_rate_counts_in_the_task_that_the_client_reaches() {
    let directory = tempfile::tempdir().unwrap();
    let peers = certificate::of_peers(directory.path()).unwrap();
    let tasks = Tasks::with(2, |_| [peers.clone(), vec![("PIXELL_RATE_LIMIT", "1/m".to_owned())]].concat()).await;
    let agent = tasks.echo(1, "here").await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    tasks.fleet(1, &[]).await;
    assert_eq!(tasks.ask(0, "a").await.seen()["agent"], "here");
    let response = tasks.ask(0, "a").await;
    assert_eq!((response.status, response.header("x-pixell-error")), (429, Some("rate_limited")), "{response:?}");
    // Task 1 would take them all for requests of task 0, or for those of a client that has used up its rate there.
    let other = tasks.fabric.task(1).unwrap();
    assert_eq!(status_from(&tasks, other, "a").await, 200);
    assert_eq!(status_from(&tasks, other, "a").await, 429);
    assert_eq!((arrived(&tasks, 1).await, counted(&tasks, 1).await, counted(&tasks, 0).await), (2, 0, 2));
    // A client that reaches task 1 itself has a rate there, too, and a rate that is used up there stops no hop.
    assert_eq!(tasks.ask(1, "a").await.status, 200);
    assert_eq!(tasks.ask(1, "a").await.status, 429);
    assert_eq!(status_from(&tasks, tasks.fabric.task(0).unwrap(), "a").await, 200);
    assert_eq!((arrived(&tasks, 1).await, counted(&tasks, 1).await), (3, 1));
    // An id that neither task has takes nothing from a rate.
    for _ in 0..2 {
        assert_eq!(tasks.ask(0, "nobody").await.status, 404);
    }
    assert_eq!(counted(&tasks, 0).await, 3);
}

#[tokio::test]
async fn a_token_and_its_claim_are_checked_in_the_task_that_the_client_reaches() {
    let directory = tempfile::tempdir().unwrap();
    let peers = certificate::of_peers(directory.path()).unwrap();
    // Each task has keys of its own, so one that asked again would reject what the other one has let in.
    let places = [0, 1].map(|task| directory.path().join(task.to_string()));
    let issuers = places.each_ref().map(|place| {
        std::fs::create_dir(place).unwrap();
        Issuer::new(place, Algorithm::Es256).unwrap()
    });
    let settings = |task: usize| {
        let claim = vec![("PIXELL_JWT_DEPLOYMENTS_CLAIM", "deployments".to_owned())];
        [peers.clone(), issuers[task].settings(&places[task]).unwrap(), claim].concat()
    };
    let tasks = Tasks::with(2, settings).await;
    let agent = tasks.echo(1, "here").await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    tasks.fleet(1, &[]).await;

    let token = |task: usize, allowed: Value| issuers[task].token("alice", &json!({ "deployments": allowed })).unwrap();
    let good = token(0, json!(["b", "a"]));
    let serves = || async { Ok((ask(&tasks, 0, &good).await.status == 200).then_some(())) };
    wait::until("the edge to have its keys", PATIENCE, serves).await.unwrap();
    let own = token(1, json!("*"));
    let serves = || async { Ok((ask(&tasks, 1, &own).await.status == 200).then_some(())) };
    wait::until("the owner to have its keys", PATIENCE, serves).await.unwrap();

    let seen = ask(&tasks, 0, &good).await.seen();
    assert_eq!(seen["agent"], "here");
    let headers = seen["headers"].to_string();
    assert!(!headers.contains("authorization") && !headers.contains("x-pixell-claims"), "{headers}");

    let before = arrived(&tasks, 1).await;
    for allowed in [json!(["b"]), json!([]), json!("a"), Value::Null] {
        let response = ask(&tasks, 0, &token(0, allowed.clone())).await;
        assert_eq!((response.status, response.header("x-pixell-error")), (403, Some("not_allowed")), "{allowed}: {response:?}");
    }
    for (task, token) in [(0, &own), (1, &good), (0, &"none".to_owned())] {
        let response = ask(&tasks, task, token).await;
        assert_eq!(
            (response.status, response.header("x-pixell-error")),
            (401, Some("unauthenticated")),
            "{task}: {response:?}"
        );
    }
    assert_eq!(tasks.ask(0, "a").await.status, 401);
    assert_eq!(arrived(&tasks, 1).await, before);

    // An agent of task 0 has its address and no certificate.
    let address = format!("{}:50050", tasks.fabric.address(1));
    let handshake = || {
        Ok(Command::new("openssl")
            .args(["s_client", "-alpn", "h2", "-tls1_3", "-quiet", "-connect", &address])
            .stdin(Stdio::null())
            .output()?)
    };
    let output = tasks.fabric.task(0).unwrap().enter(handshake).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let count = || async { Ok((tasks.count(1, "listener.peers.ssl.fail_verify_no_cert").await == 1).then_some(())) };
    wait::until("the handshake to fail", PATIENCE, count).await.unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(arrived(&tasks, 1).await, before);
}
