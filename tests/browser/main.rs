//! The status page and agents in a real browser: Debian's Chromium, headless, against a real Envoy. One topic a file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is how a test fails"
)]

mod access;
mod agents;
mod driver;
mod fleet;
mod live;
mod looks;
mod pictures;
mod problems;
mod readme;
mod routes;
mod traffic;

use driver::Browser;
use harness::Envoy;
use harness::proto::DEPLOYMENT_ID;
use serde_json::{Map, Value, json};

/// Whether the chart of this name has a bar. Grey bars do not count.
fn has_bars(chart: &str) -> String {
    format!("document.querySelectorAll('#{chart}-chart .bar').length > 0")
}

/// Whether the element with this id shows these words.
fn shows(id: &str, words: &str) -> String {
    format!("document.getElementById({}).innerText.includes({})", json!(id), json!(words))
}

/// Whether the table has this many rows.
fn has_rows(count: usize) -> String {
    format!("document.querySelectorAll('#rows tr').length === {count}")
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

async fn ask(envoy: &Envoy, id: Option<&str>) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.get(envoy.data_url());
    if let Some(id) = id {
        request = request.header(DEPLOYMENT_ID, id);
    }
    request.send().await.unwrap().status().as_u16()
}

/// Routes like those of PAR, whose ids are UUIDs.
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
