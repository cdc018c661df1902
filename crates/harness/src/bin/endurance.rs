//! `cargo xtask endurance`: long runs that print figures. `cargo xtask test` runs the same at a small size.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use harness::endurance::{changes, growth, memory, rates};
use harness::envoy::modules;
use harness::fleet::failures::{self, Failure};
use harness::fleet::{Peers, crashes, moves, reuse, rolling};
use harness::{Envoy, fabric};
use workspace::say;

/// Envoy's memory must grow by less than this while ids come and go, in MiB. The first tenth of the ids does not count.
const MOST_GROWTH: u64 = 32;

/// The same while clients come and go, in MiB of what Envoy has allocated, after as many as it has buckets.
const MOST_GROWTH_OF_RATES: u64 = 8;

/// Run the endurance tests at full length (about half an hour) and print their figures.
#[derive(Parser)]
#[command(bin_name = "cargo xtask endurance")]
struct Arguments {
    /// Run only this part; there are also `containers`, a fleet of three tasks in containers whose directory is down for a minute (it needs a
    /// container engine), and
    /// `fleet-size`, the cost of large fleets to the Python client
    #[arg(long)]
    only: Option<Part>,
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
    /// Number of agents of a fleet that move to another task
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    moves: u32,
    /// Number of agents of a fleet that are redeployed
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    redeploys: u32,
    /// Number of agents of a fleet that are killed
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    crashes: u32,
    /// The image's entry point around another program, for the end of a task
    #[arg(long, hide = true, default_value = "target/debug/supervised")]
    entry_point: PathBuf,
}

/// A part of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The map changes while requests are sent
    Changes,
    /// Routes are added one by one
    Growth,
    /// Ids come and go
    Memory,
    /// Clients come and go under a rate limit
    Rates,
    /// Three tasks under load, in network namespaces
    Fleet,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let does = |part| arguments.only.is_none_or(|only| only == part);
    let ready = if does(Part::Fleet) { fabric::enter_user_namespace("cargo xtask endurance") } else { Ok(()) };
    harness::end(ready.and_then(|()| run(&arguments, does)))
}

/// Runs the parts for which `does` is true, each with Envoys of its own.
///
/// # Errors
/// If one of them fails.
#[tokio::main]
async fn run(arguments: &Arguments, does: impl Fn(Part) -> bool) -> Result<()> {
    if [Part::Changes, Part::Growth, Part::Memory, Part::Rates].into_iter().any(&does) {
        one_task(arguments, &does).await?;
    }
    if does(Part::Fleet) { fleet(arguments, &arguments.entry_point).await } else { Ok(()) }
}

/// Three tasks, with clients that call all agents through all of them.
async fn fleet(arguments: &Arguments, entry_point: &Path) -> Result<()> {
    let Arguments { moves, redeploys, crashes, .. } = *arguments;
    say(&format!("a fleet of three tasks: {moves} moves and {redeploys} redeploys"));
    let size = moves::Size { moves: usize::try_from(moves)?, redeploys: usize::try_from(redeploys)? };
    println!("{}", moves::run(size, Peers::ByAddress).await?);
    say(&format!("a fleet of three tasks: {crashes} agents die, and others get their ports"));
    println!("{}", crashes::run(usize::try_from(crashes)?).await?);
    say("a fleet of three tasks behind HAProxy: all of them are replaced");
    println!("{}", rolling::run(3, entry_point).await?);
    let all = [Failure::CutWithout, Failure::CutBusy, Failure::CutSilent, Failure::Killed];
    for (how, peers) in [("", Peers::ByAddress), (", with certificates between the tasks", Peers::ByCertificate)] {
        say(&format!("a fleet of three tasks, one of which fails{how}"));
        for figures in failures::run(&all, peers).await? {
            println!("{figures}");
        }
    }
    say("a fleet of three tasks: another one gets the address of one that is gone");
    println!("{}", reuse::run().await?);
    Ok(())
}

async fn one_task(arguments: &Arguments, does: impl Fn(Part) -> bool) -> Result<()> {
    let modules = modules::locate()?;
    let start = || Envoy::builder().modules(&modules).start();
    let no_crash = async |envoy: &Envoy| {
        let crashes = envoy.stats().await?.crashes()?;
        ensure!(crashes == 0, "the filter crashed {crashes} times");
        anyhow::Ok(())
    };

    if does(Part::Changes) {
        say(&format!("{} changes per second for {} s, while requests are sent", arguments.changes, arguments.seconds));
        let envoy = start().await?;
        println!("{}", changes::run(&envoy, Duration::from_secs(arguments.seconds), arguments.changes).await?);
        no_crash(&envoy).await?;
    }
    if does(Part::Growth) {
        say(&format!("{} routes, one by one", arguments.routes));
        let envoy = start().await?;
        println!("{}", growth::run(&envoy, usize::try_from(arguments.routes)?).await?);
        no_crash(&envoy).await?;
    }
    if does(Part::Memory) {
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
    }
    if does(Part::Rates) {
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
        no_crash(&envoy).await?;
    }
    Ok(())
}
