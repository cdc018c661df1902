//! `cargo xtask capacity`: what Envoy takes for each worker, connection, stream, route and line.

use anyhow::Result;
use clap::Args;
use harness::Envoy;
use harness::capacity::{Amounts, measure};

use crate::build;
use crate::command::say;

/// Measure what the capacity formula of docs/operations.md is made of, and print it (about a minute).
#[derive(Args)]
pub(crate) struct Arguments {
    /// How many idle HTTP/2 connections are opened
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    connections: u32,
    /// How many streams are held back, in either direction
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    streams: u32,
    /// How many routes are pushed
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    routes: u32,
}

/// Builds the filter and measures.
///
/// # Errors
/// As [`measure`].
#[tokio::main]
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let modules = build::modules()?;
    let Arguments { connections, streams, routes } = *arguments;
    say("measuring Envoy's memory; it has two workers unless said otherwise");
    let amounts = Amounts {
        connections: usize::try_from(connections)?,
        streams: usize::try_from(streams)?,
        routes: usize::try_from(routes)?,
        requests: 1_000,
    };
    println!("{}", measure(|| Envoy::builder().modules(&modules), amounts).await?);
    Ok(())
}
