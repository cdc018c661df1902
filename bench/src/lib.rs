//! What `cargo xtask bench` runs: the filter beside its floors and beside what others would use, measured round by round.

pub mod agents;
pub mod chart;
pub mod child;
pub mod connection;
pub mod contender;
pub mod cpu_time;
pub mod load;
pub mod machine;
pub mod pinning;
pub mod python;
pub mod report;
pub mod requests;
pub mod results;
pub mod rounds;
pub mod section;
pub mod stream_agent;
pub mod summary;
pub mod table;

use std::path::Path;

use anyhow::{Result, bail};

use crate::contender::{AGENTS, PLANS, Stage};
use crate::load::Load;
use crate::pinning::Cores;
use crate::results::Results;
use crate::section::SECTIONS;

/// What to measure.
#[derive(Debug)]
pub struct Settings<'a> {
    /// How many rounds.
    pub rounds: u32,
    /// Names of contenders and sections, or beginnings of names before a `-`; all where it is empty.
    pub only: &'a [String],
    /// The directory of router.wasm and admin.wasm.
    pub modules: &'a Path,
}

/// Runs everything that is asked for.
///
/// # Errors
/// Where a name of `only` means nothing, or something does not start or answers wrongly.
pub fn run(settings: &Settings<'_>) -> Result<Results> {
    check(settings.only)?;
    let machine = machine::describe()?;
    let cores = Cores::choose()?;
    // Before any other thread is there: all of them inherit it.
    cores.take_load()?;
    let agents = agents::start(AGENTS)?;
    let scratch = tempfile::tempdir()?;
    let stage = Stage { cores, agents: &agents, modules: settings.modules, scratch: scratch.path() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(settings, &stage, machine))
}

/// After how many rounds everything is started anew. Where a process happens to lie in memory makes it up to a tenth slower or
/// faster for as long as it lives, so one start of each would compare luck.
pub(crate) const ROUNDS_A_START: u32 = 4;

/// The numbers of rounds, start by start.
pub(crate) fn starts(rounds: u32) -> impl Iterator<Item = u32> {
    (0..rounds).step_by(ROUNDS_A_START as usize).map(move |done| ROUNDS_A_START.min(rounds - done))
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
            loads.push((plan.name, Load::new(contender.address, &contender.asked, &contender.pids)?));
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

/// Whether `name` is asked for: all are where nothing is said.
fn wanted(name: &str, only: &[String]) -> bool {
    only.is_empty()
        || only.iter().any(|asked| name == asked || name.strip_prefix(asked.as_str()).is_some_and(|rest| rest.starts_with('-')))
}

fn check(only: &[String]) -> Result<()> {
    for asked in only {
        let names = || PLANS.iter().map(|plan| plan.name).chain(SECTIONS.iter().map(|section| section.name));
        if !names().any(|name| wanted(name, std::slice::from_ref(asked))) {
            let known: Vec<_> = names().collect();
            bail!("--only {asked}: nothing is called so; known are {}", known.join(", "));
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
    fn a_name_or_its_beginning_chooses() {
        let only = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(wanted("ours-20", &[]));
        assert!(wanted("ours-20", &only(&["none", "ours"])));
        assert!(!wanted("ours-20", &only(&["ours-2"])));
        assert!(check(&only(&["ours", "raw"])).is_ok());
        assert!(check(&only(&["hours"])).unwrap_err().to_string().contains("known are none,"));
    }
}
