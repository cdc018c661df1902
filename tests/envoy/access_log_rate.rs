//! How many lines a client can cause whose requests are all rejected.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use harness::{Envoy, agents, wait};
use reqwest::Client;
use serde_json::Value;

use crate::clients::http2;

const DENIED: &str = "access_log.process_ratelimit.denied";
const FLOOD: usize = 20_000;

async fn reject(client: &Client, envoy: &Envoy, times: usize, id: Option<&str>) {
    let send = async |_| {
        let request = client.get(envoy.data_url());
        id.iter().fold(request, |request, id| request.header("x-deployment-id", *id)).send().await.unwrap().status()
    };
    let statuses: Vec<_> = stream::iter(0..times).map(send).buffer_unordered(50).collect().await;
    assert!(statuses.iter().all(reqwest::StatusCode::is_client_error));
}

/// How many lines the log has for each reason.
fn by_kind(envoy: &Envoy) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in envoy.access_log().unwrap() {
        if let Some(kind) = line["rejection"].as_str() {
            *counts.entry(kind.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test]
async fn a_flood_of_rejections_is_limited_and_counted_and_hides_no_other_reason() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let client = http2();
    let started = std::time::Instant::now();
    reject(&client, &envoy, FLOOD, Some("nobody")).await;
    // The rate is used up, but the first rejections for another reason are logged.
    reject(&client, &envoy, 5, None).await;
    reject(&client, &envoy, 5, Some("not an id")).await;
    let most = 1000 + 100 * (usize::try_from(started.elapsed().as_secs()).unwrap() + 2) + 40;
    // Successes are logged as before.
    for _ in 0..50 {
        assert_eq!(client.get(envoy.data_url()).header("x-deployment-id", "a").send().await.unwrap().status(), 200);
    }
    let logged = || async {
        let well = envoy.access_log()?.iter().filter(|line| line["log"] == "access" && line["status"] == 200).count();
        Ok((well == 50).then_some(()))
    };
    wait::until("the lines of the successes", Duration::from_secs(10), logged).await.unwrap();
    let counts = by_kind(&envoy);
    let flood = counts["unknown_deployment"];
    assert!((1000..=most).contains(&flood), "{counts:?}, at most {most}");
    assert_eq!((counts["missing_deployment_id"], counts["invalid_deployment_id"]), (5, 5), "{counts:?}");
    // The other rejections are counted.
    let denied = usize::try_from(envoy.stat(DENIED).await.unwrap().unwrap()).unwrap();
    assert_eq!(flood + denied, FLOOD, "{counts:?}");
}

/// The same at the port of the route API: the rate applies to rejections, and each accepted write is logged.
#[tokio::test]
async fn accepted_writes_are_logged_during_a_flood_of_rejections() {
    let envoy = Envoy::builder().start().await.unwrap();
    let client = http2();
    let url = envoy.api_url() + "/v1/routes/a";
    let nowhere = async |_| client.get(envoy.api_url() + "/v1/nothing").send().await.unwrap().status().as_u16();
    let statuses: Vec<_> = stream::iter(0..5_000).map(nowhere).buffer_unordered(50).collect().await;
    assert!(statuses.iter().all(|status| *status == 404));
    for port in 5000..5020 {
        assert!(envoy.routes().put_route("a", &port.into()).await.unwrap().status.is_success(), "{url}");
    }
    let count = |field: &str, value: Value| envoy.access_log().unwrap().iter().filter(|line| line[field] == value).count();
    let logged = || async { Ok((count("method", "PUT".into()) == 20).then_some(())) };
    wait::until("the lines of the writes", Duration::from_secs(10), logged).await.unwrap();
    assert!(count("status", 404.into()) < 4_000);
    assert!(envoy.stat(DENIED).await.unwrap() > Some(1_000));
}
