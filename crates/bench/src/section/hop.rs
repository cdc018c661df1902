//! The time that a hop adds: requests to an agent through another task, beside requests straight to the agent's task.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::certificate;
use launcher::filter::Filter;
use serde_json::json;

use super::titled;
use crate::agents;
use crate::connection::Connection;
use crate::contender::Stage;
use crate::load;
use crate::results::Figure;
use crate::summary::quantile;
use crate::table::id;
use crate::tasks::Tasks;

/// How many requests a connection carries in a second, and how many in a round.
type Rate = (u32, u32);
const RARE: Rate = (50, 150);
const OFTEN: Rate = (400, 800);
/// Requests on each connection before anything counts.
const WARM_UP: u32 = 200;

/// The times of both ways at one rate: a median and a 99th percentile for each round, in milliseconds.
#[derive(Default)]
struct Times {
    medians: [Vec<f64>; 2],
    highest: [Vec<f64>; 2],
}

pub(super) async fn measure(stage: &Stage<'_>, filter: Filter, rounds: u32) -> Result<Vec<Figure>> {
    let mut figures = between(stage, filter, rounds, &[RARE, OFTEN], "", &[]).await?;
    let directory = tempfile::tempdir()?;
    let certificates = certificate::of_peers(directory.path())?;
    figures.extend(between(stage, filter, rounds, &[OFTEN], "with certificates, ", &certificates).await?);
    Ok(figures)
}

/// The figures of two tasks with these settings, which `kind` names.
async fn between(
    stage: &Stage<'_>,
    filter: Filter,
    rounds: u32,
    rates: &[Rate],
    kind: &str,
    settings: &[(&'static str, String)],
) -> Result<Vec<Figure>> {
    let tasks = Tasks::start(stage, filter, 2, 2, 1, settings).await?;
    let (port, id) = (tasks.agent(1)?, id(0));
    tasks.put(0, "/v1/routes", json!({"routes": {}}).to_string()).await?;
    tasks.put(1, "/v1/routes", json!({"routes": {&id: port}}).to_string()).await?;
    let fleet = json!({"peers": {"owner": {"host": tasks.address(1)}}, "routes": {&id: ["owner"]}});
    tasks.put(0, "/v1/fleet", fleet.to_string()).await?;

    // Through the edge, and straight to the owner.
    let mut ways = [tasks.connect(0)?, tasks.connect(1)?];
    let request = load::request(&id, port);
    paced(&mut ways, &request, port, 1_000_000, WARM_UP)?;
    let mut found: Vec<_> = rates.iter().map(|_| Times::default()).collect();
    for _ in 0..rounds {
        for (&(rate, requests), times) in rates.iter().zip(&mut found) {
            let sorted = paced(&mut ways, &request, port, rate, requests)?;
            for ((sorted, medians), highest) in sorted.iter().zip(&mut times.medians).zip(&mut times.highest) {
                medians.push(quantile(sorted, 0.5).context("no request was sent")?);
                highest.push(quantile(sorted, 0.99).context("no request was sent")?);
            }
        }
    }
    let mut figures = Vec::new();
    for ((rate, _), Times { medians, highest }) in rates.iter().zip(found) {
        for (what, values, bound) in [("median", medians, 0.4), ("p99", highest, 1.0)] {
            let [through, straight] = values;
            let added = through.iter().zip(&straight).map(|(through, straight)| through - straight).collect();
            let figure = |what: String, values| Figure::median(what, "ms", values).context("nothing was measured");
            let title = format!("Time that a hop adds to a request, {kind}{rate} requests/s on one connection, {what}");
            figures.push(figure(titled(filter, &title), added)?.at_most(bound));
            figures.push(figure(format!("- through the task without the agent, {what}"), through)?);
            figures.push(figure(format!("- straight to the task that has it, {what}"), straight)?);
        }
    }
    Ok(figures)
}

/// Sends `requests` requests each way, in turn, at most `rate` of them a second each way. Returns the times of both ways, in milliseconds,
/// the shortest first.
fn paced(ways: &mut [Connection; 2], request: &[u8], port: u16, rate: u32, requests: u32) -> Result<[Vec<f64>; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    let (started, every) = (Instant::now(), Duration::from_secs(1) / rate / 2);
    let mut due = Duration::ZERO;
    for _ in 0..requests {
        for (way, times) in ways.iter_mut().zip(&mut times) {
            std::thread::sleep(due.saturating_sub(started.elapsed()));
            due += every;
            let sent = Instant::now();
            let response = way.exchange(request)?;
            let took = sent.elapsed();
            ensure!(
                response.status() == 200 && response.body == agents::body(port).as_bytes(),
                "got {} {}",
                response.status(),
                String::from_utf8_lossy(response.body)
            );
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    Ok(times)
}
