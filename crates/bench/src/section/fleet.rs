//! The largest fleet map: replaced as a whole, and one of its routes changed.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::RouteApi;
use http::{Method, StatusCode};
use launcher::configuration::ADMIN_PLACE;
use launcher::filter::Filter;
use pixell_core::fleet::limits::{MOST_PEERS, MOST_ROUTES};
use serde_json::{Map, Value, json};

use super::titled;
use super::workers::WORKERS;
use crate::connection::Connection;
use crate::contender::{Stage, envoy};
use crate::results::Figure;
use crate::summary::quantile;
use crate::table::id;

/// Changes of one route in a round.
const CHANGES: usize = 100;

pub(super) async fn measure(stage: &Stage<'_>, filter: Filter, rounds: u32) -> Result<Vec<Figure>> {
    let fleet = format!("{ADMIN_PLACE}, \"fleet\": {{\"peer_cidrs\": [\"10.0.0.0/8\"]}}");
    let builder = envoy::settings(stage).filter(filter).edit(ADMIN_PLACE, &fleet).concurrency(WORKERS);
    let envoy = builder.start().await?;
    stage.cores.give_proxy(envoy.pid())?;
    let api = envoy.routes();
    let mut connection = Connection::open(envoy.api_addr())?;
    let (mut puts, mut changes) = (Vec::new(), Vec::new());
    // Every route leads to another peer in the other body.
    let bodies = [body(0, host), body(1, host)];
    for body in bodies.iter().cycle().take(rounds as usize * 2) {
        puts.push(put(&api, body).await?);
        for number in 0..CHANGES {
            changes.push(change(&mut connection, number)?);
        }
    }
    changes.sort_by(f64::total_cmp);
    let p99 = quantile(&changes, 0.99).context("nothing was measured")?;
    let title = |what: &str| titled(filter, what);
    let whole =
        Figure::median(title("PUT of 100,000 routes of the fleet, all changed"), "ms", puts).context("nothing was measured")?;
    let mut one = Figure::median(title("One route of 100,000 of the fleet changed: time to the response, p99"), "ms", changes)
        .context("nothing was measured")?;
    one.value = p99;
    Ok(vec![whole.at_most(500.0), one.at_most(3.0)])
}

/// The name of a peer.
pub(super) fn peer(number: usize) -> String {
    format!("task-{:032x}", number % MOST_PEERS)
}

/// The address of a peer that need not exist.
pub(super) fn host(number: usize) -> Ipv4Addr {
    let [.., high, low] = u32::try_from(number + 1).unwrap_or(0).to_be_bytes();
    Ipv4Addr::new(10, 0, high, low)
}

/// The largest map, with the peers of its routes turned by so many, at these addresses.
pub(super) fn body(turn: usize, host: impl Fn(usize) -> Ipv4Addr) -> String {
    let peers: Map<String, Value> = (0..MOST_PEERS).map(|number| (peer(number), json!({ "host": host(number) }))).collect();
    let routes: Map<String, Value> = (0..MOST_ROUTES).map(|number| (id(number), json!([peer(number + turn)]))).collect();
    json!({"peers": peers, "routes": routes}).to_string()
}

/// The time of a PUT, in milliseconds.
async fn put(api: &RouteApi, body: &str) -> Result<f64> {
    let request = api.request(Method::PUT, "/v1/fleet").header("content-type", "application/json").body(body.to_owned());
    let started = Instant::now();
    let response = RouteApi::send(request).await?.expect(StatusCode::OK)?;
    let time = started.elapsed().as_secs_f64() * 1e3;
    let done = response.json()?;
    let count = |name: &str| done.get(name).and_then(Value::as_u64).unwrap_or_default();
    ensure!(count("added") + count("changed") >= MOST_ROUTES as u64 - 1, "not every route was changed: {response}");
    Ok(time)
}

/// The time of a change of one route, in milliseconds.
fn change(api: &mut Connection, number: usize) -> Result<f64> {
    move_to(api, &id(7), &[peer(number), peer(number + 1)])
}

/// Gives a route to these peers, and returns the time until the response, in milliseconds.
pub(super) fn move_to(api: &mut Connection, id: &str, peers: &[String]) -> Result<f64> {
    let body = json!({ "routes": { id: peers } }).to_string();
    let request = format!(
        "PATCH /v1/fleet HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let started = Instant::now();
    let status = api.exchange(request.as_bytes())?.status();
    ensure!(status == 200, "the route API responded with {status}");
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
