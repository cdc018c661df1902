//! Compares requests while a map of 10,000 routes changes 100 times a second with requests while it does not change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use launcher::filter::Filter;

use super::titled;
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
/// Time from one request to the next, over all workers. It is far below the capacity of Envoy, so that requests do not queue.
const REQUEST_EVERY: Duration = Duration::from_millis(2);
/// How many requests one value of the 99th percentile is taken from.
const REQUESTS: u32 = 1000;

/// What else happens 100 times a second.
#[derive(Clone, Copy, Debug)]
enum Beside {
    /// Nothing.
    Nothing,
    /// A route changes.
    Changes,
    /// A `PUT` of a route that is already in the map: received, logged and responded to like a change, but nothing is published.
    Repeats,
    /// A request on the route API's port that Envoy itself responds to with 404.
    NotFound,
}

impl Beside {
    /// All of them, in the order of even rounds; odd rounds go backwards.
    const ALL: [Self; 4] = [Self::Nothing, Self::NotFound, Self::Repeats, Self::Changes];
}

pub(super) async fn measure(stage: &Stage<'_>, filter: Filter, rounds: u32) -> Result<Vec<Figure>> {
    let mut workers = Workers::start(stage, filter, ROUTES).await?;
    let mut found = [const { Vec::new() }; Beside::ALL.len()];
    requests(&mut workers)?;
    for round in 0..rounds {
        let mut order: Vec<_> = Beside::ALL.iter().zip(&mut found).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (beside, values) in order {
            values.push(requests_beside(&mut workers, *beside)?);
        }
    }
    let [nothing, not_found, repeats, changes] = found;
    let ratio = |what: &str, values: &[f64]| {
        let ratios = values.iter().zip(&nothing).map(|(with, without)| with / without).collect();
        Figure::median(what, "", ratios).context("nothing was measured")
    };
    let time = |what: &str, values| Figure::median(what, "ms", values).context("nothing was measured");
    Ok(vec![
        ratio(&titled(filter, "Request p99 with 100 changes/s in a map of 10,000 / without"), &changes)?.at_most(1.3),
        ratio("- floor: with 100 writes/s that change nothing / without", &repeats)?,
        ratio("- floor: with 100 requests/s that Envoy itself responds to with 404 / without", &not_found)?,
        time(&titled(filter, "Request p99 with 100 changes/s in a map of 10,000"), changes)?,
        time(&titled(filter, "Request p99 with 100 writes/s that change nothing"), repeats)?,
        time(&titled(filter, "Request p99 with 100 requests/s that Envoy itself responds to"), not_found)?,
        time(&titled(filter, "Request p99 without changes"), nothing)?,
    ])
}

/// Sends requests at a fixed rate over both workers. Returns the 99th percentile of their times, in milliseconds.
fn requests(workers: &mut Workers) -> Result<f64> {
    let mut times = Vec::new();
    let started = Instant::now();
    for number in 0..REQUESTS {
        let due = REQUEST_EVERY * number;
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        // If a slow request delays the next ones, their times count from when they were due, so that the delay counts for all of them.
        let late = started.elapsed() > due + REQUEST_EVERY;
        let sent = if late { started + due } else { Instant::now() };
        let requested = &workers.table.requested;
        let (id, port) = requested.get(number as usize % requested.len().max(1)).context("the map is empty")?;
        let request = load::request(id, *port);
        let count = workers.data.len().max(1);
        let connection = workers.data.get_mut(number as usize % count).context("no worker")?;
        let response = connection.exchange(&request)?;
        anyhow::ensure!(response.status() == 200, "Envoy responded with {}", response.status());
        times.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    quantile(&times, 0.99).context("nothing was measured")
}

/// As [`requests`], while `beside` happens 100 times a second.
fn requests_beside(workers: &mut Workers, beside: Beside) -> Result<f64> {
    let address = workers.envoy.api_addr();
    // Changes alternate the port of a route that is never requested: its own port, and one that no route has.
    let (route, home) = (id(1), workers.table.routes.get(1).context("the map is small")?.1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| -> Result<u32> {
            let mut api = Connection::open(address)?;
            let started = Instant::now();
            let mut calls = 0;
            while !over.load(Ordering::Relaxed) {
                match beside {
                    Beside::Nothing => {}
                    Beside::Changes => workers::write(&mut api, &route, if calls % 2 == 0 { 2000 } else { home })?,
                    Beside::Repeats => workers::write(&mut api, &route, home)?,
                    Beside::NotFound => workers::not_found(&mut api)?,
                }
                calls += 1;
                std::thread::sleep((CHANGE_EVERY * calls).saturating_sub(started.elapsed()));
            }
            if matches!(beside, Beside::Changes) {
                workers::write(&mut api, &route, home)?;
            }
            Ok(calls)
        });
        let value = requests(workers);
        over.store(true, Ordering::Relaxed);
        let calls = other.join().map_err(|_| anyhow!("the thread of the other calls panicked"))??;
        anyhow::ensure!(calls >= REQUESTS / 20, "the machine is too slow: there were only {calls} other calls");
        value
    })
}
