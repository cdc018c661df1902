//! One route of the largest fleet map changed: the time until every worker sends requests by it.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Result, ensure};
use launcher::filter::Filter;

use super::workers::{WORKERS, one_for_each_by};
use super::writes::p99;
use super::{fleet, titled};
use crate::connection::Connection;
use crate::contender::Stage;
use crate::load;
use crate::results::Figure;
use crate::table::id;
use crate::tasks::Tasks;

/// Changes in a round.
const CHANGES: usize = 50;
/// The tasks that the route moves between. They have no Envoy, so that only the first task's counts.
const PEERS: [usize; 2] = [1, 2];

pub(super) async fn measure(stage: &Stage<'_>, filter: Filter, rounds: u32) -> Result<Vec<Figure>> {
    let tasks = Tasks::start(stage, filter, 3, 1, WORKERS, &[]).await?;
    for task in PEERS {
        tasks.respond(task, task.to_string())?;
    }
    // The first two peers exist.
    let host = |number: usize| PEERS.get(number).map_or_else(|| absent(number), |task| tasks.address(*task));
    tasks.put(0, "/v1/routes", "{\"routes\": {}}".to_owned()).await?;
    tasks.put(0, "/v1/fleet", fleet::body(0, host)).await?;
    let [envoy] = tasks.envoys.as_slice() else { anyhow::bail!("one task has an Envoy") };
    let mut data = one_for_each_by(envoy, WORKERS, || tasks.connect(0)).await?;
    let mut api = tasks.api(0)?;
    let id = id(7);
    let (mut responded, mut seen) = (Vec::new(), Vec::new());
    for change in 0..rounds as usize * CHANGES + PEERS.len() {
        let (number, task) = (change % PEERS.len(), PEERS.get(change % PEERS.len()).copied().unwrap_or_default());
        let started = Instant::now();
        let response = fleet::move_to(&mut api, &id, &[fleet::peer(number)])?;
        expect_all(&mut data, &id, task)?;
        // At first each worker connects to each peer.
        if change >= PEERS.len() {
            responded.push(response);
            seen.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    let title = |what: &str| titled(filter, &format!("One route of 100,000 of the fleet changed: {what}, p99"));
    Ok(vec![
        p99(&title("time until requests on both workers go by it"), seen)?.at_most(3.0),
        p99("- time to the response, p99", responded)?,
    ])
}

/// The address of a peer that does not exist, in the network of the tasks.
fn absent(number: usize) -> Ipv4Addr {
    let [.., high, low] = fleet::host(number).octets();
    Ipv4Addr::new(198, 18, 100 + high, low)
}

/// Sends a request to every worker at once, and checks that each response comes from this task.
fn expect_all(data: &mut [Connection], id: &str, task: usize) -> Result<()> {
    let request = load::request(id, 0);
    for connection in &mut *data {
        connection.send(&request)?;
    }
    for connection in data {
        let response = connection.receive()?;
        let body = String::from_utf8_lossy(response.body).into_owned();
        ensure!(body == task.to_string(), "expected a response of task {task}, got {} {body}", response.status());
    }
    Ok(())
}
