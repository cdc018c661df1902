//! Changes one route, and measures the time to the response and the time until every worker has routed a request by it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use launcher::filter::Filter;

use super::titled;
use super::workers::Workers;
use crate::contender::{Stage, haproxy};
use crate::results::Figure;
use crate::summary::quantile;
use crate::table::{LARGEST, Table};

/// Writes to each map in one round.
const WRITES: u32 = 50;

pub(super) async fn measure(stage: &Stage<'_>, filter: Filter, rounds: u32) -> Result<Vec<Figure>> {
    let maps = match filter {
        Filter::Wasm => [(20, "20", 2.0), (1000, "1,000", 3.0), (LARGEST, "65,534", 10.0)],
        Filter::Native => [(20, "20", 1.0), (1000, "1,000", 1.0), (LARGEST, "65,534", 1.0)],
    };
    let mut workers = Vec::new();
    for (routes, ..) in maps {
        let started = Workers::start(stage, filter, routes).await.with_context(|| format!("{routes} routes"))?;
        workers.push((started, Vec::new(), Vec::new()));
    }
    // Once is enough.
    let mut haproxy = if filter == Filter::Wasm { Some(Haproxy::start(stage).await?) } else { None };
    let mut haproxy_times = Vec::new();
    for round in 0..rounds {
        for (workers, responded, seen) in &mut workers {
            for write in 0..WRITES {
                let (id, home) = workers.table.requested.first().context("the map is empty")?.clone();
                let port = if (round * WRITES + write).is_multiple_of(2) { workers.spare } else { home };
                let started = Instant::now();
                workers.write(&id, port)?;
                responded.push(started.elapsed().as_secs_f64() * 1e3);
                workers.expect_all(&id, port)?;
                seen.push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
        if let Some(haproxy) = &mut haproxy {
            for write in 0..WRITES {
                haproxy_times.push(haproxy.write(write)?);
            }
        }
    }
    let mut figures = Vec::new();
    for ((_, responded, seen), (_, size, bound)) in workers.into_iter().zip(maps) {
        let title = |what: &str| titled(filter, &format!("One route of {size} changed: {what}, p99"));
        figures.push(p99(&title("time until requests on both workers see it"), seen)?.at_most(bound));
        figures.push(p99(&title("time to the response"), responded)?);
    }
    if haproxy.is_some() {
        let title = "HAProxy's runtime API, one of 10,000 map entries changed: time to the response, p99";
        figures.push(p99(title, haproxy_times)?);
    }
    Ok(figures)
}

/// The 99th percentile of times in milliseconds, with their quartiles.
pub(super) fn p99(what: &str, mut values: Vec<f64>) -> Result<Figure> {
    values.sort_by(f64::total_cmp);
    let value = quantile(&values, 0.99).context("nothing was measured")?;
    let mut figure = Figure::median(what, "ms", values).context("nothing was measured")?;
    figure.value = value;
    Ok(figure)
}

/// HAProxy, whose map is changed by `set map` on its runtime socket.
struct Haproxy {
    _program: crate::child::Program,
    files: haproxy::Files,
    table: Table,
}

impl Haproxy {
    async fn start(stage: &Stage<'_>) -> Result<Self> {
        let table = Table::new(10_000, stage.agents);
        let (program, _, files) = haproxy::start(stage, &table, "writes").await?;
        Ok(Self { _program: program, files, table })
    }

    /// The time of one write, in milliseconds. HAProxy closes the connection after each command.
    fn write(&mut self, number: u32) -> Result<f64> {
        let (id, port) = self.table.requested.first().context("the map is empty")?;
        let started = Instant::now();
        let mut socket = UnixStream::connect(&self.files.socket)?;
        writeln!(socket, "set map {} {id} {}", self.files.map.display(), u32::from(*port) + number % 2)?;
        let mut response = String::new();
        socket.read_to_string(&mut response)?;
        ensure!(response.trim().is_empty(), "HAProxy responded with {response}");
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }
}
