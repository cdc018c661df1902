//! `cargo xtask integration`: composes Envoy, PAR and agents, and runs the scenarios against them.

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::process::Command;

use crate::bases::{Bases, Choice};
use crate::command::{self, program, read, say};
use crate::image;
use crate::shutdown::Shutdown;

const FILE: &str = "integration/compose.yaml";

/// Build the images, compose the deployment in small and run the scenarios against it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the base images come from; auto makes stand-ins only where no registry can be reached
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    bases: Choice,
    /// Handed to pytest, for example `-k redeploy`
    #[arg(last = true, value_name = "PYTEST_ARGUMENT")]
    pytest: Vec<String>,
}

/// Builds, composes, runs the scenarios and removes what was composed, whatever came of them.
///
/// # Errors
/// Where something cannot be built or started, or a scenario fails.
#[tokio::main]
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let bases = Bases::resolve(arguments.bases)?;
    let project = Project::new(bases)?;
    image::build(image::NAME, &project.bases)?;
    say("building the stand-in PAR");
    command::run(project.compose(["build"]).args(image::proxies()).arg("par"))?;

    // From here on Ctrl-C ends the scenarios, and what was composed is removed all the same.
    let mut shutdown = Shutdown::catch()?;
    let outcome = project.scenarios(&arguments.pytest, &mut shutdown).await;
    if outcome.is_err() {
        // A scenario shows the logs of its own time; this is for what fails before or between them.
        let _ = command::run(&mut project.compose(["logs", "--no-color", "--tail", "200"]));
    }
    say("removing the containers");
    let removal = command::run(&mut project.compose(["down", "--volumes", "--remove-orphans", "--timeout", "5"]));
    project.bases.warn();
    outcome.and(removal)
}

/// A compose project of its own name, so that several can run at once.
struct Project {
    name: String,
    tool: &'static [&'static str],
    bases: Bases,
}

impl Project {
    fn new(bases: Bases) -> Result<Self> {
        Ok(Self { name: format!("pixell-integration-{}", std::process::id()), tool: compose_tool()?, bases })
    }

    /// Compose, on this project, with these arguments.
    fn compose<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> std::process::Command {
        let (name, words) = self.tool.split_first().unwrap_or((&"docker-compose", &[]));
        let mut compose = program(name);
        compose.args(words).args(["--file", FILE, "--project-name", &self.name]).args(arguments);
        let Bases { rust, envoy, python } = &self.bases;
        compose.env("RUST_IMAGE", rust).env("ENVOY_IMAGE", envoy).env("PYTHON_IMAGE", python);
        // Any free port: nothing here is called from outside of the project.
        for port in ["PIXELL_DATA_PORT", "PIXELL_API_PORT", "PIXELL_PAR_PORT"] {
            compose.env(port, "0");
        }
        compose
    }

    /// Starts everything and runs the scenarios until they end or `shutdown` is requested.
    async fn scenarios(&self, pytest: &[String], shutdown: &mut Shutdown) -> Result<()> {
        say("running the scenarios");
        let mut run = self.compose(["run", "--rm", "-T", "scenarios"]);
        if !pytest.is_empty() {
            run.args(["python3", "-m", "pytest"]).args(pytest);
        }
        let mut run = Command::from(run).spawn().context("starting compose")?;
        tokio::select! {
            ended = run.wait() => match ended?.code() {
                Some(0) => Ok(()),
                code => bail!("the scenarios failed (exit code {code:?})"),
            },
            signal = shutdown.requested() => {
                run.kill().await?;
                bail!("{signal}: the scenarios were ended")
            }
        }
    }
}

/// Compose v2, a plugin of docker, or v1, a program of its own.
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
