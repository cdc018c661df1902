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

/// What happens beside the requests.
#[derive(Clone, Copy, Debug)]
enum Beside {
    /// Nothing.
    Nothing,
    /// A route changes.
    Changes,
    /// The same `PUT` of a route that is so already: received, logged and answered like a change, and nothing is published.
    Repeats,
    /// A path of the route API's port that Envoy refuses by itself: as many requests there as there would be changes.
    Refused,
}

impl Beside {
    /// In the order they are measured in even rounds; odd rounds go the other way.
    const ALL: [Self; 4] = [Self::Nothing, Self::Refused, Self::Repeats, Self::Changes];
}

pub(super) async fn measure(stage: &Stage<'_>, rounds: u32) -> Result<Vec<Figure>> {
    let mut workers = Workers::start(stage, ROUTES).await?;
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
    let [nothing, refused, repeats, changes] = found;
    let ratio = |what: &str, values: &[f64]| {
        let ratios = values.iter().zip(&nothing).map(|(with, without)| with / without).collect();
        Figure::median(what, "", ratios).context("nothing was measured")
    };
    let time = |what: &str, values| Figure::median(what, "ms", values).context("nothing was measured");
    Ok(vec![
        ratio("Request p99 with 100 changes/s in a map of 10,000 / without", &changes)?.at_most(1.3),
        ratio("- floor: with 100 writes/s that change nothing / without", &repeats)?,
        ratio("- floor: with 100 requests/s that Envoy answers itself, by 404 / without", &refused)?,
        time("Request p99 with 100 changes/s in a map of 10,000", changes)?,
        time("Request p99 with 100 writes/s that change nothing", repeats)?,
        time("Request p99 with 100 requests/s that Envoy answers itself", refused)?,
        time("Request p99 without changes", nothing)?,
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

/// As [`requests`], with 100 a second of this beside them.
fn requests_beside(workers: &mut Workers, beside: Beside) -> Result<f64> {
    let address = workers.envoy.api_addr();
    // A route that nobody asks for, between its own port and one that no route has.
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
                    Beside::Refused => workers::refused(&mut api)?,
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
        let calls = other.join().map_err(|_| anyhow!("the other caller failed"))??;
        anyhow::ensure!(calls >= REQUESTS / 20, "only {calls} calls got through");
        value
    })
}
