//! The fleet map on the page: the peers, and which of them serve an id.

use harness::{Envoy, EnvoyBuilder, RouteApi};
use launcher::configuration::ADMIN_PLACE;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::agents::FILTERS;
use crate::driver::Browser;
use crate::{shows, tells};

/// An Envoy whose route API takes peers in 10.0.0.0/8 and fd00::/8.
fn with_fleet() -> EnvoyBuilder {
    let edit = format!("{ADMIN_PLACE}, \"fleet\": {{\"peer_cidrs\": [\"10.0.0.0/8\", \"fd00::/8\"]}}");
    Envoy::builder().edit(ADMIN_PLACE, &edit)
}

/// The status of the response to a write.
async fn write(envoy: &Envoy, body: &Value) -> u16 {
    let request = envoy.routes().request(Method::PUT, "/v1/fleet").json(body);
    RouteApi::send(request).await.unwrap().status.as_u16()
}

async fn put(envoy: &Envoy, body: &Value) {
    assert_eq!(write(envoy, body).await, 200);
}

#[tokio::test]
async fn a_missing_fleet_map_and_its_rejected_writes_are_problems() {
    for filter in FILTERS {
        let envoy = with_fleet().filter(filter).start().await.unwrap();
        envoy.routes().put_all([("a", 5000)]).await.unwrap();
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        browser.open(&envoy.api_url()).await.unwrap();
        tells(&browser, "bad", "No fleet map has been pushed", "PAR’s log says why its Fleet does not push", "no fleet map")
            .await;
        assert_eq!(browser.text("health").await.unwrap(), "Live, with problems");
        assert_eq!(envoy.routes().get("/ready/traffic").await.unwrap().status, 503);
        put(&envoy, &json!({"peers": {}, "routes": {}})).await;
        browser.until("document.getElementById('problems').hidden").await.unwrap();
        browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
        assert_eq!(envoy.routes().get("/ready/traffic").await.unwrap().status, 200);

        // A precondition that keeps two writers apart is no problem.
        let stale = envoy.routes().request(Method::PATCH, "/v1/fleet").header("if-match", "\"0-0\"").json(&json!({}));
        assert_eq!(RouteApi::send(stale).await.unwrap().status, 412);
        browser.until("seen.fleetWrites.sum('precondition_failed', 60) === 1").await.unwrap();
        assert!(browser.eval("document.getElementById('problems').hidden").await.unwrap().as_bool().unwrap());
        assert_eq!(write(&envoy, &json!({"peers": {"b": {"host": "192.0.2.1"}}, "routes": {}})).await, 422);
        let title = "1 × write to the fleet map rejected, invalid_fleet,";
        tells(&browser, "bad", title, "look at PAR’s log", "fleet writes rejected: invalid_fleet").await;
        browser.assert_clean().await.unwrap();
    }
}

#[tokio::test]
async fn without_a_fleet_only_a_write_to_its_map_is_a_problem() {
    for filter in FILTERS {
        let envoy = Envoy::builder().filter(filter).start().await.unwrap();
        envoy.routes().put_all([("a", 5000)]).await.unwrap();
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        browser.open(&envoy.api_url()).await.unwrap();
        browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
        assert_eq!(write(&envoy, &json!({"peers": {}, "routes": {}})).await, 409);
        let title = "1 × write to the fleet map rejected, fleet_disabled,";
        tells(&browser, "bad", title, "Envoy was started without PIXELL_FLEET_CIDRS", "fleet_disabled").await;
        browser.assert_clean().await.unwrap();
    }
}

#[tokio::test]
async fn peers_and_their_routes_are_shown_and_searched() {
    let envoy = with_fleet().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&shows("ready", "LIVE")).await.unwrap();
    let hidden = "document.getElementById('fleet').hidden";
    assert_eq!(browser.eval(hidden).await.unwrap(), true);

    let routes: Map<String, Value> = (0..150)
        .map(|n| (format!("id-{n:03}"), if n % 3 == 0 { json!(["task-c", "task-b"]) } else { json!(["task-b"]) }))
        .collect();
    let peers = json!({"task-b": {"host": "10.0.1.7"}, "task-c": {"host": "fd00::8", "state": "draining"}, "task-d": {"host": "10.0.1.9"}});
    put(&envoy, &json!({"peers": peers, "routes": routes})).await;
    browser.until("!document.getElementById('fleet').hidden").await.unwrap();
    let cells = "[...document.querySelectorAll('#peer-rows tr')].map((row) => [...row.cells].map((cell) => cell.innerText).join(' ')).join('; ')";
    // Without the last column, the age, which grows.
    let cells = cells.replace("[...row.cells]", "[...row.cells].slice(0, 4)");
    let expected = "task-b 10.0.1.7 active 150; task-c fd00::8 draining 50; task-d 10.0.1.9 active 0";
    assert_eq!(browser.eval(&cells).await.unwrap(), expected);
    assert_eq!(browser.text("fleet-found").await.unwrap(), "150 routes, the first 100 are shown");

    let search = async |words: &str| {
        let script = format!(
            "(() => {{ const field = document.getElementById('fleet-search'); field.value = {}; field.dispatchEvent(new Event('input')); }})()",
            json!(words)
        );
        browser.eval(&script).await.unwrap();
        browser.text("fleet-found").await.unwrap()
    };
    assert_eq!(search("id-003").await, "1 of 150 routes");
    assert!(browser.text("fleet-rows").await.unwrap().contains("task-c, task-b"));
    assert_eq!(search("task-c").await, "50 of 150 routes");
    assert_eq!(search("<img src=x onerror=alert(1)>").await, "0 of 150 routes");

    // Each age has its time, which stays as the age grows.
    let units = browser.eval("[-1, 0, 59.9, 60, 200, 7300, 200000].map(age)").await.unwrap();
    assert_eq!(units, json!(["0 s", "0 s", "59 s", "1 min", "3 min", "2 h", "2 d"]));
    let ages = "[...document.querySelectorAll('#peer-rows td:nth-child(5)')]";
    let times = format!("{ages}.map((cell) => cell.title)");
    let learned = browser.eval(&times).await.unwrap();
    for since in learned.as_array().unwrap() {
        let since = since.as_str().unwrap();
        assert!(since.len() == 20 && since.starts_with("20") && since.ends_with('Z'), "{since}");
    }
    let shown = browser.eval(&format!("{ages}.map((cell) => cell.innerText)")).await.unwrap();
    browser
        .until(&format!("{ages}.every((cell, at) => cell.innerText !== {shown}[at] && /^\\d+ (s|min)$/.test(cell.innerText))"))
        .await
        .unwrap();
    assert_eq!(browser.eval(&times).await.unwrap(), learned);

    // A change shows at the next look.
    let patch = async |change: Value| {
        let request = envoy.routes().request(Method::PATCH, "/v1/fleet").json(&change);
        assert_eq!(RouteApi::send(request).await.unwrap().status, 200);
    };
    assert_eq!(search("").await, "150 routes, the first 100 are shown");
    patch(json!({"peers": {"task-b": {"state": "draining"}}, "routes": {"id-001": null}})).await;
    browser.until(&format!("{cells}.startsWith('task-b 10.0.1.7 draining 149; task-c fd00::8 draining 50;')")).await.unwrap();
    browser.until(&shows("fleet-found", "149 routes")).await.unwrap();
    let now = browser.eval(&times).await.unwrap();
    assert!(now[0].as_str() > learned[0].as_str() && now[1] == learned[1] && now[2] == learned[2], "{learned} {now}");

    // A large map is long to read: a change of it, or of its peers, shows later, while the ages go on.
    let many: Map<String, Value> = (0..10_001).map(|n| (format!("id-{n:05}"), json!(["task-b"]))).collect();
    put(&envoy, &json!({"peers": {"task-b": {"host": "10.0.1.7"}}, "routes": many})).await;
    browser.until(&shows("fleet-found", "10,001 routes")).await.unwrap();
    assert_eq!(browser.eval("fleet.due > performance.now() + 10000").await.unwrap(), true);
    browser.eval("fleet.due = 1e12").await.unwrap();
    patch(json!({"peers": {"task-b": {"state": "draining"}}, "routes": {"id-00001": null}})).await;
    let first_age = format!("{ages}[0].innerText");
    let shown = browser.eval(&first_age).await.unwrap();
    browser.until(&format!("{first_age} !== {shown}")).await.unwrap();
    assert_eq!(browser.eval(&cells).await.unwrap(), "task-b 10.0.1.7 active 10,001");
    assert!(browser.text("fleet-found").await.unwrap().starts_with("10,001 routes"));
    browser.eval("fleet.due = 0").await.unwrap();
    browser.until(&shows("fleet-found", "10,000 routes")).await.unwrap();
    assert_eq!(browser.eval(&cells).await.unwrap(), "task-b 10.0.1.7 draining 10,000");

    put(&envoy, &json!({"peers": {"task-e": {"host": "10.0.1.5"}}, "routes": {}})).await;
    browser.until(&shows("peer-rows", "task-e")).await.unwrap();
    browser.assert_clean().await.unwrap();
}
