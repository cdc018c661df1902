//! `cargo xtask endurance`: long runs that print figures. `cargo xtask test` runs the same at a small size.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use harness::Envoy;
use harness::endurance::{changes, growth, memory, rates};
use harness::envoy::modules;
use workspace::say;

/// Envoy's memory must grow by less than this while ids come and go, in MiB. The first tenth of the ids does not count.
const MOST_GROWTH: u64 = 32;

/// The same while clients come and go, in MiB of what Envoy has allocated, after as many as it has buckets.
const MOST_GROWTH_OF_RATES: u64 = 8;

/// Run the endurance tests at full length (about ten minutes) and print their figures.
#[derive(Parser)]
#[command(bin_name = "cargo xtask endurance")]
struct Arguments {
    /// How long the map changes while requests are sent, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Changes of the map per second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    changes: u32,
    /// Number of routes to add one by one; each agent has an open socket, so mind the limit on open files
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    routes: u32,
    /// Number of distinct ids that come and go
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    ids: u32,
    /// Number of distinct clients that send a request under a rate limit
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(25_000..))]
    clients: u32,
}

fn main() -> std::process::ExitCode {
    harness::end(run(&Arguments::parse()))
}

/// Runs all tests, each with its own Envoy.
///
/// # Errors
/// If one of them fails.
#[tokio::main]
async fn run(arguments: &Arguments) -> Result<()> {
    let modules = modules::locate()?;
    let start = || Envoy::builder().modules(&modules).start();
    let no_crash = async |envoy: &Envoy| {
        let crashes = envoy.stats().await?.crashes()?;
        ensure!(crashes == 0, "the filter crashed {crashes} times");
        anyhow::Ok(())
    };

    say(&format!("{} changes per second for {} s, while requests are sent", arguments.changes, arguments.seconds));
    let envoy = start().await?;
    println!("{}", changes::run(&envoy, Duration::from_secs(arguments.seconds), arguments.changes).await?);
    no_crash(&envoy).await?;

    say(&format!("{} routes, one by one", arguments.routes));
    let envoy = start().await?;
    println!("{}", growth::run(&envoy, usize::try_from(arguments.routes)?).await?);
    no_crash(&envoy).await?;

    say(&format!("{} distinct ids come and go", arguments.ids));
    let envoy = start().await?;
    let ids = usize::try_from(arguments.ids)?;
    let figures = memory::run(&envoy, ids, ids / 10).await?;
    println!("{figures}");
    ensure!(
        figures.grown_mib() < MOST_GROWTH,
        "Envoy's memory grew by {} MiB, not less than {MOST_GROWTH}",
        figures.grown_mib()
    );
    no_crash(&envoy).await?;

    say(&format!("{} clients with a token and a rate", arguments.clients));
    let directory = tempfile::tempdir()?;
    let (issuer, settings) = rates::settings(directory.path())?;
    let envoy = settings.modules(&modules).start().await?;
    let figures = rates::run(&envoy, &issuer, usize::try_from(arguments.clients)?).await?;
    println!("{figures}");
    ensure!(
        figures.grown_mib() < MOST_GROWTH_OF_RATES,
        "Envoy's memory grew by {} MiB, not less than {MOST_GROWTH_OF_RATES}",
        figures.grown_mib()
    );
    no_crash(&envoy).await
}
