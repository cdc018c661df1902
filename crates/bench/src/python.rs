//! Programs from PyPI, in a virtual environment of the bench.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::child::Program;

/// The lock file of its packages.
const LOCK: &str = "crates/bench/requirements.txt";

/// Starts the router for `routes` and returns the port that it listens on.
///
/// # Errors
/// If Python is missing, grpcio cannot be installed, or the router does not start.
pub fn start_router(routes: &[(String, u16)]) -> Result<(Program, u16)> {
    let routes: Map<_, Value> = routes.iter().map(|(id, port)| (id.clone(), (*port).into())).collect();
    let script = workspace::root().join("crates/bench/scripts/router.py");
    let mut command = Command::new(program("python")?);
    command.arg(script).arg(Value::from(routes).to_string()).stdout(Stdio::piped());
    let mut program = Program::start(&mut command)?;
    let output = program.output().context("the router has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let port = line.trim().parse().with_context(|| format!("the router in Python printed {line:?}, not its port"))?;
    Ok((program, port))
}

/// The path of a program of the virtual environment, which has the packages of the lock file. It is made if it is missing or the lock file
/// has changed.
///
/// # Errors
/// If Python is missing, or the packages cannot be installed.
pub fn program(name: &str) -> Result<PathBuf> {
    let home = workspace::target().join("bench/python");
    let python = home.join("bin/python");
    let program = home.join("bin").join(name);
    let lock = workspace::root().join(LOCK);
    let wanted = fs::read_to_string(&lock).with_context(|| format!("reading {LOCK}"))?;
    // The stamp is written last, so that an unfinished environment is not used.
    let stamp = home.join("recipe");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(program);
    }
    eprintln!("installing {LOCK} into {}", home.display());
    let run = |command: &mut Command| -> Result<()> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = command
            .output()
            .with_context(|| format!("{name} is missing: install it (Debian: apt-get install python3-venv)"))?;
        if !output.status.success() {
            bail!("{name}: {} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home)).context("making a virtual environment")?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--require-hashes", "--requirement"]).arg(&lock))
        .with_context(|| format!("installing {LOCK}"))?;
    fs::write(stamp, wanted)?;
    Ok(program)
}
