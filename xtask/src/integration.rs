//! `cargo xtask integration`: starts Envoy, PAR and agents with Compose, and runs the scenarios against them; with `--fleet`, those against
//! three tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::bases::{Bases, Choice};
use crate::command::{self, program, read, say};
use crate::{image, image_example};
use signal_hook::consts::{SIGINT, SIGTERM};

/// A composed system and its scenarios.
struct System {
    /// What Compose reads.
    file: &'static str,
    /// Part of the project's name.
    name: &'static str,
    /// A service of the stand-in PAR's image.
    par: &'static str,
    /// Where the scenarios are in that image.
    scenarios: &'static str,
    /// The variables with ports of this machine that it would use.
    ports: &'static [&'static str],
}

const TASK: System = System {
    file: "integration/compose.yaml",
    name: "integration",
    par: "par",
    scenarios: "scenarios",
    ports: &["PIXELL_DATA_PORT", "PIXELL_API_PORT", "PIXELL_PAR_PORT"],
};

const FLEET: System = System {
    file: "integration/fleet.compose.yaml",
    name: "fleet",
    par: "par-a",
    scenarios: "fleet_scenarios",
    ports: &["PIXELL_DATA_PORT", "PIXELL_PAR_A_PORT", "PIXELL_PAR_B_PORT", "PIXELL_PAR_C_PORT"],
};

/// Build the images, start a small deployment with Compose and run the scenarios against it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Start a fleet of three tasks with a directory and a load balancer, and run the scenarios about it
    #[arg(long)]
    fleet: bool,
    /// Where the base images come from; auto makes stand-ins only if no registry can be reached
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    bases: Choice,
    /// Arguments of pytest, for example `-k redeploy`
    #[arg(last = true, value_name = "PYTEST_ARGUMENT")]
    pytest: Vec<String>,
}

/// Builds the images, starts the containers, runs the scenarios and removes the containers, even if a scenario fails.
///
/// # Errors
/// If something cannot be built or started, or a scenario fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // Another suite may build the same images at this time; the second one finds them built.
    let lock = workspace::lock("images")?;
    let bases = Bases::resolve(arguments.bases)?;
    let project = Project::new(if arguments.fleet { &FLEET } else { &TASK }, bases)?;
    image::build(image::NAME, &project.bases)?;
    say("building the stand-in PAR");
    command::run(project.compose(["build"]).args(image::proxies()).arg(project.system.par))?;
    drop(lock);

    // From here on Ctrl-C and SIGTERM end the scenarios, and the containers are still removed.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let outcome = project.scenarios(&arguments.pytest, &stop);
    // A choice of scenarios is one without the example.
    let has_example = !arguments.fleet && arguments.pytest.is_empty();
    let outcome = outcome.and_then(|()| if has_example { image_example::run(&project.bases.python) } else { Ok(()) });
    if outcome.is_err() {
        // A failed scenario prints its own logs; these are for what fails before or between scenarios.
        let _ = command::run(&mut project.compose(["logs", "--no-color", "--tail", "200"]));
    }
    say("removing the containers");
    let removal = command::run(&mut project.compose(["down", "--volumes", "--remove-orphans", "--timeout", "5"]));
    project.bases.warn();
    outcome.and(removal)
}

/// A Compose project with its own name, so that several can run at once.
struct Project {
    system: &'static System,
    name: String,
    tool: &'static [&'static str],
    bases: Bases,
}

impl Project {
    fn new(system: &'static System, bases: Bases) -> Result<Self> {
        let name = format!("pixell-{}-{}", system.name, std::process::id());
        Ok(Self { system, name, tool: compose_tool()?, bases })
    }

    /// The Compose command for this project, with these arguments.
    fn compose<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> std::process::Command {
        let (name, words) = self.tool.split_first().unwrap_or((&"docker-compose", &[]));
        let mut compose = program(name);
        compose.args(words).args(["--file", self.system.file, "--project-name", &self.name]).args(arguments);
        let Bases { rust, envoy, python } = &self.bases;
        compose.env("RUST_IMAGE", rust).env("ENVOY_IMAGE", envoy).env("PYTHON_IMAGE", python);
        // Any free port will do: nothing outside the project calls these.
        for port in self.system.ports {
            compose.env(port, "0");
        }
        compose
    }

    /// Starts everything and runs the scenarios until they end or `stop` is set.
    fn scenarios(&self, pytest: &[String], stop: &AtomicBool) -> Result<()> {
        say("running the scenarios");
        let mut run = self.compose(["run", "--rm", "-T", "scenarios"]);
        if !pytest.is_empty() {
            // The default, in case the arguments name no file.
            let place = format!("testpaths={}", self.system.scenarios);
            run.args(["python3", "-m", "pytest", "-o", &place]).args(pytest);
        }
        let mut run = run.spawn().context("starting compose")?;
        loop {
            if let Some(ended) = run.try_wait()? {
                ensure!(ended.success(), "the scenarios failed ({ended})");
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                run.kill()?;
                run.wait()?;
                bail!("the scenarios were stopped");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The command of Compose v2, a plugin of docker, or of v1, a program of its own.
fn compose_tool() -> Result<&'static [&'static str]> {
    let v2 = &["docker", "compose"];
    let v1 = &["docker-compose"];
    if read(program("docker").args(["compose", "version"])).is_ok() {
        return Ok(v2);
    }
    read(program("docker-compose").arg("version")).context(
        "Compose is missing: install Docker's compose plugin, or docker-compose (Debian: apt-get install docker-compose)",
    )?;
    Ok(v1)
}
