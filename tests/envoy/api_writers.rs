//! Concurrent writers: no write is lost, and none is applied twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use harness::{Envoy, RouteApi};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::api::{Api, no_vm_fell_over, problem};
use crate::clients::http2;

const WRITERS: u16 = 8;

/// Checks that both workers got writes, so that the writers did compete.
async fn both_workers_wrote(envoy: &Envoy) {
    let connections = envoy.stats().await.unwrap().worker_connections("admin").unwrap();
    assert!(connections.values().all(|count| *count >= 2), "{connections:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_patches_of_eight_writers_are_applied() {
    const PATCHES: u16 = 200;
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.call("PUT", "/v1/routes", r#"{"routes":{}}"#).await;
    let before = api.map().await;
    let writers = (0..WRITERS).map(|writer| {
        // One writer on each worker for certain, the others wherever Envoy puts them.
        let routes = if writer < 2 { api.next().clone() } else { envoy.routes() };
        tokio::spawn(async move {
            let mut generations = Vec::new();
            for n in 0..PATCHES {
                let port = 20_000 + writer * PATCHES + n;
                let response = routes.patch_routes(&json!({"routes": {format!("writer-{writer}-{n}"): port}})).await.unwrap();
                assert_eq!(response.status, 200, "{response}");
                let response = response.json().unwrap();
                assert_eq!((&response["added"], &response["displaced"]), (&1.into(), &json!([])), "{response}");
                generations.push(response["generation"].as_u64().unwrap());
            }
            assert!(generations.is_sorted_by(|earlier, later| earlier < later), "a writer's own writes are in order");
            generations
        })
    });
    let generations: BTreeSet<u64> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    let writes = u64::from(WRITERS * PATCHES);
    let first = before["generation"].as_u64().unwrap() + 1;
    assert!(generations.into_iter().eq(first..first + writes), "each write has its own generation");
    let map = api.map().await;
    assert_eq!((&map["epoch"], &map["generation"]), (&before["epoch"], &(first + writes - 1).into()));
    let routes = map["routes"].as_object().unwrap();
    let ports: BTreeSet<_> = routes.values().map(|route| route["port"].as_u64().unwrap()).collect();
    assert_eq!((routes.len(), ports.len()), (1600, 1600));
    both_workers_wrote(&envoy).await;
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_under_if_match_are_never_lost() {
    const UPDATES: u16 = 40;
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.call("PUT", "/v1/routes", r#"{"routes":{"shared":20000}}"#).await;
    let writers = (0..WRITERS).map(|writer| {
        let routes = if writer < 2 { api.next().clone() } else { envoy.routes() };
        tokio::spawn(async move {
            let mut lost_races = 0_u32;
            for _ in 0..UPDATES {
                loop {
                    let read = routes.route("shared").await.unwrap();
                    let port = read.json().unwrap()["port"].as_u64().unwrap();
                    let write =
                        routes.request(Method::PUT, "/v1/routes/shared").header("if-match", read.header("etag").unwrap());
                    let response = RouteApi::send(write.json(&(port + 1))).await.unwrap();
                    match response.status.as_u16() {
                        200 => break,
                        412 => lost_races += 1,
                        _ => panic!("{response}"),
                    }
                }
            }
            lost_races
        })
    });
    let lost_races: u32 = join_all(writers).await.into_iter().map(Result::unwrap).sum();
    let updates = WRITERS * UPDATES;
    assert_eq!(api.call("GET", "/v1/routes/shared", "").await.json().unwrap()["port"], 20_000 + updates);
    assert_eq!(api.map().await["generation"], 1 + updates);
    assert!(lost_races > 0, "the writers never competed, so the test proves nothing");
    both_workers_wrote(&envoy).await;
    no_vm_fell_over(&envoy, &api).await;
}

/// The first writes compete for the epoch: all end up in one map with one epoch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_writers_agree_on_one_map() {
    let mut envoy = Envoy::builder().start().await.unwrap();
    for _ in 0..3 {
        let api = Api::open(&envoy).await;
        let writes = (0..16).map(|n: u16| {
            let routes = api.next().clone();
            async move { routes.put_route(&format!("first-{n}"), &json!(20_000 + n)).await.unwrap() }
        });
        let responses = join_all(writes).await;
        let epochs: BTreeSet<_> = responses.iter().map(|response| response.json().unwrap()["epoch"].to_string()).collect();
        let generations: BTreeSet<_> =
            responses.iter().map(|response| response.json().unwrap()["generation"].as_u64().unwrap()).collect();
        assert_eq!((epochs.len(), generations), (1, (1..=16).collect()));
        assert_eq!(api.map().await["routes"].as_object().unwrap().len(), 16);
        envoy.restart().await.unwrap();
    }
}

/// Concurrent calls over the streams of one HTTP/2 connection, which are all on one worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_connection_do_not_mix() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let client = http2();
    let send = async |client: &Client, n: u16| {
        let request = client.request(Method::PUT, format!("{}/v1/routes/id-{n}", envoy.api_url()));
        // Every tenth call is an error, which only its own stream gets.
        let port = if n.is_multiple_of(10) { json!(80) } else { json!({"port": 20_000 + n}) };
        let response = RouteApi::send(request.json(&port)).await.unwrap();
        if n.is_multiple_of(10) {
            assert_eq!(problem(&response)["code"], "invalid_routes");
        } else {
            assert_eq!(response.status, 201, "{response}");
        }
    };
    // One call first, so that the others find a connection to share.
    send(&client, 0).await;
    join_all((1..=100).map(|n| send(&client, n))).await;
    let map = api.map().await;
    assert_eq!(map["generation"], 90);
    let expected: Value = (1..=100_u16)
        .filter(|n| !n.is_multiple_of(10))
        .map(|n| (format!("id-{n}"), json!({"port": 20_000 + n, "state": "active"})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(map["routes"], expected);
    no_vm_fell_over(&envoy, &api).await;
}

/// A writer that loses every race gets an error, and nothing of its write is applied. (It writes a large map while others make small
/// changes without a pause: each of its attempts takes long enough to lose.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_loses_every_race_gets_an_error() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let (slow, fast) = (api.next().clone(), api.next().clone());
    let stop = Arc::new(AtomicBool::new(false));
    let small = (0..4).map(|writer: u16| {
        let (routes, stop) = (fast.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            for port in (30_000 + writer * 1000..31_000 + writer * 1000).cycle() {
                let response = routes.put_route(&format!("small-{writer}"), &json!(port)).await.unwrap();
                assert!(response.status.is_success(), "{response}");
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        })
    });
    let small: Vec<_> = small.collect();
    let large = |attempt: u16| {
        let routes = (0..9000).map(|n: u16| (format!("large-{attempt}-{n}"), Value::from(20_000 + n)));
        json!({"routes": routes.collect::<serde_json::Map<_, _>>()})
    };
    let mut rejected = None;
    for attempt in 0..50 {
        let response = slow.put_routes(&large(attempt)).await.unwrap();
        if response.status != 200 {
            rejected = Some((attempt, response));
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in join_all(small).await {
        writer.unwrap();
    }
    let Some((attempt, response)) = rejected else { panic!("none of fifty large writes lost to writers that never stop") };
    assert_eq!((response.status.as_u16(), response.header("retry-after")), (503, Some("1")), "{response}");
    assert_eq!(problem(&response)["code"], "conflict_retries_exhausted");
    let routes = api.map().await["routes"].as_object().unwrap().clone();
    let prefix = format!("large-{attempt}-");
    assert!(!routes.keys().any(|id| id.starts_with(&prefix)), "nothing of the rejected write is applied");
    assert!((0..4).all(|writer| routes.contains_key(&format!("small-{writer}"))), "the successful writes are applied");
    // Once the other writers stop, it succeeds.
    assert_eq!(slow.put_routes(&large(attempt)).await.unwrap().json().unwrap()["added"], 9000);
    no_vm_fell_over(&envoy, &api).await;
}
