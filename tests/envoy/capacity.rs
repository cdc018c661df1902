//! The figures for capacity planning in docs/operations.md are enough for what Envoy uses here, and not far above it.

use harness::Envoy;
use harness::capacity::{Amounts, measure};
use harness::envoy::is_native;

use crate::operations::section;

/// The figure of the document for `what`, in bytes.
fn planned(what: &str) -> u64 {
    let row = section("## Capacity").lines().find_map(|line| line.strip_prefix(&format!("| {what} | ")));
    let cell = row.unwrap_or_else(|| panic!("no row {what:?}")).split('|').nth(if is_native() { 3 } else { 1 }).unwrap().trim();
    let (number, unit) = cell.split_once(' ').unwrap();
    let unit = match unit {
        "MiB" => 1 << 20,
        "KiB" => 1 << 10,
        "B" => 1,
        other => panic!("{other} is not a unit"),
    };
    number.replace(',', "").parse::<u64>().unwrap() * unit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_planned_capacity_is_enough_and_not_far_off() {
    let amounts = Amounts { connections: 1_000, streams: 100, routes: 10_000, requests: 100 };
    let figures = measure(Envoy::builder, amounts).await.unwrap();
    println!("{figures}");
    for (what, measured) in [
        ("Envoy with one worker", figures.base),
        ("each further worker", figures.worker),
        ("an idle HTTP/2 connection", figures.connection),
        ("a stream whose client does not read", figures.download),
        ("a request whose agent does not read", figures.upload),
        ("a route, with two workers", figures.route),
        ("a full line of the access log", figures.line),
    ] {
        assert!(figures.to_string().contains(what), "`cargo xtask capacity` prints no {what:?}");
        let planned = planned(what);
        assert!(measured <= planned, "{what}: {measured} B, and {planned} B are planned");
        // A worker uses little more than the noise of the measurement.
        let far_more = planned > measured * 8 && measured != figures.worker;
        assert!(!far_more, "{what}: {measured} B, and {planned} B are planned, far more");
    }
    assert!(figures.files <= 40 && figures.worker_files <= 10, "{figures}");
}
