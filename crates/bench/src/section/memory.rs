//! How much more memory Envoy needs with a large map than with one route.

use anyhow::Result;

use super::workers::{WORKERS, Workers};
use crate::contender::{Stage, envoy};
use crate::results::Figure;
use crate::table::{LARGEST, Table};

pub(super) async fn measure(stage: &Stage<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (routes, size, bound) in [(10_000, "10,000", 8.0), (LARGEST, "65,534", 48.0)] {
        let one = above_one_route(stage, routes, 1).await?;
        let many = above_one_route(stage, routes, WORKERS).await?;
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

/// By how much the memory of an Envoy with `count` workers grows, in MiB, if it has `routes` routes instead of one and every worker has had
/// requests.
async fn above_one_route(stage: &Stage<'_>, routes: usize, count: u32) -> Result<f64> {
    let mut workers = Workers::with_workers(stage, 1, count).await?;
    let before = workers.envoy.resident_bytes()?;
    workers.table = Table::new(routes, stage.agents);
    envoy::push(&workers.envoy, &workers.table).await?;
    // Several writes, so that every worker has fetched the map more than once.
    for (id, port) in workers.table.requested.clone() {
        workers.write(&id, port)?;
        workers.expect_all(&id, port)?;
    }
    Ok((workers.envoy.resident_bytes()? as f64 - before as f64) / f64::from(1 << 20))
}
