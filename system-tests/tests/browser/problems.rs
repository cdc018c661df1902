//! Each thing that can be red or amber: the page says so, says what to do, and announces it.

use std::time::Duration;

use harness::{Envoy, agents};
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpStream;

use crate::driver::Browser;
use crate::{ask, shows};

/// A page that has seen one route and found nothing wrong.
async fn quiet_page(envoy: &Envoy) -> Browser {
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    browser
}

/// Waits for a problem with this title and this advice, at this level, and for its announcement.
async fn tells(browser: &Browser, level: &str, title: &str, advice: &str, announced: &str) {
    browser.until(&shows("problems", title)).await.unwrap();
    browser.until(&shows("problems", advice)).await.unwrap();
    browser.until(&format!("document.getElementById('health').dataset.level === {}", json!(level))).await.unwrap();
    browser
        .until(&format!("document.getElementById('announcement').textContent.includes({})", json!(announced)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_draining_envoy_is_not_ready() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = quiet_page(&envoy).await;
    envoy.admin_post("/healthcheck/fail").await.unwrap();
    tells(&browser, "bad", "Envoy says DRAINING", "draining before its end", "not ready").await;
    assert_eq!(browser.text("ready").await.unwrap(), "DRAINING");
    envoy.admin_post("/healthcheck/ok").await.unwrap();
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    assert_eq!(browser.text("health").await.unwrap(), "Live");
}

#[tokio::test]
async fn a_filter_that_has_crashed_stays_told() {
    let modules = harness::envoy::modules::locate_trap().unwrap();
    let envoy = Envoy::builder().modules(modules).start().await.unwrap();
    let browser = quiet_page(&envoy).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let trap = || client.get(envoy.data_url()).header("x-deployment-id", "a").header("x-test-trap", "1");
    // The answer is whatever Envoy makes of it. The worker starts its filter anew when it gets its next request, and Envoy
    // hands connections to whichever worker takes them.
    drop(trap().send().await);
    let started_anew = || async {
        ask(&envoy, None).await;
        Ok((envoy.stats().await?.sum(r"^wasm\.pixell\.router\.vm_reload_success$")? > 0).then_some(()))
    };
    harness::wait::until("the filter to be started anew", Duration::from_secs(10), started_anew).await.unwrap();
    tells(&browser, "bad", "The filter has crashed and was started anew", "please report it", "the filter has crashed").await;
}

/// The limit is set below what an Envoy at rest uses, so nothing has to be filled. Envoy may then end any stream, also one of the
/// page, so the console is not asked.
#[tokio::test]
async fn memory_near_its_limit_is_told() {
    let heap = "max_heap_size_bytes: 369098752";
    let envoy = Envoy::builder().edit(heap, "max_heap_size_bytes: 20971520").start().await.unwrap();
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    tells(&browser, "bad", "% of the limit of memory is used", "whoever does not read", "memory run out").await;
}

#[tokio::test]
async fn connections_near_their_limit_are_told_and_it_passes() {
    let shipped = "max_active_downstream_connections: 10000";
    let envoy = Envoy::builder().edit(shipped, &shipped.replace("10000", "5")).start().await.unwrap();
    let browser = quiet_page(&envoy).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpStream::connect(envoy.data_addr()).await.unwrap());
    }
    tells(&browser, "bad", "80 % of the limit of connections is used", "whoever does not read", "connections run out").await;
    drop(held);
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    browser.assert_clean().await.unwrap();
}

/// A wrong token is a fault; a precondition that keeps two writers apart is none.
#[tokio::test]
async fn refused_writes_are_told_by_their_reason_and_a_precondition_is_no_fault() {
    const TOKEN: &str = "a-token-for-the-problems";
    let envoy = Envoy::builder().env("PIXELL_ADMIN_TOKEN", TOKEN).start().await.unwrap();
    envoy.routes().token(TOKEN).put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('route-count').innerText === '1'").await.unwrap();
    let routes = envoy.routes().token(TOKEN);
    let stale = routes.request(Method::DELETE, "/v1/routes/a").header("if-match", "\"0-0\"").send().await.unwrap();
    assert_eq!(stale.status(), 412);
    let seen = "seen.writes.sum('precondition_failed', 60) === 1";
    browser.until(seen).await.unwrap();
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    let wrong = envoy.routes().token("wrong").request(Method::DELETE, "/v1/routes/a").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    tells(
        &browser,
        "bad",
        "write to the route map refused, unauthorized",
        "PIXELL_ADMIN_TOKEN differ",
        "writes refused: unauthorized",
    )
    .await;
}

/// What callers do wrong is amber, each reason with its own advice.
#[tokio::test]
async fn what_callers_do_wrong_is_a_warning_with_advice_of_its_own() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    let draining = json!({"routes": {"a": {"port": agent.port()}, "b": {"port": 5001, "state": "draining"}}});
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&shows("problems", "No route map has been pushed")).await.unwrap();
    assert_eq!(ask(&envoy, Some("a")).await, 503);
    browser.until(&shows("problems", "1 × route_map_not_loaded")).await.unwrap();
    assert_eq!(envoy.routes().put_routes(&draining).await.unwrap().status, 200);
    assert_eq!(ask(&envoy, Some("b")).await, 503);
    assert_eq!(ask(&envoy, Some("not an id")).await, 400);
    assert_eq!(ask(&envoy, None).await, 400);
    tells(&browser, "warn", "1 × deployment_draining", "PAR left them draining", "deployment_draining").await;
    tells(&browser, "warn", "1 × invalid_deployment_id", "an id that is none, or several", "invalid_deployment_id").await;
    tells(&browser, "warn", "1 × missing_deployment_id", "the fault is theirs", "missing_deployment_id").await;
    browser.assert_clean().await.unwrap();
}

/// No stock Envoy makes the filter fail so, and the counter that would tell is put in the page's way instead.
#[tokio::test]
async fn a_fault_of_the_filters_own_is_red() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    let fake = "(() => { const real = window.fetch; window.fetch = async (path, options) => {
        const answer = await real(path, options);
        if (!path.startsWith('/stats') || !window.faults) return answer;
        const found = await answer.json(), name = 'wasmcustom.pixell_rejections_total.reason.internal';
        found.stats = found.stats.filter((one) => one.name !== name).concat({name, value: window.faults});
        return new Response(JSON.stringify(found), {headers: answer.headers});
    }; })()";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": fake})).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    browser.eval("window.faults = 2").await.unwrap();
    tells(&browser, "bad", "2 × internal in the last minute", "Envoy’s log says which", "internal").await;
}
