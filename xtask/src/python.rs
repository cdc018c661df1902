//! Virtual environments of Python under `target/`: made once, and anew when what they are made of changes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use harness::workspace;

use crate::command::{self, program, say};

/// The oldest Python that the client supports, and that every Python tool here has to run on.
const OLDEST: (u32, u32) = (3, 9);

/// The directory of the programs of a virtual environment `target/<name>` that holds what `pip install <arguments>` installs.
///
/// `made_of` are the files, by their path from the top, that decide what that is: where one of them changes, or Python itself, the
/// environment is made anew.
///
/// # Errors
/// Where Python, its venv module or a package is missing; the error says what to do.
pub(crate) fn environment(name: &str, arguments: &[&str], made_of: &[&str]) -> Result<PathBuf> {
    let mut recipe = format!("{}\n{}\n", version()?, arguments.join(" "));
    for path in made_of {
        recipe += &fs::read_to_string(workspace::root().join(path)).with_context(|| format!("reading {path}"))?;
    }
    let home = workspace::target().join(name);
    // Written last, so that an environment that was given up half-way is not taken for a whole one.
    let stamp = home.join("recipe");
    let programs = home.join("bin");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
        return Ok(programs);
    }
    say(&format!("making the Python environment {}", home.display()));
    command::run(program("python3").args(["-m", "venv", "--clear"]).arg(&home))
        .context("python3 cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)")?;
    let python = programs.join("python");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    command::run(program(&python.to_string_lossy()).args(install).args(arguments))
        .context("pip cannot install the packages: check that PyPI can be reached")?;
    fs::write(&stamp, recipe).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(programs)
}

/// What `python3 --version` says, after a check that it is not too old.
fn version() -> Result<String> {
    let (major, minor) = OLDEST;
    let advice = format!("install Python {major}.{minor} or later (Debian: apt-get install python3 python3-venv)");
    let said = command::read(program("python3").arg("--version")).with_context(|| format!("python3 is missing: {advice}"))?;
    anyhow::ensure!(parse(&said).is_some_and(|found| found >= OLDEST), "python3 is {}: {advice}", said.trim());
    Ok(said.trim().to_owned())
}

/// Reads `Python 3.11.7`.
fn parse(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix("Python ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pythons_version() {
        assert_eq!(parse("Python 3.11.7\n"), Some((3, 11)));
        assert_eq!(parse("Python 3.15.0rc1"), Some((3, 15)));
        assert_eq!(parse("3.11"), None);
    }
}
