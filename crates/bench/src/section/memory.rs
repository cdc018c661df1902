//! How much more memory Envoy needs with the filter than without, and with a large map than with one route.

use anyhow::{Result, ensure};
use harness::EnvoyBuilder;
use launcher::filter::Filter;

use super::titled;
use super::workers::{WORKERS, Workers, one_for_each};
use crate::contender::{Stage, envoy};
use crate::load;
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
    let mut workers = Workers::with_workers(stage, Filter::Wasm, 1, count).await?;
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

/// How much memory this form of the filter takes with 20 routes, with as many workers as the image has on the task that it is made for.
pub(super) async fn above_none(stage: &Stage<'_>, filter: Filter) -> Result<Vec<Figure>> {
    let with = resident(stage, envoy::settings(stage).filter(filter), true).await?;
    let without =
        resident(stage, envoy::address_from_header(envoy::settings(stage).filter(filter).data_filter("")), false).await?;
    let title = titled(filter, "Memory of Envoy with 20 routes above Envoy without the filter on the data path");
    let figure = Figure::single(title, "MiB", with - without);
    Ok(vec![if filter == Filter::Native { figure.at_most(5.0) } else { figure }])
}

/// The memory of an Envoy in MiB, once each worker has had requests to all agents.
async fn resident(stage: &Stage<'_>, settings: EnvoyBuilder, push: bool) -> Result<f64> {
    let table = Table::new(20, stage.agents);
    let envoy = settings.concurrency(WORKERS).start().await?;
    if push {
        envoy::push(&envoy, &table).await?;
    }
    for mut connection in one_for_each(&envoy, WORKERS).await? {
        for (id, port) in table.requested.iter().cycle().take(1000) {
            let status = connection.exchange(&load::request(id, *port))?.status();
            ensure!(status == 200, "Envoy responded with {status}");
        }
    }
    Ok(envoy.resident_bytes()? as f64 / f64::from(1 << 20))
}
