//! The page shows changes in Envoy without a reload.

use harness::{Agent, Envoy, agents};
use reqwest::Method;
use serde_json::json;

use crate::driver::Browser;
use crate::{ask, has_bars, has_rows, many_routes, pictures, shows};

#[tokio::test]
async fn changes_appear_without_a_reload() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent: Agent = agents::echo::start("agent-a").unwrap();
    let browser = Browser::start(1200, 1500, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('ready').innerText === 'LIVE'").await.unwrap();
    browser.until(&shows("problems", "No route map has been pushed")).await.unwrap();
    assert_eq!(browser.text("last-push").await.unwrap(), "never");
    browser.eval("window.opened = 'once'").await.unwrap();

    // A pushed route appears.
    let mut routes = many_routes(30);
    routes["routes"]["agent-a"] = json!({"port": agent.port()});
    assert_eq!(envoy.routes().put_routes(&routes).await.unwrap().status, 200);
    browser.until("document.getElementById('route-count').innerText === '31'").await.unwrap();
    browser.until(&shows("rows", "agent-a")).await.unwrap();
    assert_eq!(browser.text("found").await.unwrap(), "31 routes, 1 draining");
    assert_eq!(browser.text("generation").await.unwrap(), "1");
    assert!(browser.text("last-push").await.unwrap().ends_with("ago"));
    let status = envoy.routes().status().await.unwrap().json().unwrap();
    assert_eq!(json!(browser.text("epoch").await.unwrap()), status["epoch"]);
    assert_eq!(json!(browser.text("version").await.unwrap()), status["version"]);
    assert_eq!(browser.text("envoy").await.unwrap(), workspace::envoy_version().unwrap());
    assert!(browser.text("memory").await.unwrap().ends_with("% of its limit"));
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    assert_eq!(browser.text("health").await.unwrap(), "Live");
    assert_eq!(browser.eval("document.title").await.unwrap(), "pixell-envoy");

    // Requests and a rejection move their charts, and the page says what to do.
    for _ in 0..20 {
        assert_eq!(ask(&envoy, Some("agent-a")).await, 200);
    }
    browser.until(&has_bars("requests")).await.unwrap();
    assert_eq!(browser.eval(&has_bars("rejections")).await.unwrap(), false);
    for _ in 0..3 {
        assert_eq!(ask(&envoy, Some("nobody")).await, 404);
    }
    assert_eq!(ask(&envoy, None).await, 400);
    browser.until(&has_bars("rejections")).await.unwrap();
    browser.until(&shows("rejections-legend", "unknown_deployment")).await.unwrap();
    browser.until(&shows("problems", "3 × unknown_deployment in the last minute")).await.unwrap();
    let label = "document.getElementById('rejections-chart').getAttribute('aria-label').includes('3 unknown_deployment')";
    browser.until(label).await.unwrap();
    // A client's error is a warning. It is announced once, because the announcement has no number that changes at every poll.
    assert_eq!(browser.eval("document.getElementById('health').dataset.level").await.unwrap(), "warn");
    browser.until("document.getElementById('announcement').textContent.includes('unknown_deployment')").await.unwrap();
    assert!(!browser.eval("document.getElementById('announcement').textContent").await.unwrap().to_string().contains('3'));

    // A rejected write.
    let write = envoy.routes().request(Method::PUT, "/v1/routes").header("content-type", "application/json").body("{");
    assert_eq!(write.send().await.unwrap().status(), 400);
    browser.until(&shows("problems", "1 × write to the route map rejected, malformed_json")).await.unwrap();

    // An agent that is gone.
    agent.kill();
    assert_eq!(ask(&envoy, Some("agent-a")).await, 503);
    browser.until(&has_bars("failures")).await.unwrap();
    browser.until(&shows("problems", "× connection to an agent failed")).await.unwrap();
    assert_eq!(browser.eval("document.getElementById('health').dataset.level").await.unwrap(), "bad");
    pictures::take(&browser, &envoy, "status-page.png").await;
    assert_eq!(browser.eval("window.opened").await.unwrap(), "once", "the page was reloaded");
    browser.assert_clean().await.unwrap();
}

/// A response that breaks off is shown differently from an agent that cannot be reached.
#[tokio::test]
async fn an_agent_that_breaks_off_is_a_problem_of_its_own() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::raw::start("breaks", |mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream.read_u8().await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await
    });
    let agent = agent.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    assert_eq!(ask(&envoy, Some("a")).await, 200);
    browser.until(&has_bars("failures")).await.unwrap();
    browser.until(&shows("problems", "1 × request broken off by its agent")).await.unwrap();
    browser.assert_clean().await.unwrap();
}

#[tokio::test]
async fn a_stopped_envoy_is_shown_and_a_new_one_is_found() {
    let mut envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    envoy.routes().put_routes(&many_routes(3)).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    ask(&envoy, None).await;
    browser.until(&has_bars("rejections")).await.unwrap();
    browser.assert_clean().await.unwrap();
    let page = envoy.routes().get("/").await.unwrap().body;
    envoy.kill().unwrap();
    browser.until("document.getElementById('health').innerText === 'Envoy does not respond'").await.unwrap();
    browser.until("document.title.includes('does not respond')").await.unwrap();
    assert_eq!(browser.text("ready").await.unwrap(), "no response");
    pictures::take_of(&browser, &page, "status-page-stopped.png").await;
    // The browser logs an error for each request that fails to connect. There must be no other errors.
    let console = browser.console().await.unwrap();
    assert!(console.iter().all(|line| line.contains("net::ERR_")), "{console:#?}");
    envoy.restart().await.unwrap();
    browser.until(&shows("problems", "No route map has been pushed")).await.unwrap();
    browser.until("document.getElementById('route-count').innerText === '0'").await.unwrap();
    browser.until(&has_rows(0)).await.unwrap();
    assert_eq!(browser.text("epoch").await.unwrap(), "none yet");
}

/// A process that holds its ports and does nothing is as bad as none, and the page does not wait for it forever.
#[tokio::test]
async fn a_frozen_envoy_is_shown_and_is_live_again_when_it_continues() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    envoy.freeze().unwrap();
    let shown = browser.until("document.getElementById('health').innerText === 'Envoy does not respond'").await;
    envoy.thaw().unwrap();
    shown.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    browser.until(&has_rows(1)).await.unwrap();
}
