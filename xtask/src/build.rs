//! `cargo xtask build`: compiles both forms of the filter and writes their modules to `target/pixell`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{self, say};
use crate::tools;

/// The target that the Wasm modules are compiled for.
pub(crate) const WASI: &str = "wasm32-wasip1";

/// The packages of the Wasm modules: one for each role.
pub(crate) const PACKAGES: [&str; 4] =
    ["pixell-router-module", "pixell-responses-module", "pixell-admin-module", "pixell-clients-module"];

/// Cargo's profile for the Wasm modules.
const PROFILE: &str = "module";

/// The native module: its package, Cargo's profile for it, and the file that it is linked to.
const NATIVE: (&str, &str, &str) = ("pixell-native", "native", "libpixell_native.so");

/// Compile the filter and write target/pixell/router.wasm, responses.wasm, admin.wasm, clients.wasm and native.so.
#[derive(Args)]
pub(crate) struct Arguments {
    /// For tests: build modules in target/pixell-trap that crash on a request with the header x-test-trap
    #[arg(long)]
    test_trap: bool,
}

/// Builds the modules.
///
/// # Errors
/// If the Rust target is missing, or the filter does not compile or lacks an export.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.test_trap { trap_modules() } else { modules() }.map(drop)
}

/// Builds the modules and returns the directory they are in.
///
/// # Errors
/// As [`run`].
pub(crate) fn modules() -> Result<PathBuf> {
    say("building the filter");
    compile(&[], &[], &workspace::target(), "pixell")
}

/// Builds modules that a request can crash, and returns the directory they are in.
///
/// # Errors
/// As [`run`].
pub(crate) fn trap_modules() -> Result<PathBuf> {
    say("building the filter with a trap, for tests");
    // Compiled in a directory of its own, so that shipped modules are never made from these files.
    let feature = |name| ["--features", name];
    let target = workspace::target().join("trap");
    compile(&feature("pixell-router-module/test-trap"), &feature("pixell-native/test-trap"), &target, "pixell-trap")
}

/// Compiles in the directory `target`, with the arguments `wasm` and `native` for the two forms, and writes the modules to the directory
/// `name` below the workspace's `target/`.
fn compile(wasm: &[&str], native: &[&str], target: &Path, name: &str) -> Result<PathBuf> {
    tools::rust_target(WASI)?;
    // Suites that run at the same time may all want them built.
    let _lock = workspace::lock(name)?;
    let mut cargo = command::cargo(["build", "--profile", PROFILE, "--target", WASI, "--target-dir"]);
    cargo.arg(target).args(wasm);
    command::run(cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package])))?;
    let directory = workspace::target().join(name);
    let mut trim = command::cargo(["run", "--quiet", "--package", "trim-modules", "--"]);
    command::run(trim.arg(target.join(WASI).join(PROFILE)).arg(&directory))?;
    let (package, profile, library) = NATIVE;
    let mut cargo = command::cargo(["build", "--package", package, "--profile", profile, "--target-dir"]);
    command::run(cargo.arg(target).args(native))?;
    let (built, place) = (target.join(profile).join(library), directory.join("native.so"));
    // Replaced in one step, because an Envoy may have the old file open.
    let new = place.with_extension("new");
    std::fs::copy(&built, &new).with_context(|| format!("copying {}", built.display()))?;
    std::fs::rename(&new, &place)?;
    Ok(directory)
}
