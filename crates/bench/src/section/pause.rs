//! How long one changed route keeps a worker from its other work.
//!
//! A worker does one thing at a time, so it pauses while a callback publishes or fetches the map. On a busy machine a clock would also
//! count the time in which the worker was not running. So the CPU time of the worker's thread is measured instead: for a write (the worker
//! that publishes), and for the next request (each worker fetches) less a request without a change.

use std::time::Duration;

use anyhow::{Context, Result};
use launcher::filter::Filter;

use super::workers::{self, Workers};
use crate::contender::Stage;
use crate::cpu_time;
use crate::results::Figure;
use crate::summary::quantile;
use crate::table::LARGEST;

/// Changes in one round.
const CHANGES: u32 = 20;
/// Time for a worker to go back to sleep: the kernel's count for a thread is exact only then.
const SETTLE: Duration = Duration::from_millis(3);

pub(super) async fn measure(stage: &Stage<'_>, rounds: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (routes, size) in [(1000, "1,000"), (10_000, "10,000"), (LARGEST, "65,534")] {
        let mut workers = Workers::start(stage, Filter::Wasm, routes).await?;
        let threads = Threads::of(&workers)?;
        let (mut publish, mut fetch, mut longest, mut reject) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (id, home) = workers.table.requested.first().context("the map is empty")?.clone();
        for change in 0..rounds * CHANGES {
            let port = if change % 2 == 0 { workers.spare } else { home };
            let start = threads.read()?;
            workers.write(&id, port)?;
            let written = threads.read()?;
            workers.expect_all(&id, port)?;
            let fetched = threads.read()?;
            workers.expect_all(&id, port)?;
            let plain = threads.read()?;
            workers::not_found(&mut workers.api)?;
            let rejected = threads.read()?;
            let published = highest(&start, &written);
            reject.push(highest(&plain, &rejected));
            // Each worker's request after the change, less the same request without a change.
            let requests = fetched.iter().zip(&written).zip(plain.iter().zip(&fetched));
            let worst = requests.map(|((after, before), (last, first))| (after - before) - (last - first)).fold(0.0, f64::max);
            publish.push(published);
            fetch.push(worst);
            longest.push(published.max(worst));
        }
        longest.sort_by(f64::total_cmp);
        let bound = quantile(&longest, 0.99).context("nothing was measured")?;
        let mut figure = figure(format!("Longest pause of a worker for one changed route of {size} (CPU time), p99"), longest)?;
        figure.value = bound;
        figures.push(if routes == LARGEST { figure.at_most(1.0) } else { figure });
        figures.push(self::figure(format!("- the worker that publishes, {size} routes, median"), publish)?);
        let floor = format!("- floor: that worker for a request that Envoy itself responds to with 404, {size} routes, median");
        figures.push(self::figure(floor, reject)?);
        figures.push(self::figure(format!("- a worker that fetches, {size} routes, median"), fetch)?);
    }
    Ok(figures)
}

fn figure(what: String, values: Vec<f64>) -> Result<Figure> {
    Figure::median(what, "ms", values).context("nothing was measured")
}

fn highest(before: &[f64], after: &[f64]) -> f64 {
    after.iter().zip(before).map(|(after, before)| after - before).fold(0.0, f64::max)
}

/// The worker threads of an Envoy.
struct Threads {
    pid: u32,
    workers: Vec<u32>,
}

impl Threads {
    fn of(workers: &Workers) -> Result<Self> {
        let pid = workers.envoy.pid();
        let threads = cpu_time::threads_named(pid, "wrk:worker")?;
        anyhow::ensure!(threads.len() == workers.data.len(), "Envoy has {} worker threads", threads.len());
        Ok(Self { pid, workers: threads })
    }

    /// CPU time of each worker so far, in milliseconds.
    fn read(&self) -> Result<Vec<f64>> {
        std::thread::sleep(SETTLE);
        self.workers.iter().map(|thread| Ok(cpu_time::of_thread(self.pid, *thread)? as f64 / 1e6)).collect()
    }
}
