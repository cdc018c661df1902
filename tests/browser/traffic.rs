//! Which route fails and which draining agent is idle, as the page shows it from Envoy's counts for each port.

use harness::proto::{self, DEPLOYMENT_ID, Empty};
use harness::{Envoy, agents};
use http::StatusCode;
use serde_json::{Value, json};

use crate::driver::Browser;
use crate::{ask, has_rows, shows};

/// The cells of the row of `id`, but for the id itself, and the class of its state.
async fn row(browser: &Browser, id: &str) -> Value {
    let script = format!(
        "(() => {{ const row = [...document.querySelectorAll('#rows tr')].find((row) => row.cells[0].textContent === {});
        return [...row.cells].slice(2).map((cell) => cell.textContent).concat(row.cells[2].className); }})()",
        json!(id)
    );
    browser.eval(&script).await.unwrap()
}

/// Whether the page shows this state of `id`.
fn has_state(id: &str, state: &str) -> String {
    format!(
        "[...document.querySelectorAll('#rows tr')].some((row) => row.cells[0].textContent === {} && row.cells[2].textContent === {})",
        json!(id),
        json!(state)
    )
}

#[tokio::test]
async fn a_dead_route_is_not_green_and_a_draining_one_tells_when_it_is_idle() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (agent, gate) = agents::gate::start("a").unwrap();
    let dead = agents::echo::start("dead").unwrap();
    let dead_port = dead.port();
    envoy.routes().put_all([("a", agent.port()), ("dead", dead_port), ("unused", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&has_rows(3)).await.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    let nothing = json!(["active", "–", "–", "–", "active"]);
    assert_eq!(row(&browser, "unused").await, nothing);

    // Well, then gone: the state says so, and the problem names the route.
    assert_eq!(ask(&envoy, Some("dead")).await, 200);
    browser.until("table.live?.get('dead')?.well === 1").await.unwrap();
    assert_eq!(row(&browser, "dead").await, json!(["active", "0", "0", "0", "active"]));
    dead.kill();
    assert_eq!(ask(&envoy, Some("dead")).await, 503);
    browser.until(&has_state("dead", "active, unreachable")).await.unwrap();
    let told = row(&browser, "dead").await;
    assert_eq!((&told[1], &told[4]), (&json!("0"), &json!("unreachable")), "{told}");
    assert!(told[2].as_str().unwrap().parse::<u32>().unwrap() > 0, "{told}");
    browser.until(&shows("problems", &format!("No connection to dead (port {dead_port})"))).await.unwrap();
    assert_eq!(browser.eval("document.getElementById('health').dataset.level").await.unwrap(), "bad");
    assert_eq!(row(&browser, "unused").await, nothing);

    // Errors alone are shown as errors, until a request succeeds.
    let get = |path: &str| {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("{}{path}", envoy.data_url())).header(DEPLOYMENT_ID, "a").send()
    };
    assert_eq!(get("/fails").await.unwrap().status(), 500);
    browser.until(&has_state("a", "active, failing")).await.unwrap();
    assert_eq!(row(&browser, "a").await, json!(["active, failing", "0", "0", "1", "failing"]));
    browser.until(&shows("problems", &format!("Errors from a (port {})", agent.port()))).await.unwrap();
    assert_eq!(get("/").await.unwrap().status(), 200);
    browser.until(&has_state("a", "active")).await.unwrap();

    // The search finds what fails, and the counts sort.
    browser.eval("$('search').value = 'unreach', $('search').dispatchEvent(new Event('input'))").await.unwrap();
    browser.until(&has_rows(1)).await.unwrap();
    browser.until(&shows("rows", "dead")).await.unwrap();
    browser.eval("$('search').value = '', $('search').dispatchEvent(new Event('input'))").await.unwrap();
    browser.eval("[1, 2].forEach(() => document.querySelector('[data-sort=notConnected]').click())").await.unwrap();
    assert_eq!(browser.eval("document.querySelector('#rows td').textContent").await.unwrap(), "dead");

    // The agent is back.
    let _back = agents::echo::start_on("dead", dead_port).unwrap();
    assert_eq!(ask(&envoy, Some("dead")).await, 200);
    browser.until(&has_state("dead", "active")).await.unwrap();
    browser.until("!document.getElementById('problems').innerText.includes('No connection to')").await.unwrap();

    // Draining: what is in flight, then idle.
    let (first, second) = (tokio::spawn(get("/held")), tokio::spawn(get("/held")));
    browser.until("table.live?.get('a')?.inFlight === 2").await.unwrap();
    let routes = json!({"routes": {"a": {"state": "draining"}, "unused": {"state": "draining"}}});
    let drained = envoy.routes().request(reqwest::Method::PATCH, "/v1/routes").json(&routes).send().await.unwrap();
    assert_eq!(drained.status(), 200);
    browser.until(&has_state("a", "draining, 2 in flight")).await.unwrap();
    browser.until(&has_state("unused", "draining, idle")).await.unwrap();
    gate.open();
    assert_eq!(
        (first.await.unwrap().unwrap().status(), second.await.unwrap().unwrap().status()),
        (StatusCode::OK, StatusCode::OK)
    );
    browser.until(&has_state("a", "draining, idle")).await.unwrap();
    browser.assert_clean().await.unwrap();
}

/// A page that is opened later sees successes and failures of minutes at once. What died meanwhile must not look healthy, and what is connected
/// again must not look dead.
#[tokio::test]
async fn a_route_that_died_before_the_page_was_opened_is_not_green() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (dead, back) = (agents::echo::start("dead").unwrap(), agents::grpc::start("back").unwrap());
    let ports = [dead.port(), back.port()];
    envoy.routes().put_all([("dead", ports[0]), ("back", ports[1])]).await.unwrap();
    let mut grpc = proto::connect(envoy.data_addr()).await.unwrap();
    let mut call = async || grpc.health(proto::request_to("back", Empty {}).unwrap()).await;
    assert_eq!(ask(&envoy, Some("dead")).await, 200);
    call().await.unwrap();
    dead.kill();
    back.kill();
    assert_eq!(ask(&envoy, Some("dead")).await, 503);
    call().await.unwrap_err();
    let _back = agents::grpc::start_on("back", ports[1]).unwrap();
    call().await.unwrap();

    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("table.live?.get('dead')?.well === 1").await.unwrap();
    assert_eq!(row(&browser, "dead").await[0], "active, unreachable");
    assert_eq!(row(&browser, "back").await[0], "active");
    // Later looks know the order.
    let _dead = agents::echo::start_on("dead", ports[0]).unwrap();
    assert_eq!(ask(&envoy, Some("dead")).await, 200);
    browser.until(&has_state("dead", "active")).await.unwrap();
    browser.assert_clean().await.unwrap();
}

/// The counts of a port's earlier owner are not shown for the next one; endpoints count with their route.
#[tokio::test]
async fn a_port_that_has_a_new_owner_counts_anew_and_an_endpoint_belongs_to_its_route() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    let gone = agents::echo::start("gone").unwrap();
    let port = gone.port();
    gone.kill();
    let routes = json!({"routes": {"old": {"port": 5000, "endpoints": {"rest": port}}}});
    assert_eq!(envoy.routes().put_routes(&routes).await.unwrap().status, 200);
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&has_rows(1)).await.unwrap();
    assert_eq!(ask(&envoy, Some("old")).await, 503);
    browser.until(&has_state("old", "active, unreachable")).await.unwrap();
    browser.until(&shows("problems", &format!("No connection to old (port {port})"))).await.unwrap();
    envoy.routes().put_all([("new", port), ("a", agent.port())]).await.unwrap();
    browser.until(&has_state("new", "active")).await.unwrap();
    browser.until("table.live?.has('new')").await.unwrap();
    assert_eq!(row(&browser, "new").await, json!(["active", "0", "0", "0", "active"]));
    browser.assert_clean().await.unwrap();
}

/// The counts need what the map needs: without the token there are none, with it there are.
#[tokio::test]
async fn the_counts_are_for_whom_the_map_is_for() {
    const TOKEN: &str = "a-token-for-the-counts";
    let envoy = Envoy::builder().env("PIXELL_ADMIN_TOKEN", TOKEN).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().token(TOKEN).put_all([("a", agent.port())]).await.unwrap();
    assert_eq!(ask(&envoy, Some("a")).await, 200);
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("!document.getElementById('token-form').hidden").await.unwrap();
    assert_eq!(browser.eval("table.live").await.unwrap(), Value::Null);
    browser.eval("document.getElementById('token').focus()").await.unwrap();
    browser.press(&format!("{TOKEN}\u{e007}")).await.unwrap();
    browser.until("table.live?.get('a')?.well === 1").await.unwrap();
    let console = browser.console().await.unwrap();
    assert_eq!(console.len(), 1, "the map once without the token, and nothing else: {console:#?}");
}
