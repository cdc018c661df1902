//! The status page in a real browser: Debian's Chromium, headless, against a real Envoy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is how a test fails"
)]

mod driver;

use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use driver::Browser;
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy, agents, workspace};
use serde_json::{Map, Value, json};

const TOKEN: &str = "a-token-for-the-status-page";

/// Where pictures go: beside the build, or, where `PIXELL_SCREENSHOTS` names a directory, there.
fn picture(name: &str) -> PathBuf {
    let directory =
        std::env::var_os("PIXELL_SCREENSHOTS").map_or_else(|| workspace::target().join("screenshots"), PathBuf::from);
    std::fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}

async fn ask(envoy: &Envoy, id: Option<&str>) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.get(envoy.data_url());
    if let Some(id) = id {
        request = request.header(DEPLOYMENT_ID, id);
    }
    request.send().await.unwrap().status().as_u16()
}

/// Routes as PAR's look: ids are UUIDs.
fn many_routes(count: u16) -> Value {
    let route = |n: u16| {
        let state = if n % 50 == 7 { "draining" } else { "active" };
        (
            format!("{:08x}-{n:04x}-4000-8000-{:012x}", u32::from(n).wrapping_mul(2_654_435_761), u64::from(n) * 7_919),
            json!({"port": 20_000 + n, "state": state}),
        )
    };
    json!({"routes": (0..count).map(route).collect::<Map<_, _>>()})
}

#[tokio::test]
async fn shows_what_happens_without_a_reload() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent: Agent = agents::echo::start("agent-a").unwrap();
    let browser = Browser::start(1200, 1500, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('ready').innerText === 'LIVE'").await.unwrap();
    browser.until("document.getElementById('problems').innerText.includes('No route map has been pushed')").await.unwrap();
    browser.eval("window.opened = 'once'").await.unwrap();

    // A pushed route appears.
    let mut routes = many_routes(30);
    routes["routes"]["agent-a"] = json!({"port": agent.port()});
    assert_eq!(envoy.routes().put_routes(&routes).await.unwrap().status, 200);
    browser.until("document.getElementById('route-count').innerText === '31'").await.unwrap();
    browser.until("document.getElementById('rows').innerText.includes('agent-a')").await.unwrap();
    assert_eq!(browser.text("generation").await.unwrap(), "1");
    assert!(browser.text("last-push").await.unwrap().ends_with("ago"));
    let status = envoy.routes().status().await.unwrap().json().unwrap();
    assert_eq!(json!(browser.text("epoch").await.unwrap()), status["epoch"]);
    assert_eq!(json!(browser.text("version").await.unwrap()), status["version"]);
    assert_eq!(browser.text("envoy").await.unwrap(), workspace::envoy_version().unwrap());
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    assert_eq!(browser.text("health").await.unwrap(), "Live");

    // Requests and a rejection move their charts, and the page says what to do.
    for _ in 0..20 {
        assert_eq!(ask(&envoy, Some("agent-a")).await, 200);
    }
    browser.until("document.querySelectorAll('#requests-chart rect').length > 0").await.unwrap();
    assert_eq!(browser.eval("document.querySelectorAll('#rejections-chart rect').length").await.unwrap(), 0);
    for _ in 0..3 {
        assert_eq!(ask(&envoy, Some("nobody")).await, 404);
    }
    assert_eq!(ask(&envoy, None).await, 400);
    browser.until("document.querySelectorAll('#rejections-chart rect').length > 0").await.unwrap();
    browser.until("document.getElementById('rejections-legend').innerText.includes('unknown_deployment')").await.unwrap();
    browser.until("document.getElementById('problems').innerText.includes('× unknown_deployment')").await.unwrap();
    browser
        .until("document.getElementById('rejections-chart').getAttribute('aria-label').includes('3 unknown_deployment')")
        .await
        .unwrap();

    // An agent that is gone.
    agent.kill();
    assert_eq!(ask(&envoy, Some("agent-a")).await, 503);
    browser.until("document.querySelectorAll('#failures-chart rect').length > 0").await.unwrap();
    browser.until("document.getElementById('problems').innerText.includes('could not be reached')").await.unwrap();
    browser.screenshot(&picture("status-page.png")).await.unwrap();
    assert_eq!(browser.eval("window.opened").await.unwrap(), "once", "the page was never loaded anew");
    browser.assert_clean().await.unwrap();
}

#[tokio::test]
async fn a_stopped_envoy_shows_as_such_and_a_new_one_is_found() {
    let mut envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    browser.assert_clean().await.unwrap();
    envoy.kill().unwrap();
    browser.until("document.getElementById('health').innerText === 'Envoy does not answer'").await.unwrap();
    browser.until("document.title.includes('does not answer')").await.unwrap();
    browser.screenshot(&picture("status-page-stopped.png")).await.unwrap();
    // Every request that finds nobody is an error of the browser's own; there must be no other.
    let console = browser.console().await.unwrap();
    assert!(console.iter().all(|line| line.contains("net::ERR_")), "{console:#?}");
    envoy.restart().await.unwrap();
    browser.until("document.getElementById('problems').innerText.includes('No route map has been pushed')").await.unwrap();
    assert_eq!(browser.text("route-count").await.unwrap(), "0");
    assert_eq!(browser.eval("document.querySelectorAll('#rows tr').length").await.unwrap(), 0);
}

#[tokio::test]
async fn ten_thousand_routes_are_searched_sorted_and_paged() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    envoy.routes().put_routes(&many_routes(10_000)).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('found').innerText === '10000 routes'").await.unwrap();
    assert_eq!(browser.text("page").await.unwrap(), "Page 1 of 100");
    assert_eq!(browser.eval("document.querySelectorAll('#rows tr').length").await.unwrap(), 100);

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
    assert_eq!(search("25000").await, "1 of 10000 routes");
    assert!(browser.text("rows").await.unwrap().contains("25000"));
    assert_eq!(search("draining").await, "200 of 10000 routes");
    assert_eq!(search("no such route").await, "0 of 10000 routes");
    assert_eq!(search("-4000-8000-").await, "10000 of 10000 routes");
    // Markup is text, here as anywhere.
    assert_eq!(search("<img src=x onerror=alert(1)>").await, "0 of 10000 routes");
    search("").await;

    browser.eval("document.querySelector('[data-sort=port]').click()").await.unwrap();
    let first = "document.querySelector('#rows tr td:nth-child(2)').innerText";
    assert_eq!(browser.eval(first).await.unwrap(), "20000");
    browser.eval("document.querySelector('[data-sort=port]').click()").await.unwrap();
    assert_eq!(browser.eval(first).await.unwrap(), "29999");
    let sorted = "document.querySelector('[data-sort=port]').parentElement.getAttribute('aria-sort')";
    assert_eq!(browser.eval(sorted).await.unwrap(), "descending");
    browser.eval("document.getElementById('next').click()").await.unwrap();
    assert_eq!(browser.eval(first).await.unwrap(), "29899");
    browser.assert_clean().await.unwrap();
}

/// No id can contain markup, so what an Envoy with another idea of ids would send is put in the page's way.
#[tokio::test]
async fn an_id_with_markup_is_text() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    let evil = "<img src=x onerror=\"window.evil=1\"><script>window.evil=1</script>";
    let body = json!({"epoch": "00", "generation": 1, "routes": {evil: {"port": 5000, "state": "<b>bold</b>"}}});
    let fake = format!(
        "(() => {{ const real = window.fetch; window.fetch = (path, options) => path === '/v1/routes'
        ? Promise.resolve(new Response({}, {{headers: {{etag: '\"x-' + Math.random() + '\"'}}}})) : real(path, options); }})()",
        json!(body.to_string())
    );
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": fake})).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.querySelectorAll('#rows tr').length === 1").await.unwrap();
    assert_eq!(browser.eval("document.querySelector('#rows td').textContent").await.unwrap(), evil);
    assert_eq!(browser.eval("document.querySelectorAll('#rows img, #rows script, #rows b').length").await.unwrap(), 0);
    assert_eq!(browser.eval("window.evil === undefined").await.unwrap(), true);
    browser.assert_clean().await.unwrap();
}

#[tokio::test]
async fn the_map_asks_for_the_token_where_there_is_one() {
    let envoy = Envoy::builder().env("PIXELL_ADMIN_TOKEN", TOKEN).start().await.unwrap();
    envoy.routes().token(TOKEN).put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("!document.getElementById('token-form').hidden").await.unwrap();
    // The counters are there all the same.
    browser.until("document.getElementById('route-count').innerText === '1'").await.unwrap();
    assert_eq!(browser.eval("document.getElementById('map-view').hidden").await.unwrap(), true);
    assert!(!browser.eval("document.body.innerText").await.unwrap().as_str().unwrap().contains("5000"));

    let give = async |token: &str| {
        browser.eval("document.getElementById('token').focus()").await.unwrap();
        // U+E007 is the Enter key.
        browser.press(&format!("{token}\u{e007}")).await.unwrap();
    };
    give("wrong").await;
    browser.until("document.getElementById('map-note').innerText.includes('not the right one')").await.unwrap();
    give(TOKEN).await;
    browser.until("document.getElementById('rows').innerText.includes('5000')").await.unwrap();
    assert_eq!(browser.eval("document.activeElement.id").await.unwrap(), "search");
    assert_eq!(browser.eval("localStorage.length + sessionStorage.length").await.unwrap(), 0, "the token is kept nowhere");
    // One refusal each for no token and for the wrong one, and not one every two seconds.
    let console = browser.console().await.unwrap();
    assert_eq!(console.iter().filter(|line| line.contains("401")).count(), 2, "{console:#?}");
    assert_eq!(console.len(), 2, "{console:#?}");
}

/// This machine's address on the network, by asking for the way to another one; nothing is sent.
fn own_address() -> Ipv4Addr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).expect("a network beside the loopback interface");
    match socket.local_addr().unwrap().ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => address,
        other => panic!("{other} is no address on a network"),
    }
}

#[tokio::test]
async fn strangers_see_the_counters_and_no_map() {
    let envoy = Envoy::builder().bind(Ipv4Addr::UNSPECIFIED).start().await.unwrap();
    envoy.routes().put_all([("secret-id", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&format!("http://{}:{}/", own_address(), envoy.api_addr().port())).await.unwrap();
    browser.until("document.getElementById('map-note').innerText.includes('127.0.0.1 alone')").await.unwrap();
    browser.until("document.getElementById('route-count').innerText === '1'").await.unwrap();
    assert!(!browser.eval("document.body.innerText").await.unwrap().as_str().unwrap().contains("secret-id"));
}

#[tokio::test]
async fn fits_a_phone_in_the_dark() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_routes(&many_routes(300)).await.unwrap();
    let browser = Browser::start(360, 1600, &[]).await.unwrap();
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    browser.devtools("Emulation.setEmulatedMedia", dark).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.querySelectorAll('#rows tr').length === 100").await.unwrap();
    ask(&envoy, None).await;
    browser.until("document.querySelectorAll('#rejections-chart rect').length > 0").await.unwrap();
    let overflow = browser.eval("document.documentElement.scrollWidth - window.innerWidth").await.unwrap();
    assert!(overflow.as_i64().unwrap() <= 0, "the page is {overflow} px wider than the phone");
    let small = browser
        .eval("[...document.querySelectorAll('input, .pager button')].filter((e) => e.offsetParent && e.offsetHeight < 40).length")
        .await
        .unwrap();
    assert_eq!(small, 0, "a finger hits every control");
    let ground = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.eval(ground).await.unwrap(), "rgb(16, 20, 24)");
    browser.screenshot(&picture("status-page-phone-dark.png")).await.unwrap();
    browser
        .devtools("Emulation.setEmulatedMedia", json!({"features": [{"name": "prefers-color-scheme", "value": "light"}]}))
        .await
        .unwrap();
    assert_eq!(browser.eval(ground).await.unwrap(), "rgb(246, 247, 249)");
    browser.assert_clean().await.unwrap();
}

#[tokio::test]
async fn keyboard_and_screen_reader_find_everything() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_routes(&many_routes(300)).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.querySelectorAll('#rows tr').length === 100").await.unwrap();
    // U+E004 is the Tab key: the skip link first, then everything that can be used, in the order it is read.
    let mut stops = Vec::new();
    for _ in 0..7 {
        browser.press("\u{e004}").await.unwrap();
        let stop = browser.eval("document.activeElement.id || document.activeElement.innerText.trim()").await.unwrap();
        stops.push(stop.as_str().unwrap().to_owned());
        let visible =
            "(() => { const box = document.activeElement.getBoundingClientRect(); return box.width > 0 && box.left >= 0; })()";
        assert_eq!(browser.eval(visible).await.unwrap(), true, "{stops:?}");
    }
    let expected = ["Skip to the route map", "search", "Deployment id", "Port", "State", "next", "/stats/prometheus"];
    assert_eq!(stops, expected);

    // What assistive technology is told: every control and picture has a name, and changes are announced.
    let tree = browser.devtools("Accessibility.getFullAXTree", json!({})).await.unwrap();
    let nodes = tree["nodes"].as_array().unwrap();
    for role in ["button", "searchbox", "image", "table", "columnheader", "heading", "link", "navigation"] {
        let named: Vec<_> = nodes.iter().filter(|node| node["role"]["value"] == role && node["ignored"] != true).collect();
        assert!(!named.is_empty(), "nothing is a {role}");
        for node in named {
            assert!(node["name"]["value"].as_str().is_some_and(|name| !name.is_empty()), "a {role} has no name: {node}");
        }
    }
    let live = "[...document.querySelectorAll('[role=status], [role=alert]')].map((e) => e.id).join()";
    assert_eq!(browser.eval(live).await.unwrap(), "health,problem-list,map-note,found");
    assert_eq!(browser.eval("document.documentElement.lang").await.unwrap(), "en");
    browser.assert_clean().await.unwrap();
}
