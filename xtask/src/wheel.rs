//! `cargo xtask wheel`: builds the Python client as a wheel and an sdist.

use anyhow::{Context, Result};

use crate::command::{program, run, say};
use crate::python;

/// Build the Python client as a wheel and an sdist in target/wheels
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Builds both with the locked build backend.
///
/// # Errors
/// If the build fails.
pub(crate) fn build(_: &Arguments) -> Result<()> {
    let hatchling = python::CLIENT.programs()?.join("hatchling");
    let wheels = workspace::target().join("wheels");
    let mut build = program(&hatchling.to_string_lossy());
    build.args(["build", "--directory"]).arg(&wheels).current_dir(workspace::root().join("clients/python"));
    run(&mut build).context("building the Python client")?;
    say(&format!("the wheel and the sdist are in {}", wheels.display()));
    Ok(())
}
