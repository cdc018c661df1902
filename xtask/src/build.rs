//! `cargo xtask build`: compiles the filter and writes its two modules to `target/pixell`.

use std::path::{Path, PathBuf};

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
pub(crate) struct Arguments {
    /// Build modules into target/pixell-trap whose data path a request with the header x-test-trap kills, for tests
    #[arg(long)]
    test_trap: bool,
}

/// Builds both modules.
///
/// # Errors
/// Where the target is missing, the filter does not compile or lacks an export.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.test_trap { trap_modules() } else { modules() }.map(drop)
}

/// Builds both modules and returns the directory they are in.
///
/// # Errors
/// As [`run`].
pub(crate) fn modules() -> Result<PathBuf> {
    say("building the filter");
    compile(&[], &workspace::target(), "pixell")
}

/// Builds modules whose data path a request can kill, and returns the directory they are in.
///
/// # Errors
/// As [`run`].
pub(crate) fn trap_modules() -> Result<PathBuf> {
    say("building the filter with a trap, for tests");
    // In a directory of its own: what ships must never be made of what was compiled here.
    compile(&["--features", "pixell-router-module/test-trap"], &workspace::target().join("trap"), "pixell-trap")
}

/// Compiles with `arguments` in the directory `target` and writes the modules to the directory `name` of the workspace's own.
fn compile(arguments: &[&str], target: &Path, name: &str) -> Result<PathBuf> {
    tools::wasm_target(WASI)?;
    let mut cargo = command::cargo(["build", "--profile", PROFILE, "--target", WASI, "--target-dir"]);
    cargo.arg(target).args(arguments);
    command::run(cargo.args(ROLES.iter().flat_map(|role| ["--package", role.package])))?;
    let directory = workspace::target().join(name);
    for module in trim_modules::write(&target.join(WASI).join(PROFILE), &directory)? {
        let trim_modules::Module { place, size, compiled_size } = module;
        say(&format!("{}: {size} bytes ({compiled_size} before its exports were cut)", place.display()));
    }
    Ok(directory)
}
