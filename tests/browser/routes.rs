//! The route map as a table: with many routes, with hostile ids, and by keyboard.

use harness::Envoy;
use reqwest::Method;
use serde_json::json;

use crate::driver::Browser;
use crate::{has_rows, many_routes, shows};

/// The most CPU time that the page's thread may take, with script and layout, for one poll that finds a changed map of ten thousand routes,
/// in milliseconds. A person notices a pause of 100 ms.
const MOST_TASK_MS: f64 = 100.0;

#[tokio::test]
async fn ten_thousand_routes_are_searched_sorted_and_paged() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    envoy.routes().put_routes(&many_routes(10_000)).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('found').innerText === '10,000 routes, 200 draining'").await.unwrap();
    assert_eq!(browser.text("page").await.unwrap(), "Page 1 of 100");
    assert_eq!(browser.eval(&has_rows(100)).await.unwrap(), true);

    let search = async |words: &str| {
        let script = format!(
            "(() => {{ const field = document.getElementById('search'), start = performance.now(); field.value = {};
            field.dispatchEvent(new Event('input')); return performance.now() - start; }})()",
            json!(words)
        );
        let took = browser.eval(&script).await.unwrap().as_f64().unwrap();
        assert!(took < 1000.0, "a search took {took} ms");
        browser.text("found").await.unwrap()
    };
    assert_eq!(search("25000").await, "1 of 10,000 routes");
    assert!(browser.text("rows").await.unwrap().contains("25000"));
    assert_eq!(search("draining").await, "200 of 10,000 routes");
    assert_eq!(search("no such route").await, "0 of 10,000 routes");
    assert_eq!(search("-4000-8000-").await, "10,000 of 10,000 routes");
    // Markup in the search field is text.
    assert_eq!(search("<img src=x onerror=alert(1)>").await, "0 of 10,000 routes");
    search("").await;

    browser.eval("document.querySelector('[data-sort=port]').click()").await.unwrap();
    let first = "document.querySelector('#rows tr td:nth-child(2)').innerText";
    assert_eq!(browser.eval(first).await.unwrap(), "20000");
    browser.eval("document.querySelector('[data-sort=port]').click()").await.unwrap();
    assert_eq!(browser.eval(first).await.unwrap(), "29999");
    let sorted = "[...document.querySelectorAll('#routes th')].map((head) => head.getAttribute('aria-sort')).join()";
    assert_eq!(browser.eval(sorted).await.unwrap(), "none,descending,none,none,none,none");
    browser.eval("document.querySelector('[data-sort=state]').click()").await.unwrap();
    assert_eq!(browser.eval(sorted).await.unwrap(), "none,none,ascending,none,none,none");
    browser.eval("document.querySelector('[data-sort=state]').click()").await.unwrap();
    let draining = "document.querySelector('#rows tr td:nth-child(3)').innerText.startsWith('draining')";
    assert_eq!(browser.eval(draining).await.unwrap(), true);
    browser.eval("document.querySelector('[data-sort=port]').click()").await.unwrap();
    browser.eval("document.getElementById('next').click()").await.unwrap();
    assert_eq!(browser.eval(first).await.unwrap(), "20100");
    browser.assert_clean().await.unwrap();
}

/// A map of ten thousand routes changes at every poll, while a person is on its second page: the page does not freeze and does not jump.
#[tokio::test]
async fn ten_thousand_routes_that_change_do_not_freeze_the_page() {
    const CHANGES: u16 = 5;
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    envoy.routes().put_routes(&many_routes(10_000 - CHANGES)).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&has_rows(100)).await.unwrap();
    browser.eval("document.getElementById('next').click()").await.unwrap();
    // CPU time of the page's thread, so that other load on this machine does not count.
    browser.devtools("Performance.enable", json!({"timeDomain": "threadTicks"})).await.unwrap();
    let busy_ms = async || {
        let metrics = browser.devtools("Performance.getMetrics", json!({})).await.unwrap();
        let metrics = metrics["metrics"].as_array().unwrap();
        metrics.iter().find(|metric| metric["name"] == "TaskDuration").unwrap()["value"].as_f64().unwrap() * 1000.0
    };
    let before = busy_ms().await;
    for change in 0..CHANGES {
        let port = 40_000 + change;
        assert_eq!(envoy.routes().put_route(&format!("zz-{change}"), &json!(port)).await.unwrap().status, 201);
        // The page itself says when it shows the change. Polling for it would take time of the same thread.
        let shown = format!(
            "new Promise((seen) => {{ const found = document.getElementById('found');
            const look = () => found.innerText.replace(',', '').startsWith('{} ') && seen(true);
            new MutationObserver(look).observe(found, {{childList: true, characterData: true, subtree: true}}); look(); }})",
            10_000 - CHANGES + change + 1
        );
        assert_eq!(browser.eval(&shown).await.unwrap(), true);
    }
    let each = (busy_ms().await - before) / f64::from(CHANGES);
    println!("10,000 routes that changed: {each:.1} ms of the page's thread per poll");
    assert!(each < MOST_TASK_MS, "{each} ms per poll");
    assert_eq!(browser.text("page").await.unwrap(), "Page 2 of 100");
    browser.assert_clean().await.unwrap();
}

/// The button for the next page keeps the focus on the last page.
#[tokio::test]
async fn the_last_page_does_not_take_the_focus() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    envoy.routes().put_routes(&many_routes(150)).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&has_rows(100)).await.unwrap();
    browser.eval("document.getElementById('next').focus()").await.unwrap();
    // Space presses the button. The second press is already on the last page.
    browser.press("  ").await.unwrap();
    assert_eq!(browser.text("page").await.unwrap(), "Page 2 of 2");
    assert_eq!(browser.eval("document.activeElement.id").await.unwrap(), "next");
    assert_eq!(browser.eval("document.activeElement.getAttribute('aria-disabled')").await.unwrap(), "true");
    assert_eq!(browser.eval(&has_rows(50)).await.unwrap(), true);
    browser.assert_clean().await.unwrap();
}

/// Ids cannot contain markup, so the test gives the page a response that Envoy never sends.
#[tokio::test]
async fn an_id_with_markup_is_text() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    let evil = "<img src=x onerror=\"window.evil=1\"><script>window.evil=1</script>";
    let body = json!({"epoch": "<i>0</i>", "generation": 1, "routes": {evil: {"port": 5000, "state": "<b>bold</b>"}}});
    let fake = format!(
        "(() => {{ const real = window.fetch; window.fetch = (path, options) => path === '/v1/routes'
        ? Promise.resolve(new Response({}, {{headers: {{etag: '\"x-' + Math.random() + '\"'}}}})) : real(path, options); }})()",
        json!(body.to_string())
    );
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": fake})).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&has_rows(1)).await.unwrap();
    assert_eq!(browser.eval("document.querySelector('#rows td').textContent").await.unwrap(), evil);
    browser.until(&shows("epoch", "<i>0</i>")).await.unwrap();
    assert_eq!(browser.eval("document.querySelectorAll('main :is(img, script, b, i)').length").await.unwrap(), 0);
    assert_eq!(browser.eval("window.evil === undefined").await.unwrap(), true);
    browser.assert_clean().await.unwrap();
}

/// The counters continue if the map cannot be read.
#[tokio::test]
async fn a_failing_route_api_is_not_shown_as_a_failing_envoy() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    let fake = "(() => { const real = window.fetch; window.fetch = (path, options) => path === '/v1/routes' && window.broken
        ? Promise.resolve(new Response('', {status: 503})) : real(path, options); })()";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": fake})).await.unwrap();
    envoy.routes().put_all([("a-b_c.D", 5000)]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&shows("rows", "a-b_c.D")).await.unwrap();
    browser.eval("window.broken = true").await.unwrap();
    browser.until(&shows("map-note", "The route API responded with 503: what is shown may be old.")).await.unwrap();
    assert_eq!(browser.text("health").await.unwrap(), "Live");
    browser.eval("window.broken = false").await.unwrap();
    browser.until("document.getElementById('map-note').hidden").await.unwrap();
    let deleted = envoy.routes().request(Method::DELETE, "/v1/routes/a-b_c.D").send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    browser.until(&has_rows(0)).await.unwrap();
}
