//! `cargo xtask capacity`: measures how much memory each worker, connection, stream and route takes.

use anyhow::Result;
use clap::Parser;
use harness::Envoy;
use harness::capacity::{Amounts, measure};
use harness::envoy::modules;
use harness::form::Form;
use workspace::say;

/// Measure the figures of the capacity formula in docs/operations.md, and print them (about a minute).
#[derive(Parser)]
#[command(bin_name = "cargo xtask capacity")]
struct Arguments {
    /// Number of idle HTTP/2 connections to open
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    connections: u32,
    /// Number of streams that one side does not read, in each direction
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    streams: u32,
    /// Number of routes to push
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    routes: u32,
    #[command(flatten)]
    form: Form,
}

fn main() -> std::process::ExitCode {
    harness::end(run(&Arguments::parse()))
}

/// Measures and prints the figures.
///
/// # Errors
/// As [`measure`].
#[tokio::main]
async fn run(arguments: &Arguments) -> Result<()> {
    let modules = modules::locate()?;
    let Arguments { connections, streams, routes, form } = *arguments;
    let filter = form.filter()?;
    say("measuring Envoy's memory; Envoy has two workers unless a line says otherwise");
    let amounts = Amounts {
        connections: usize::try_from(connections)?,
        streams: usize::try_from(streams)?,
        routes: usize::try_from(routes)?,
        requests: 1_000,
    };
    println!("{}", measure(|| Envoy::builder().filter(filter).modules(&modules), amounts).await?);
    Ok(())
}
