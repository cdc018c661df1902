//! `cargo xtask profile`: where the instructions of a request are, from one run on this machine.

use anyhow::Result;
use clap::Parser;

use bench::profile;
use harness::envoy::modules;

/// Count the instructions of Envoy's worker for each request under Valgrind, and print the tables.
#[derive(Parser)]
#[command(bin_name = "cargo xtask profile")]
struct Arguments {
    /// How many requests are counted in each step
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    requests: u32,
    /// Count only these, by name or the beginning of it before a `-` (for instance: bare,none,native)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
}

fn main() -> std::process::ExitCode {
    harness::end(run(&Arguments::parse()))
}

fn run(Arguments { requests, only }: &Arguments) -> Result<()> {
    let modules = modules::locate()?;
    let measured = profile::run(&profile::Settings { requests: *requests, only, modules: &modules })?;
    println!("{}", profile::markdown(&measured));
    Ok(())
}
