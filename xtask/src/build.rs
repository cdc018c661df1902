//! `cargo xtask build`: compiles the filter and writes its two modules to `target/pixell`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use harness::workspace;
use trim_modules::ROLES;

use crate::command::{self, say};
use crate::tools;

/// What the filter is compiled for.
pub(crate) const WASI: &str = "wasm32-wasip1";

/// Cargo's profile for the modules.
const PROFILE: &str = "module";

/// Compile the filter and write target/pixell/router.wasm and admin.wasm.
#[derive(Args)]
pub(crate) struct Arguments {}

/// Builds both modules.
///
/// # Errors
/// Where the target is missing, the filter does not compile or lacks an export.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    modules().map(drop)
}

/// Builds both modules and returns the directory they are in.
///
/// # Errors
/// As [`run`].
pub(crate) fn modules() -> Result<PathBuf> {
    tools::wasm_target(WASI)?;
    say("building the filter");
    let mut cargo = command::cargo(["build", "--profile", PROFILE, "--target", WASI]);
    command::run(cargo.args(ROLES.iter().flat_map(|role| ["--package", role.package])))?;
    let directory = workspace::target().join("pixell");
    for module in trim_modules::write(&workspace::target().join(WASI).join(PROFILE), &directory)? {
        let trim_modules::Module { place, size, compiled_size } = module;
        say(&format!("{}: {size} bytes ({compiled_size} before its exports were cut)", place.display()));
    }
    Ok(directory)
}
