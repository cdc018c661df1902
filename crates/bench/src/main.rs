//! `cargo xtask bench`: the performance table, from one run on this machine.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;

use harness::envoy::modules;
use workspace::say;

/// Measure the filter beside its floors and its alternatives, and print the table.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Arguments {
    /// Number of rounds; each contender is measured once in each
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure only these, by name or the beginning of it before a `-` (for instance: none,ours,lua)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a chart of the CPU time per request to this file as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Fail if a figure misses its bound
    #[arg(long)]
    check_bounds: bool,
}

fn main() -> std::process::ExitCode {
    harness::end(run(&Arguments::parse()))
}

/// Measures and prints the table.
///
/// # Errors
/// If a contender does not start or sends a wrong response; with `--check-bounds` also if a figure misses its bound.
fn run(arguments: &Arguments) -> Result<()> {
    let modules = modules::locate()?;
    say("measuring; other work on this machine makes the figures worse");
    let results = bench::run(&bench::Settings { rounds: arguments.rounds, only: &arguments.only, modules: &modules })?;
    println!("{}", bench::report::markdown(&results));
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&results)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &arguments.svg {
        std::fs::write(path, bench::chart::svg(&results)).with_context(|| format!("writing {}", path.display()))?;
    }
    let missed: Vec<_> = results.figures.iter().filter(|figure| figure.met() == Some(false)).collect();
    for figure in &missed {
        say(&format!("missed: {}", figure.what));
    }
    if arguments.check_bounds && !missed.is_empty() {
        bail!("{} of {} figures miss their bound", missed.len(), results.figures.len());
    }
    Ok(())
}
