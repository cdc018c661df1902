//! Replaces the whole map of 10,000 routes by a map in which every port is different.

use std::time::Instant;

use anyhow::{Context, Result};
use launcher::filter::Filter;
use serde_json::{Map, Value, json};

use super::workers::Workers;
use crate::contender::Stage;
use crate::results::Figure;

const ROUTES: usize = 10_000;

pub(super) async fn measure(stage: &Stage<'_>, rounds: u32) -> Result<Vec<Figure>> {
    let workers = Workers::start(stage, Filter::Wasm, ROUTES).await?;
    let routes = &workers.table.routes;
    let shifted = routes.iter().cycle().skip(1);
    let body = |ports: &mut dyn Iterator<Item = &(String, u16)>| {
        let routes: Map<_, Value> = routes.iter().zip(ports).map(|((id, _), (_, port))| (id.clone(), (*port).into())).collect();
        json!({ "routes": routes })
    };
    let bodies = [body(&mut shifted.clone()), body(&mut routes.iter())];
    let api = workers.routes();
    let mut times = Vec::new();
    for body in bodies.iter().cycle().take(rounds as usize * 2) {
        let started = Instant::now();
        let response = api.put_routes(body).await?.expect(http::StatusCode::OK)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        let changed = response.json()?.get("changed").and_then(Value::as_u64);
        anyhow::ensure!(changed == Some(routes.len() as u64), "not every route was changed: {response}");
    }
    Ok(vec![Figure::median("PUT of 10,000 routes, all changed", "ms", times).context("nothing was measured")?.at_most(100.0)])
}
