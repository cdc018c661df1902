//! Makes `router.wasm`, `admin.wasm` and `clients.wasm` from the compiled modules.
//!
//! It is a package of its own, so that the image is built with the same code as `cargo xtask build`, but without xtask's dependencies.

mod roles;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use roles::ROLES;

/// A module that was written.
#[derive(Debug)]
pub struct Module {
    /// Where it is.
    pub place: PathBuf,
    /// Its size in bytes.
    pub size: usize,
    /// Its size in bytes before exports were removed.
    pub compiled_size: usize,
}

/// Writes the module of each role to `directory`, made from the compiled modules in the directory `compiled`.
///
/// # Errors
/// If a compiled module is missing or lacks an export, or `directory` cannot be written to.
pub fn write(compiled: &Path, directory: &Path) -> Result<Vec<Module>> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    ROLES
        .iter()
        .map(|role| {
            let path = compiled.join(role.compiled);
            let compiled = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let module = role.module(&compiled)?;
            let place = directory.join(role.file);
            replace(&place, &module).with_context(|| format!("writing {}", place.display()))?;
            Ok(Module { place, size: module.len(), compiled_size: compiled.len() })
        })
        .collect()
}

/// Writes `bytes` to `place` in one step, so that an Envoy that starts meanwhile reads a whole module.
fn replace(place: &Path, bytes: &[u8]) -> Result<()> {
    let directory = place.parent().context("a module lies in a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(place)?;
    Ok(())
}
