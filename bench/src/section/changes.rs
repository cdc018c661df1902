//! Requests while the map of 10,000 routes changes 100 times a second, beside requests while it does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::workers::{self, Workers};
use crate::connection::Connection;
use crate::contender::Stage;
use crate::load;
use crate::results::Figure;
use crate::summary::quantile;
use crate::table::id;

const ROUTES: usize = 10_000;
/// Time from one change to the next.
const CHANGE_EVERY: Duration = Duration::from_millis(10);
/// Time from one request to the next, over all workers: far from what Envoy can take, so that queues do not decide.
const REQUEST_EVERY: Duration = Duration::from_millis(2);
/// How many requests make one reading of the 99th percentile.
const REQUESTS: u32 = 1000;

pub(super) async fn measure(stage: &Stage<'_>, rounds: u32) -> Result<Vec<Figure>> {
    let mut workers = Workers::start(stage, ROUTES).await?;
    let (mut quiet, mut changing) = (Vec::new(), Vec::new());
    requests(&mut workers)?;
    for round in 0..rounds {
        // Who goes first alternates.
        if round % 2 == 0 {
            quiet.push(requests(&mut workers)?);
        }
        changing.push(while_changing(&mut workers)?);
        if round % 2 == 1 {
            quiet.push(requests(&mut workers)?);
        }
    }
    let ratios = changing.iter().zip(&quiet).map(|(changing, quiet)| changing / quiet).collect();
    let figure = |what: &str, unit, values| Figure::median(what, unit, values).context("nothing was measured");
    Ok(vec![
        figure("Request p99 with 100 changes/s in a map of 10,000 / without", "", ratios)?.at_most(1.3),
        figure("Request p99 with 100 changes/s in a map of 10,000", "ms", changing)?,
        figure("Request p99 without changes", "ms", quiet)?,
    ])
}

/// The 99th percentile of the requests' times in milliseconds, at a fixed rate over both workers.
fn requests(workers: &mut Workers) -> Result<f64> {
    let mut times = Vec::new();
    let started = Instant::now();
    for number in 0..REQUESTS {
        let due = REQUEST_EVERY * number;
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        // A request that is late because of the one before it counts from when it was due, else the pause would count once.
        let late = started.elapsed() > due + REQUEST_EVERY;
        let sent = if late { started + due } else { Instant::now() };
        let asked = &workers.table.asked;
        let (id, port) = asked.get(number as usize % asked.len().max(1)).context("the map is empty")?;
        let request = load::request(id, *port);
        let count = workers.data.len().max(1);
        let connection = workers.data.get_mut(number as usize % count).context("no worker")?;
        let answer = connection.exchange(&request)?;
        anyhow::ensure!(answer.status() == 200, "Envoy answers {}", answer.status());
        times.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    quantile(&times, 0.99).context("nothing was measured")
}

fn while_changing(workers: &mut Workers) -> Result<f64> {
    let address = workers.envoy.api_addr();
    // A route that nobody asks for, between its own port and one that no route has.
    let (route, home) = (id(1), workers.table.routes.get(1).context("the map is small")?.1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changer = scope.spawn(|| -> Result<u32> {
            let mut api = Connection::open(address)?;
            let started = Instant::now();
            let mut changes = 0;
            while !over.load(Ordering::Relaxed) {
                workers::write(&mut api, &route, if changes % 2 == 0 { 2000 } else { home })?;
                changes += 1;
                std::thread::sleep((CHANGE_EVERY * changes).saturating_sub(started.elapsed()));
            }
            workers::write(&mut api, &route, home)?;
            Ok(changes)
        });
        let value = requests(workers);
        over.store(true, Ordering::Relaxed);
        let changes = changer.join().map_err(|_| anyhow!("the writer failed"))??;
        anyhow::ensure!(changes >= REQUESTS / 20, "only {changes} changes got through");
        value
    })
}
