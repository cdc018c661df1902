//! `cargo xtask profile`: the instructions of Envoy's worker for each request, for what Envoy does with and without the filter. Unlike CPU time,
//! they hardly depend on what else the machine does.

mod callgrind;
mod report;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::connection::Connection;
use crate::contender::{Contender, FLOORS, PLANS, Plan, Stage};
use crate::pinning::Cores;
use crate::{agents, load};
use callgrind::{Callgrind, Counts};

pub use report::markdown;

/// Requests before the count begins: they make Envoy open its connections, and Valgrind translate what they run.
const WARM_UP: u32 = 300;

/// What is counted.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The contender.
    plan: &'static str,
    by: By,
}

/// What names the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// A header.
    Header,
    /// The path.
    Path,
}

/// The instructions of a request.
#[derive(Debug)]
pub struct Measured {
    /// The contender, and how the request named its agent.
    name: String,
    about: &'static str,
    instructions: u64,
    calls: Vec<(String, f64, f64)>,
}

/// From an Envoy that does nothing but forward to the product. What differs between two of them is in [`Plan::about`].
const STEPS: &[Step] = &[
    header("bare"),
    header("none"),
    header("native-empty"),
    header("native-empty-retry"),
    header("native-20-no-retry-filter"),
    header("native-20"),
    Step { plan: "native-20", by: By::Path },
    header("lua"),
    header("ours-20-no-retry-filter"),
    header("ours-20"),
    Step { plan: "ours-20", by: By::Path },
];

const fn header(plan: &'static str) -> Step {
    Step { plan, by: By::Header }
}

/// What to count.
#[derive(Debug)]
pub struct Settings<'a> {
    /// How many requests are counted.
    pub requests: u32,
    /// Names of contenders, or beginnings of names before a `-`; empty for all.
    pub only: &'a [String],
    /// The directory of the modules.
    pub modules: &'a Path,
}

/// Counts the instructions of a request in each step, and in the configuration without a filter and without each of its parts.
///
/// # Errors
/// If Valgrind is missing, an Envoy does not start or sends a wrong response, or a name in `only` is unknown.
pub fn run(settings: &Settings<'_>) -> Result<Vec<Measured>> {
    let is_part = |plan: &&Plan| plan.name.starts_with("with");
    let parts = PLANS.iter().filter(is_part).map(|plan| header(plan.name));
    let steps: Vec<_> = STEPS.iter().copied().chain(parts).filter(|step| crate::wanted(step.plan, settings.only)).collect();
    if steps.is_empty() {
        bail!("--only {}: no step has such a name", settings.only.join(","));
    }
    let (agents, scratch) = (agents::start(1)?, tempfile::tempdir()?);
    let callgrind = Callgrind::prepare(&workspace::envoy::locate()?, scratch.path().to_owned())?;
    let (modules, envoy) = (settings.modules, callgrind.program());
    let stage = Stage { cores: Cores::choose()?, agents: &agents, modules, scratch: scratch.path(), envoy };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    steps.iter().map(|step| measure(step, &stage, &callgrind, settings.requests, &runtime)).collect()
}

fn measure(
    step: &Step,
    stage: &Stage<'_>,
    callgrind: &Callgrind,
    requests: u32,
    runtime: &tokio::runtime::Runtime,
) -> Result<Measured> {
    let plan = plan(step.plan)?;
    let name = match step.by {
        By::Header => plan.name.to_owned(),
        By::Path => format!("{}, by path", plan.name),
    };
    eprintln!("counting {name}: {}", plan.about);
    let contender = runtime.block_on(plan.start(stage))?;
    let Counts { total, calls } = count(&contender, step.by, callgrind, requests).with_context(|| name.clone())?;
    // The tables come at the end; this is what is left of a run that does not get there.
    eprintln!("{name}: {} instructions per request", total / u64::from(requests));
    let per = |count: u64| count as f64 / f64::from(requests);
    let calls = calls.into_iter().filter(|(name, _)| name.starts_with(ABI));
    let calls = calls.map(|(name, calls)| (name, per(calls.count), per(calls.instructions))).collect();
    Ok(Measured { name, about: plan.about, instructions: total / u64::from(requests), calls })
}

/// What the names of all functions between Envoy and native modules begin with.
const ABI: &str = "envoy_dynamic_module_";

fn plan(name: &str) -> Result<&'static Plan> {
    PLANS.iter().chain(FLOORS).find(|plan| plan.name == name).with_context(|| format!("no contender is called {name}"))
}

fn count(contender: &Contender, by: By, callgrind: &Callgrind, requests: u32) -> Result<Counts> {
    let (id, port) = contender.requested.first().context("the contender has no route")?;
    let request = match by {
        By::Header => load::request(id, *port),
        By::Path => load::request_by_path(id),
    };
    let pid = *contender.pids.first().context("the contender has no process")?;
    callgrind.begin(pid)?;
    let mut connection = Connection::open(contender.address)?;
    let mut send = |count| {
        (0..count).try_for_each(|_| {
            let response = connection.exchange(&request)?;
            if response.status() != 200 || response.body != agents::body(*port).as_bytes() {
                bail!("got {}: {}", response.status(), String::from_utf8_lossy(response.body));
            }
            Ok(())
        })
    };
    send(WARM_UP)?;
    callgrind.zero(pid)?;
    send(requests)?;
    callgrind.busiest(pid)
}
