//! Memory of Envoy with a large map above Envoy with an empty one.

use std::fs;

use anyhow::{Context, Result};

use super::workers::{WORKERS, Workers};
use crate::contender::{Stage, envoy};
use crate::results::Figure;
use crate::table::{LARGEST, Table};

pub(super) async fn measure(stage: &Stage<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (routes, size, bound) in [(10_000, "10,000", 8.0), (LARGEST, "65,534", 48.0)] {
        let one = above_empty(stage, routes, 1).await?;
        let many = above_empty(stage, routes, WORKERS).await?;
        let each = many / f64::from(WORKERS);
        figures.push(
            Figure::single(format!("Memory per worker, {WORKERS} workers, {size} routes above one"), "MiB", each)
                .at_most(bound),
        );
        figures.push(Figure::single(format!("- memory of one worker alone, {size} routes above one"), "MiB", one));
        figures.push(Figure::single(
            format!("- memory of one more worker, {size} routes"),
            "MiB",
            (many - one) / f64::from(WORKERS - 1),
        ));
    }
    Ok(figures)
}

/// Resident memory, in MiB, of an Envoy with `routes` routes above the same Envoy with one, after every worker has had requests.
async fn above_empty(stage: &Stage<'_>, routes: usize, count: u32) -> Result<f64> {
    let mut workers = Workers::with_workers(stage, 1, count).await?;
    let before = resident(workers.envoy.pid())?;
    workers.table = Table::new(routes, stage.agents);
    envoy::push(&workers.envoy, &workers.table).await?;
    // Several, so that also a second fetch of the map has happened.
    for (id, port) in workers.table.asked.clone() {
        workers.write(&id, port)?;
        workers.expect_all(&id, port)?;
    }
    Ok(resident(workers.envoy.pid())? - before)
}

/// Resident memory in MiB (`VmRSS`, proc_pid_status(5)).
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel does not tell VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("VmRSS is empty")?.parse()?;
    Ok(kib / 1024.0)
}
