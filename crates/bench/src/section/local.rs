//! What a fleet costs requests to agents of the same task.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::AddAssign;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::RouteApi;
use http::{Method, StatusCode};
use launcher::filter::Filter;

use super::{fleet, titled};
use crate::contender::{Contender, Stage, envoy};
use crate::load::{Load, Protocol};
use crate::results::Figure;
use crate::table::Table;
use crate::tasks::resolved;

/// How often each of the two is measured in a round, in turn, and for how long.
const TURNS: usize = 4;
const BUSY: Duration = Duration::from_millis(200);
const WARM_UP: Duration = Duration::from_millis(600);

pub(super) async fn measure(stage: &Stage<'_>, filter: Filter, rounds: u32) -> Result<Vec<Figure>> {
    let mut all = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // New processes in each round: the place of a process in memory would decide otherwise, for the ratio is near 1.
        let mut loads = Vec::new();
        for has_fleet in if round % 2 == 0 { [false, true] } else { [true, false] } {
            let contender = start(stage, filter, has_fleet).await?;
            let load = Load::new(Protocol::Http1, contender.address, &contender.requested, &contender.pids)?;
            loads.push((usize::from(has_fleet), load, contender));
        }
        for (_, load, _) in &mut loads {
            load.measure(WARM_UP, Duration::ZERO)?;
        }
        let mut sums = [0.0, 0.0];
        for _ in 0..TURNS {
            for (which, load, _) in &mut loads {
                let cpu = load.measure(BUSY, Duration::ZERO)?.cpu;
                sums.get_mut(*which).context("there are two")?.add_assign(cpu / TURNS as f64);
            }
            loads.reverse();
        }
        for (values, sum) in all.iter_mut().zip(sums) {
            values.push(sum);
        }
    }
    let [off, on] = all;
    let ratios = on.iter().zip(&off).map(|(on, off)| on / off).collect();
    let figure = |what: &str, unit, values| Figure::median(what, unit, values).context("nothing was measured");
    Ok(vec![
        figure(
            &titled(
                filter,
                "CPU per request to an agent of the same task, with a fleet map of 100,000 routes / without a fleet",
            ),
            "",
            ratios,
        )?
        .at_most(1.01),
        figure("- with a fleet", "us", on)?,
        figure("- without", "us", off)?,
    ])
}

async fn start(stage: &Stage<'_>, filter: Filter, has_fleet: bool) -> Result<Contender> {
    let table = Table::new(20, stage.agents);
    let settings = if has_fleet { vec![("PIXELL_FLEET_CIDRS", "10.0.0.0/8".to_owned())] } else { Vec::new() };
    let mut builder = envoy::with_settings(stage, &resolved(&settings)?).filter(filter);
    if has_fleet {
        builder = builder.peer_port(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port());
    }
    let envoy = builder.start().await?;
    envoy::push(&envoy, &table).await?;
    if has_fleet {
        let request = envoy.routes().request(Method::PUT, "/v1/fleet").header("content-type", "application/json");
        RouteApi::send(request.body(fleet::body(0, fleet::host))).await?.expect(StatusCode::OK)?;
    }
    envoy::contender(stage, envoy, table.requested)
}
