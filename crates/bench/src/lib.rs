//! `cargo xtask bench`: compares the filter with its floors and with other ways to route, round by round.
//!
//! A floor is the least that a solution can cost: Envoy without a filter for any filter, an empty module for any Wasm filter.

pub mod agents;
pub mod chart;
pub mod child;
pub mod connection;
pub mod contender;
pub mod cpu_time;
pub mod http2;
pub mod load;
pub mod machine;
pub mod pinning;
pub mod profile;
pub mod python;
pub mod relay;
pub mod report;
pub mod requests;
pub mod results;
pub mod rounds;
pub mod section;
pub mod stream_agent;
pub mod summary;
pub mod table;
pub mod tasks;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::contender::{AGENTS, PLANS, Stage};
use crate::load::Load;
use crate::pinning::Cores;
use crate::results::Results;
use crate::section::SECTIONS;

/// What to measure.
#[derive(Debug)]
pub struct Settings<'a> {
    /// The number of rounds.
    pub rounds: u32,
    /// Names of contenders and sections, or beginnings of names before a `-`; empty for all.
    pub only: &'a [String],
    /// The directory of the Wasm modules and native.so.
    pub modules: &'a Path,
}

/// Measures the chosen contenders and sections.
///
/// # Errors
/// If a name in `only` is unknown, or something does not start or sends a wrong response.
pub fn run(settings: &Settings<'_>) -> Result<Results> {
    check(settings.only)?;
    let machine = machine::describe()?;
    let cores = Cores::choose()?;
    // Before any other thread starts, because threads inherit their core.
    cores.take_load()?;
    let agents = agents::start(AGENTS)?;
    let scratch = tempfile::tempdir()?;
    let envoy = workspace::envoy::locate()?;
    let stage = Stage { cores, agents: &agents, modules: settings.modules, scratch: scratch.path(), envoy: &envoy };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(settings, &stage, machine))
}

/// The number of rounds after which all contenders are restarted. The place of a process in memory makes it up to a tenth slower or faster
/// for its whole life, so with only one start of each, luck would decide.
pub(crate) const ROUNDS_PER_START: u32 = 4;

/// The number of rounds of each start.
pub(crate) fn starts(rounds: u32) -> impl Iterator<Item = u32> {
    (0..rounds).step_by(ROUNDS_PER_START as usize).map(move |done| ROUNDS_PER_START.min(rounds - done))
}

async fn measure(settings: &Settings<'_>, stage: &Stage<'_>, machine: results::Machine) -> Result<Results> {
    let plans: Vec<_> = PLANS.iter().filter(|plan| wanted(plan.name, settings.only)).collect();
    let mut samples = rounds::Samples::new();
    let mut progress = rounds::Progress::new(settings.rounds);
    for rounds in starts(if plans.is_empty() { 0 } else { settings.rounds }) {
        let mut running = Vec::new();
        let mut loads = Vec::new();
        for plan in &plans {
            if samples.is_empty() {
                eprintln!("starting {}: {}", plan.name, plan.about);
            }
            let contender = plan.start(stage).await?;
            let load = Load::new(plan.protocol, contender.address, &contender.requested, &contender.pids);
            loads.push((plan.name, load.with_context(|| format!("contender {}", plan.name))?));
            running.push(contender);
        }
        rounds::run(&mut loads, rounds, &mut samples, &mut progress)?;
    }
    let mut figures = requests::figures(&samples);
    for section in SECTIONS.iter().filter(|section| wanted(section.name, settings.only)) {
        eprintln!("measuring {}: {}", section.name, section.about);
        figures.extend(section.measure(stage, settings.rounds).await?);
    }
    Ok(Results { machine, rounds: settings.rounds, contenders: requests::rows(&samples), figures })
}

/// Whether `only` chooses `name`. An empty list chooses all.
fn wanted(name: &str, only: &[String]) -> bool {
    only.is_empty()
        || only.iter().any(|given| name == given || name.strip_prefix(given.as_str()).is_some_and(|rest| rest.starts_with('-')))
}

/// Checks that each of `only` chooses something.
fn check(only: &[String]) -> Result<()> {
    for given in only {
        let names = || PLANS.iter().map(|plan| plan.name).chain(SECTIONS.iter().map(|section| section.name));
        if !names().any(|name| wanted(name, std::slice::from_ref(given))) {
            let known: Vec<_> = names().collect();
            bail!("--only {given}: there is no such name; the names are {}", known.join(", "));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_belongs_to_a_start() {
        assert_eq!(starts(0).count(), 0);
        assert_eq!(starts(2).collect::<Vec<_>>(), [2]);
        assert_eq!(starts(9).collect::<Vec<_>>(), [4, 4, 1]);
    }

    #[test]
    fn a_name_is_chosen_by_itself_or_its_beginning() {
        let only = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(wanted("ours-20", &[]));
        assert!(wanted("ours-20", &only(&["none", "ours"])));
        assert!(!wanted("ours-20", &only(&["ours-2"])));
        assert!(check(&only(&["ours", "raw"])).is_ok());
        assert!(check(&only(&["hours"])).unwrap_err().to_string().contains("the names are bare, none,"));
    }
}
