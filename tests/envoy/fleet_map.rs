//! The fleet map through a real Envoy: `/v1/fleet`, what the status says, readiness, and what is counted.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{Envoy, EnvoyBuilder, wait};
use launcher::configuration::ADMIN_PLACE;
use pixell_core::timestamp::Timestamp;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use crate::api::{Api, Rejected, no_vm_fell_over};

const TWO: &str = r#"{"peers":{"task-b":{"host":"10.0.1.7"},"task-c":{"host":"fd00::8","state":"draining"}},"routes":{"x":["task-b","task-c"],"y":["task-b"]}}"#;

/// An Envoy that takes peers in 10.0.0.0/8 and fd00::/8.
fn with_fleet() -> EnvoyBuilder {
    let fleet = format!("{ADMIN_PLACE}, \"fleet\": {{\"peer_cidrs\": [\"10.0.0.0/8\", \"fd00::/8\"]}}");
    Envoy::builder().edit(ADMIN_PLACE, &fleet)
}

fn wrote(epoch: &str, generation: u64, [added, changed, removed]: [u64; 3]) -> Value {
    json!({"epoch": epoch, "generation": generation, "added": added, "changed": changed, "removed": removed})
}

/// Status and body of a path of port 9901.
async fn plain(envoy: &Envoy, path: &str) -> (u16, String) {
    let response = reqwest::get(envoy.api_url() + path).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn a_map_lives_through_its_calls_on_both_workers() {
    let envoy = with_fleet().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.check("GET", "/v1/fleet", "", 200, json!({"epoch": "0", "generation": 0, "peers": {}, "routes": {}})).await;
    let first = api.call("PUT", "/v1/fleet", TWO).await;
    assert_eq!(first.status, 200, "{first}");
    let first = first.json().unwrap();
    let epoch = first["epoch"].as_str().unwrap();
    assert_eq!(first, wrote(epoch, 1, [2, 0, 0]));
    let peers = json!({"task-b": {"host": "10.0.1.7", "state": "active"}, "task-c": {"host": "fd00::8", "state": "draining"}});
    let routes = json!({"x": ["task-b", "task-c"], "y": ["task-b"]});
    let map = json!({"epoch": epoch, "generation": 1, "peers": peers, "routes": routes});
    for _ in 0..2 {
        api.check("GET", "/v1/fleet", "", 200, map.clone()).await;
        api.check("PUT", "/v1/fleet", TWO, 200, wrote(epoch, 1, [0, 0, 0])).await;
    }
    api.check("PATCH", "/v1/fleet?dry_run=true", r#"{"routes":{"y":null}}"#, 200, wrote(epoch, 1, [0, 0, 1])).await;
    api.check("PATCH", "/v1/fleet", r#"{"peers":{"task-c":{"state":null}}}"#, 200, wrote(epoch, 2, [0, 0, 0])).await;
    let moves =
        r#"{"peers":{"task-d":{"host":"10.0.1.9"},"task-c":null},"routes":{"x":["task-d"],"y":null,"z":["task-b","task-d"]}}"#;
    api.check("PATCH", "/v1/fleet", moves, 200, wrote(epoch, 3, [1, 1, 1])).await;

    // The tag is that of this map; the route map still has none.
    let tag = format!("\"{epoch}-3\"");
    let stale = format!("\"{epoch}-2\"");
    assert_eq!(api.call_with("GET", "/v1/fleet", &[("if-none-match", &tag)], "").await.status, 304);
    assert_eq!(api.call_with("PATCH", "/v1/fleet", &[("if-match", &stale)], "{}").await.status, 412);
    assert_eq!(api.version().await, "\"0-0\"");
    let fleet = json!({"enabled": true, "loaded": true, "epoch": epoch, "generation": 3, "peers": 2, "routes": 2});
    let status = json!({"epoch": "0", "generation": 0, "routes": 0, "loaded": false, "version": env!("CARGO_PKG_VERSION"), "fleet": fleet});
    assert_eq!(api.call("GET", "/v1/status", "").await.json().unwrap(), status);
    no_vm_fell_over(&envoy, &api).await;
}

/// The second that it is now.
fn now() -> Timestamp {
    Timestamp::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// Waits until the clock shows a later second than `then`, so that what is written from now on has another time.
async fn later(then: Timestamp) -> Timestamp {
    let probe = async || Ok(Some(now()).filter(|now| *now > then));
    wait::until("the next second", Duration::from_secs(10), probe).await.unwrap()
}

/// The reports on the peers without the times, and the time of each. Both workers must agree.
async fn reports(api: &Api) -> (Value, BTreeMap<String, String>) {
    let mut found = api.call("GET", "/v1/fleet/peers", "").await.json().unwrap();
    assert_eq!(api.call("GET", "/v1/fleet/peers", "").await.json().unwrap(), found);
    let take = |(name, peer): (&String, &mut Value)| {
        let since = peer.as_object_mut().unwrap().remove("since").unwrap();
        (name.clone(), since.as_str().unwrap().to_owned())
    };
    let since = found.as_object_mut().unwrap().iter_mut().map(take).collect();
    (found, since)
}

#[tokio::test]
async fn peers_are_reported_with_their_routes_and_since_when_they_are_so() {
    let envoy = with_fleet().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.check("GET", "/v1/fleet/peers", "", 200, json!({})).await;
    let before = now();
    api.call("PUT", "/v1/fleet", TWO).await;
    let after = now();
    let (first, learned) = reports(&api).await;
    let report = |host: &str, state: &str, routes: u64| json!({"host": host, "state": state, "routes": routes});
    assert_eq!(first, json!({"task-b": report("10.0.1.7", "active", 2), "task-c": report("fd00::8", "draining", 1)}));
    for since in learned.values() {
        // Texts of this form have the order of the times.
        assert!((before.to_string()..=after.to_string()).contains(since), "{before} {since} {after}");
    }

    // Whatever leaves a peer as it is leaves its time, on either worker.
    let moved = later(after).await;
    for _ in 0..2 {
        api.call("PUT", "/v1/fleet", TWO).await;
        api.call("PATCH", "/v1/fleet?dry_run=true", r#"{"peers":{"task-b":{"state":"draining"}}}"#).await;
        api.call("PATCH", "/v1/fleet", r#"{"peers":{"task-b":{"host":"10.0.1.7"}},"routes":{"z":["task-c"]}}"#).await;
        api.call("PATCH", "/v1/fleet", r#"{"routes":{"z":null}}"#).await;
    }
    assert_eq!(reports(&api).await, (first, learned.clone()));

    // Each change of a peer sets the time of that peer alone.
    let tag = api.fleet_version().await;
    api.call("PATCH", "/v1/fleet", r#"{"peers":{"task-b":{"state":"draining"}},"routes":{"y":["task-c"]}}"#).await;
    let (second, since) = reports(&api).await;
    assert_eq!(second, json!({"task-b": report("10.0.1.7", "draining", 1), "task-c": report("fd00::8", "draining", 2)}));
    assert!((moved.to_string()..=now().to_string()).contains(&since["task-b"]), "{moved} {since:?}");
    assert_eq!(since["task-c"], learned["task-c"]);
    let moved = later(now()).await;
    api.call("PATCH", "/v1/fleet", r#"{"peers":{"task-c":{"host":"10.0.1.9"}}}"#).await;
    let (_, third) = reports(&api).await;
    assert_eq!(third["task-b"], since["task-b"]);
    assert!(third["task-c"] >= moved.to_string(), "{moved} {third:?}");

    let with = async |name: &str, tag: &str| api.call_with("GET", "/v1/fleet/peers", &[(name, tag)], "").await.status;
    assert_eq!(
        (with("if-none-match", &tag).await, with("if-match", &tag).await),
        (StatusCode::OK, StatusCode::PRECONDITION_FAILED)
    );
    assert_eq!(with("if-none-match", &api.fleet_version().await).await, StatusCode::NOT_MODIFIED);
    for method in ["PUT", "PATCH", "DELETE", "POST"] {
        let response = api.call(method, "/v1/fleet/peers", "{}").await;
        assert_eq!((response.status.as_u16(), response.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn what_is_wrong_is_named_and_changes_nothing() {
    let envoy = with_fleet().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.call("PUT", "/v1/fleet", TWO).await;
    let before = api.call("GET", "/v1/fleet", "").await.json().unwrap();
    for (method, body, places) in [
        ("PUT", "{}", &["", ""][..]),
        ("PATCH", r#"{"peers":{"task-c":null}}"#, &["/peers/task-c"]),
        ("PATCH", r#"{"routes":{"x":["task-b","nobody"]}}"#, &["/routes/x/1"]),
        ("PATCH", r#"{"routes":{"x":["nobody"],"x":["task-b"]}}"#, &["/routes/x"]),
        ("PATCH", r#"{"routes":{"x":["nobody","task-b","task-b"],"y":[]}}"#, &["/routes/x/2", "/routes/y"]),
        (
            "PATCH",
            r#"{"peers":{"a":{"host":"127.0.0.1"},"b":{"host":"::ffff:10.0.0.1"},"c":{"host":"192.168.0.1","port":1}}}"#,
            &["/peers/a/host", "/peers/b/host", "/peers/c/port", "/peers/c/host"],
        ),
    ] {
        let rejected = Rejected {
            method,
            target: "/v1/fleet",
            body: body.as_bytes(),
            status: 422,
            code: "invalid_fleet",
            places,
            ..Rejected::default()
        };
        api.rejected(rejected).await;
        assert_eq!(api.call("GET", "/v1/fleet", "").await.json().unwrap(), before);
    }
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn without_a_fleet_every_call_says_so() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    for (method, target, body) in
        [("GET", "/v1/fleet", ""), ("PUT", "/v1/fleet", TWO), ("PATCH", "/v1/fleet", "{}"), ("GET", "/v1/fleet/peers", "")]
    {
        let rejected =
            Rejected { method, target, body: body.as_bytes(), status: 409, code: "fleet_disabled", ..Rejected::default() };
        api.rejected(rejected).await;
    }
    assert_eq!(plain(&envoy, "/ready/traffic").await, (503, "NOT READY: no route map has been pushed\n".to_owned()));
    api.call("PUT", "/v1/routes", r#"{"routes":{}}"#).await;
    assert_eq!(plain(&envoy, "/ready/traffic").await, (200, "READY\n".to_owned()));
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn traffic_is_ready_once_both_maps_are_there() {
    let envoy = with_fleet().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let not = |words: &str| (503, format!("NOT READY: {words} has been pushed\n"));
    assert_eq!(plain(&envoy, "/ready/traffic").await, not("no route map and no fleet map"));
    assert_eq!(plain(&envoy, "/ready").await.0, 200);
    api.call("PUT", "/v1/fleet", r#"{"peers":{},"routes":{}}"#).await;
    assert_eq!(plain(&envoy, "/ready/traffic").await, not("no route map"));
    api.call("PUT", "/v1/routes", r#"{"routes":{}}"#).await;
    assert_eq!(plain(&envoy, "/ready/traffic?from=nlb").await, (200, "READY\n".to_owned()));
}

#[tokio::test]
async fn writes_are_counted_apart_and_no_id_and_no_peer_is_a_label() {
    let envoy = with_fleet().start().await.unwrap();
    let api = Api::open(&envoy).await;
    api.call("PUT", "/v1/fleet", TWO).await;
    api.call("PATCH", "/v1/fleet", r#"{"routes":{"y":null}}"#).await;
    api.call("PATCH", "/v1/fleet", "{").await;
    api.call("PATCH", "/v1/fleet", r#"{"routes":{"y":["nobody"]}}"#).await;
    let (_, scrape) = plain(&envoy, "/stats/prometheus").await;
    let value = |sample: &str| {
        let line = scrape.lines().map(|line| line.replace("{}", "")).find(|line| line.starts_with(&format!("{sample} ")));
        line.unwrap_or_else(|| panic!("no {sample}")).rsplit_once(' ').unwrap().1.to_owned()
    };
    for (sample, expected) in [
        ("pixell_fleet_routes", "1"),
        ("pixell_fleet_peers", "2"),
        ("pixell_fleet_map_generation", "2"),
        ("pixell_fleet_map_publishes_total", "2"),
        ("pixell_fleet_map_refused_writes_total{reason=\"malformed_json\"}", "1"),
        ("pixell_fleet_map_refused_writes_total{reason=\"invalid_fleet\"}", "1"),
        ("pixell_route_map_refused_writes_total{reason=\"invalid_fleet\"}", "0"),
        ("pixell_route_map_publishes_total", "0"),
        ("pixell_route_map_generation", "0"),
    ] {
        assert_eq!(value(sample), expected, "{sample}");
    }
    assert_ne!(value("pixell_fleet_map_last_push_timestamp_seconds"), "0");
    assert!(!scrape.contains("task-b") && !scrape.contains("10.0.1.7") && !scrape.contains("10_0_1_7"));
}

/// The largest map is taken, and comes back.
#[tokio::test]
async fn the_largest_map_is_taken() {
    let envoy = with_fleet().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let peer = |number: usize| format!("task-{:032x}", number % 1000);
    let host = |number: usize| format!("10.1.{}.{}", number / 250, number % 250 + 1);
    let peers: Map<String, Value> = (0..1000).map(|number| (peer(number), json!({"host": host(number)}))).collect();
    let routes = |first: usize| -> Map<String, Value> {
        let peers = |number: usize| json!([peer(number + first), peer(number + first + 1), peer(number + first + 2)]);
        (0..100_000).map(|number| (format!("{number:036}"), peers(number))).collect()
    };
    let mut memory = vec![envoy.resident_bytes().unwrap() >> 20];
    // The last map is the one that is looked at.
    for first in (0..3).rev() {
        let body = json!({"peers": peers, "routes": routes(first)}).to_string();
        let response = api.call("PUT", "/v1/fleet", &body).await;
        assert_eq!(response.status, 200, "{response}");
        let name = if memory.len() == 1 { "added" } else { "changed" };
        assert_eq!(response.json().unwrap()[name].as_u64(), Some(100_000), "{response}");
        memory.push(envoy.resident_bytes().unwrap() >> 20);
    }
    println!("resident memory in MiB, before and after each write of the largest fleet map: {memory:?}");
    // In a container of 512 MiB there is room for it, and for requests.
    assert!(memory.iter().all(|mib| *mib < 400), "{memory:?}");
    let found = api.call("GET", "/v1/fleet", "").await.json().unwrap();
    assert_eq!(found["routes"], Value::Object(routes(0)));
    let (reports, _) = reports(&api).await;
    let expected = |number| json!({"host": host(number), "state": "active", "routes": 300});
    assert_eq!(reports, Value::Object((0..1000).map(|number| (peer(number), expected(number))).collect()));
    let too_many = r#"{"peers":{"one-more":{"host":"10.0.0.1"}},"routes":{"one-more":["one-more"]}}"#;
    let rejected = Rejected {
        method: "PATCH",
        target: "/v1/fleet",
        body: too_many.as_bytes(),
        status: 422,
        code: "invalid_fleet",
        places: &["/peers", "/routes"],
        ..Rejected::default()
    };
    api.rejected(rejected).await;
    no_vm_fell_over(&envoy, &api).await;
}
