//! Runs Envoy under Valgrind's callgrind, and reads what it counted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The directory of an Envoy that is counted, and of the program that starts it.
#[derive(Debug)]
pub(super) struct Callgrind {
    directory: PathBuf,
    program: PathBuf,
}

/// What one thread has done.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// All its instructions.
    pub(super) total: u64,
    /// Calls from one shared object into another, by the name of the function: how many, and their instructions with all that they call.
    pub(super) calls: BTreeMap<String, Calls>,
}

/// Calls of a function.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calls {
    pub(super) count: u64,
    pub(super) instructions: u64,
}

impl Callgrind {
    /// Prepares to count the Envoy at `envoy`. Nothing is counted before [`Self::begin`], so that it starts fast.
    ///
    /// # Errors
    /// If Valgrind is not installed.
    pub(super) fn prepare(envoy: &Path, directory: PathBuf) -> Result<Self> {
        let found = Command::new("valgrind").arg("--version").output();
        found.context("valgrind does not run: install it (Debian: apt-get install valgrind)")?;
        let program = directory.join("envoy");
        let (envoy, counts) = (envoy.display(), directory.join("counts.%p"));
        let script = format!(
            "#!/bin/sh\n\
             [ \"$1\" = --version ] && exec '{envoy}' \"$@\"\n\
             PATH=/usr/bin:/bin exec valgrind --tool=callgrind --separate-threads=yes --instr-atstart=no --quiet \
             --callgrind-out-file='{}' '{envoy}' \"$@\"\n",
            counts.display()
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(Self { directory, program })
    }

    /// The program to start in place of Envoy.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Begins to count.
    pub(super) fn begin(&self, pid: u32) -> Result<()> {
        control(&["--instr=on"], pid)
    }

    /// Forgets what was counted.
    pub(super) fn zero(&self, pid: u32) -> Result<()> {
        control(&["--zero"], pid)
    }

    /// What the busiest thread has done since [`Self::zero`]: with one worker and a load, this is the worker.
    pub(super) fn busiest(&self, pid: u32) -> Result<Counts> {
        control(&["--dump"], pid)?;
        let prefix = format!("counts.{pid}.");
        let mut threads = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                threads.push(read(&fs::read_to_string(entry.path())?)?);
            }
        }
        threads.into_iter().max_by_key(|thread| thread.total).context("callgrind has counted nothing")
    }
}

fn control(arguments: &[&str], pid: u32) -> Result<()> {
    let output = Command::new("callgrind_control").args(arguments).arg(pid.to_string()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.contains("OK") {
        bail!("callgrind_control {arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Reads a file of callgrind (format version 1, with the event `Ir` alone).
fn read(text: &str) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut names: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let (mut object, mut called_object, mut called) = ("", None, "");
    let mut count = None;
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("summary: ") {
            counts.total = total.trim().parse().with_context(|| format!("callgrind wrote {line:?}"))?;
        } else if let Some((key @ ("ob" | "cob" | "fn" | "cfn"), value)) = line.split_once('=') {
            // `(number) name` defines a name, and `(number)` stands for it.
            let kind = if key.ends_with("ob") { "ob" } else { "fn" };
            let (number, name) = value.split_once(' ').unwrap_or((value, ""));
            let known = names.entry((kind, number)).or_insert(name);
            if !name.is_empty() {
                *known = name;
            }
            match key {
                "ob" => object = *known,
                "cob" => called_object = Some(*known),
                "cfn" => called = *known,
                _ => {}
            }
        } else if let Some(calls) = line.strip_prefix("calls=") {
            count = calls.split(' ').next().and_then(|count| count.parse::<u64>().ok());
        } else if let Some(count) = count.take() {
            // The line after `calls=` has the instructions of these calls.
            let instructions = line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok()).unwrap_or_default();
            if called_object.take().is_some_and(|other| other != object) {
                let calls = counts.calls.entry(called.to_owned()).or_default();
                calls.count += count;
                calls.instructions += instructions;
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_between_objects_are_read() {
        let text = "version: 1\nevents: Ir\nsummary: 100\n\nob=(1) /envoy\nfn=(1) 0x10\n0 5\ncob=(2) /native.so\ncfn=(2) hook\ncalls=2 0\n0 60\n\
                    cfn=(3) inner\ncalls=1 0\n0 7\n\nob=(2)\nfn=(2)\n0 20\ncob=(1)\ncfn=(4) callback\ncalls=4 0\n0 40\n";
        let counts = read(text).unwrap();
        assert_eq!(counts.total, 100);
        let found: Vec<_> = counts.calls.iter().map(|(name, calls)| (name.as_str(), calls.count, calls.instructions)).collect();
        assert_eq!(found, [("callback", 4, 40), ("hook", 2, 60)]);
    }
}
