//! The time from the start of Envoy's process to the first routed request, with and without the filter.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use harness::EnvoyBuilder;
use launcher::filter::Filter;

use super::titled;
use crate::connection::Connection;
use crate::contender::{Stage, envoy};
use crate::load;
use crate::results::Figure;
use crate::table::Table;

/// Time between two attempts.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long a start may take at most.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn measure(stage: &Stage<'_>, filter: Filter, rounds: u32) -> Result<Vec<Figure>> {
    let table = Table::new(1, stage.agents);
    let (id, port) = table.requested.first().context("the bench has no agents")?;
    // The route is in the configuration, so that only Envoy's start is measured, and not the time until a client publishes a map.
    let with = envoy::settings(stage)
        .filter(filter)
        .edit("\"role\": \"admin\"", &format!("\"role\": \"admin\", \"bootstrap_routes\": {{\"{id}\": {port}}}"));
    let without = envoy::address_from_header(envoy::settings(stage).filter(filter).data_filter(""));
    let request = load::request(id, *port);
    let (mut with_filter, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        plain.push(first_response(stage, without.clone(), &request).await?);
        with_filter.push(first_response(stage, with.clone(), &request).await?);
    }
    let above = with_filter.iter().zip(&plain).map(|(filter, plain)| filter - plain).collect();
    let figure = |what: String, values| Figure::median(what, "ms", values).context("nothing was measured");
    let bound = match filter {
        Filter::Wasm => 300.0,
        Filter::Native => 30.0,
    };
    let title = titled(filter, "Start of Envoy to the first routed request, above Envoy without the filter");
    Ok(vec![
        figure(title, above)?.at_most(bound),
        figure("- with the filter".to_owned(), with_filter)?,
        figure("- without the filter".to_owned(), plain)?,
    ])
}

/// Milliseconds from the start of Envoy to an agent's response to `request`.
async fn first_response(stage: &Stage<'_>, settings: EnvoyBuilder, request: &[u8]) -> Result<f64> {
    // A port that is free now and that Envoy listens on in a moment.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let request = request.to_vec();
    let started = Instant::now();
    let client = std::thread::spawn(move || until_response(address, &request, started));
    // Envoy's threads inherit the core of the thread that starts it.
    stage.cores.take_proxy()?;
    let envoy = settings.data_port(address.port()).start().await;
    stage.cores.take_load()?;
    let took = client.join().map_err(|_| anyhow!("the client's thread panicked"))?;
    envoy?;
    took
}

fn until_response(address: SocketAddr, request: &[u8], started: Instant) -> Result<f64> {
    loop {
        let status = Connection::open(address).and_then(|mut connection| Ok(connection.exchange(request)?.status()));
        match status {
            Ok(200) => return Ok(started.elapsed().as_secs_f64() * 1e3),
            _ if started.elapsed() > LIMIT => bail!("no request was served within {} s", LIMIT.as_secs()),
            // Envoy does not listen yet, or is not ready to route.
            _ => std::thread::sleep(INTERVAL),
        }
    }
}
