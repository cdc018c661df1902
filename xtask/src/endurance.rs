//! `cargo xtask endurance`: the long runs, with figures. `cargo xtask test` runs short forms of the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use harness::Envoy;
use harness::endurance::{changes, growth, memory};

use crate::build;
use crate::command::say;

/// Most that Envoy may grow while ids come and go, in MiB, after the first hundred thousand.
const MOST_GROWTH: u64 = 32;

/// Run the endurance tests at full length (about five minutes) and print their figures.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How long the map changes and is called, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How often the map changes in a second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    changes: u32,
    /// How many routes are added one by one; each has an agent that listens, so the limit on open files counts
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    routes: u32,
    /// How many distinct ids come and go
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    ids: u32,
}

/// Runs all three, each in an Envoy of its own.
///
/// # Errors
/// Where one of them finds a fault.
#[tokio::main]
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let modules = build::modules()?;
    let start = || Envoy::builder().modules(&modules).start();
    let unharmed = async |envoy: &Envoy| {
        let reloads = envoy.stats().await?.vm_reloads()?;
        ensure!(reloads == 0, "{reloads} VMs were built anew");
        anyhow::Ok(())
    };

    say(&format!("{} changes a second for {} s, under calls", arguments.changes, arguments.seconds));
    let envoy = start().await?;
    println!("{}", changes::run(&envoy, Duration::from_secs(arguments.seconds), arguments.changes).await?);
    unharmed(&envoy).await?;

    say(&format!("{} routes, one by one", arguments.routes));
    let envoy = start().await?;
    println!("{}", growth::run(&envoy, usize::try_from(arguments.routes)?).await?);
    unharmed(&envoy).await?;

    say(&format!("{} distinct ids come and go", arguments.ids));
    let envoy = start().await?;
    let ids = usize::try_from(arguments.ids)?;
    let figures = memory::run(&envoy, ids, ids / 10).await?;
    println!("{figures}");
    ensure!(figures.grown_mib() < MOST_GROWTH, "Envoy grew by {} MiB, {MOST_GROWTH} or more", figures.grown_mib());
    unharmed(&envoy).await
}
