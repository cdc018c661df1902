//! If nobody reads the log, under the image's entry point, only lines are lost.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use harness::{Envoy, agents, wait};

use crate::clients::http2;

/// How many requests are rejected: enough for 150 MiB of log lines.
const REQUESTS: usize = 112_500;
const DROPPED: &str = r"^launcher\.dropped_log_lines_total\b.*";

/// The memory of the process that the supervisor `pid` has started, and of the supervisor itself, in MiB.
fn resident_mib(pid: u32) -> (u64, u64) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let of = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    (of(children.trim()), of(&pid.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_on_and_memory_stays_bounded() {
    // A higher rate than the shipped one for rejections, so that each of them gets a line.
    let envoy = Envoy::builder().log_rate(1 << 20).supervised(env!("CARGO_BIN_EXE_supervised")).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let clients = [http2(), http2(), http2(), http2()];
    let url = envoy.data_url();
    let (before, _) = resident_mib(envoy.pid());
    let path = format!("{url}/{}", "x".repeat(500));
    let reject = |n: usize| {
        let request = clients[n % clients.len()].get(&path).header("x-deployment-id", format!("{n:0128}"));
        async move { request.header("user-agent", "u".repeat(256)).send().await.unwrap().status().as_u16() }
    };
    let statuses: Vec<u16> = stream::iter(0..REQUESTS).map(reject).buffer_unordered(100).collect().await;
    assert!(statuses.iter().all(|status| *status == 404));
    let (after, supervisor) = resident_mib(envoy.pid());
    assert!(after < before + 100, "Envoy: {before} MiB, then {after} MiB");
    assert!(supervisor < 40, "the entry point: {supervisor} MiB");

    // The data path works, and a counter shows the loss.
    for _ in 0..100 {
        let response = clients[0].get(&url).header("x-deployment-id", "a").send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let counted = || async { Ok((envoy.stats().await?.sum(DROPPED)? > 50_000).then_some(())) };
    wait::until("the lost lines to be counted", Duration::from_secs(20), counted).await.unwrap();
    eprintln!("Envoy: {before} MiB, then {after} MiB; the entry point: {supervisor} MiB");
}

/// The same for Envoy's own log, on standard error. The workers write it, so they are what would wait for a reader.
#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_on_however_much_envoy_itself_logs() {
    let envoy = Envoy::builder().supervised(env!("CARGO_BIN_EXE_supervised")).log_level("debug").start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let (client, url) = (http2(), envoy.data_url());
    let call = async || assert_eq!(client.get(&url).header("x-deployment-id", "a").send().await.unwrap().status(), 200);
    // At this level, a request writes some kilobytes. Without the entry point and without a reader, Envoy stopped after 462 requests.
    let dropped = || async {
        for _ in 0..500 {
            call().await;
        }
        let scraped = envoy.admin("/stats/prometheus").await?;
        let count = |line: &str| line.strip_prefix("envoy_launcher_dropped_log_lines_total{stream=\"stderr\"} ")?.parse().ok();
        let dropped: u64 = scraped.lines().find_map(count).unwrap_or_default();
        Ok((dropped > 1000).then_some(()))
    };
    wait::until("lines of the log to be lost", Duration::from_secs(120), dropped).await.unwrap();
    call().await;
    let (after, supervisor) = resident_mib(envoy.pid());
    assert!(after < 250 && supervisor < 40, "Envoy: {after} MiB, the entry point: {supervisor} MiB");
}
