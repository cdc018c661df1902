//! `cargo xtask tidy`: what no compiler checks about this repository. One check a file; each reports all its faults.

mod border;
mod cargo;
mod code_map;
mod first_line;
mod members;
mod versions;

use anyhow::{Result, bail};
use clap::Args;

use crate::command::{program, read, say};

/// Check formatting, lints, documentation, pinned versions and the core's border.
#[derive(Args)]
pub(crate) struct Arguments {}

/// A check: its name, and what gives the faults it finds. An error of its own is a fault, too.
type Check = (&'static str, fn() -> Result<Vec<String>>);

const CHECKS: [Check; 10] = [
    ("formatting", cargo::formatting),
    ("lints on this machine", cargo::lints_host),
    ("lints of the modules", cargo::lints_module),
    ("documentation", cargo::documentation),
    ("a //! first in every Rust file", first_line::check),
    ("pinned versions agree", versions::check),
    ("the image is built of all members", members::check),
    ("no proxy_wasm outside src/filter", border::words),
    ("the core depends on no proxy-wasm", border::dependencies),
    ("files that the documents name exist", code_map::check),
];

/// Runs every check.
///
/// # Errors
/// Where one of them finds a fault.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let mut failed = 0;
    for (name, check) in CHECKS {
        say(&format!("tidy: {name}"));
        let faults = check().unwrap_or_else(|error| vec![format!("{error:#}")]);
        for fault in &faults {
            eprintln!("  fault: {fault}");
        }
        failed += usize::from(!faults.is_empty());
    }
    println!("{} passed, {failed} failed", CHECKS.len() - failed);
    if failed > 0 {
        bail!("tidy: {failed} of {} checks found faults", CHECKS.len());
    }
    Ok(())
}

/// The files of this repository that `pattern` of `git ls-files` matches, committed or not, by their path from the top.
fn files(pattern: &str) -> Result<Vec<String>> {
    let listing = ["ls-files", "--cached", "--others", "--exclude-standard", "--", pattern];
    let listed = read(program("git").args(listing))?;
    let root = harness::workspace::root();
    // A file that was deleted and not yet committed is listed all the same.
    Ok(listed.lines().filter(|path| root.join(path).is_file()).map(str::to_owned).collect())
}

/// The text of the file at `path` from the top.
fn text(path: &str) -> Result<String> {
    use anyhow::Context;
    std::fs::read_to_string(harness::workspace::root().join(path)).with_context(|| format!("reading {path}"))
}
