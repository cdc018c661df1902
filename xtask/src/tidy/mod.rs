//! `cargo xtask tidy`: checks of this repository that the compiler does not make. Each check reports all its errors.

mod cargo;
mod code_map;
mod first_line;
mod length;
mod versions;

use anyhow::{Result, bail};
use clap::Args;

use crate::command::{program, read, say};

/// Check formatting, lints, documentation, pinned versions and lock files.
#[derive(Args)]
pub(crate) struct Arguments {}

/// A check: its name, and a function that returns the errors it finds. If the function itself fails, that is one more error.
type Check = (&'static str, fn() -> Result<Vec<String>>);

const CHECKS: [Check; 10] = [
    ("formatting", cargo::formatting),
    ("lints on this machine", cargo::lints_host),
    ("lints of the modules", cargo::lints_module),
    ("documentation", cargo::documentation),
    ("a //! first in every Rust file", first_line::check),
    ("at most 450 lines in a file", length::check),
    ("pinned versions agree", versions::check),
    ("lock files match their sources", crate::lock::stale),
    ("files that documents name exist", code_map::check),
    ("maps of the core name every module", code_map::modules),
];

/// Runs every check.
///
/// # Errors
/// If one of them finds an error.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let mut failed = 0;
    for (name, check) in CHECKS {
        say(&format!("tidy: {name}"));
        let errors = check().unwrap_or_else(|error| vec![format!("{error:#}")]);
        for error in &errors {
            eprintln!("  error: {error}");
        }
        failed += usize::from(!errors.is_empty());
    }
    println!("{} passed, {failed} failed", CHECKS.len() - failed);
    if failed > 0 {
        bail!("tidy: {failed} of {} checks found errors", CHECKS.len());
    }
    Ok(())
}

/// The files of this repository that match `pattern` of `git ls-files`, committed or not. Paths are relative to the top.
fn files(pattern: &str) -> Result<Vec<String>> {
    let listing = ["ls-files", "--cached", "--others", "--exclude-standard", "--", pattern];
    let listed = read(program("git").args(listing))?;
    let root = workspace::root();
    // git also lists deleted files until the deletion is committed.
    Ok(listed.lines().filter(|path| root.join(path).is_file()).map(str::to_owned).collect())
}

/// The text of the file at `path`, relative to the top.
fn text(path: &str) -> Result<String> {
    use anyhow::Context;
    std::fs::read_to_string(workspace::root().join(path)).with_context(|| format!("reading {path}"))
}
