//! `cargo xtask endurance`: the program of the harness, and the long runs of a fleet that need more than it, containers or the Python client.

use anyhow::Result;

use crate::command::{cargo, program, run as run_command, say};
use crate::{program, python, tools};

/// How long the directory is down, or one task cut off from it, in seconds.
const OUTAGE: &str = "60";
/// How many agents move in the fleet of containers.
const MOVES: &str = "100";

/// Runs the parts that need more than the program, provides what it needs, and replaces this process by it.
///
/// # Errors
/// If something is missing, does not build, or fails.
pub(crate) fn run(mut arguments: program::Arguments) -> Result<()> {
    let only = arguments.value("--only").map(str::to_owned);
    let helps = arguments.asks_for_help();
    let does = |part: &str| !helps && only.as_deref().is_none_or(|only| only == part);
    if does("containers") {
        containers()?;
    }
    if does("fleet-size") {
        fleet_size()?;
    }
    if only.as_deref().is_some_and(|only| ["containers", "fleet-size"].contains(&only)) {
        return Ok(());
    }
    if does("fleet") {
        tools::debian("ip", "iproute2")?;
        tools::debian("haproxy", "haproxy")?;
        run_command(&mut cargo(["build", "--quiet", "--workspace", "--bin", "supervised"]))?;
        arguments.push("--entry-point".into());
        arguments.push(workspace::target().join("debug/supervised").into());
    }
    program::run("endurance", &arguments)
}

/// Three tasks with PAR, a directory and a load balancer.
fn containers() -> Result<()> {
    say(&format!("a fleet in containers: {MOVES} moves, and a directory that is down for {OUTAGE} s"));
    let mut scenarios = cargo(["run", "--quiet", "--package", "xtask", "--", "integration", "--fleet", "--", "-s"]);
    run_command(scenarios.env("FLEET_MOVES", MOVES).env("FLEET_OUTAGE_SECONDS", OUTAGE))
}

/// What a large fleet costs the Python client of one task.
fn fleet_size() -> Result<()> {
    say("the Python client's cost in fleets of 125, 250 and 500 tasks");
    let python = python::CLIENT.programs()?.join("python");
    let mut size = program(&python.to_string_lossy());
    run_command(size.arg("tests/fleet_size.py").current_dir(workspace::root().join("clients/python")))
}
