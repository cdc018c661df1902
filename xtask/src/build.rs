//! `cargo xtask build`: compiles the filter and writes its two modules to `target/pixell`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use harness::workspace;

use crate::command::{self, say};
use crate::roles::ROLES;
use crate::tools;

/// What the filter is compiled for.
pub(crate) const WASI: &str = "wasm32-wasip1";

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
    let mut cargo = command::cargo(["build", "--release", "--target", WASI]);
    command::run(cargo.args(ROLES.iter().flat_map(|role| ["--package", role.package])))?;
    let directory = workspace::target().join("pixell");
    fs::create_dir_all(&directory)?;
    for role in &ROLES {
        let path = workspace::target().join(WASI).join("release").join(role.compiled);
        let compiled = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let module = role.module(&compiled)?;
        let place = directory.join(role.file);
        replace(&place, &module).with_context(|| format!("writing {}", place.display()))?;
        say(&format!("{}: {} bytes ({} before its exports were cut)", place.display(), module.len(), compiled.len()));
    }
    Ok(directory)
}

/// Writes `bytes` to `place` in one step, so that an Envoy starting meanwhile reads a whole module.
fn replace(place: &Path, bytes: &[u8]) -> Result<()> {
    let directory = place.parent().context("a module lies in a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(place)?;
    Ok(())
}
