//! The router in Python, with a virtual environment of its own.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use harness::workspace;
use serde_json::{Map, Value};

use crate::child::Program;

/// The release of grpcio that the router runs on.
const GRPCIO: &str = "1.85.1";

/// Starts the router for `routes` and gives the port it listens on.
///
/// # Errors
/// Where Python or grpcio cannot be had, or the router does not start.
pub fn start_router(routes: &[(String, u16)]) -> Result<(Program, u16)> {
    let routes: Map<_, Value> = routes.iter().map(|(id, port)| (id.clone(), (*port).into())).collect();
    let script = workspace::root().join("bench/scripts/router.py");
    let mut command = Command::new(environment()?);
    command.arg(script).arg(Value::from(routes).to_string()).stdout(Stdio::piped());
    let mut program = Program::start(&mut command)?;
    let output = program.output().context("the router has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let port = line.trim().parse().with_context(|| format!("the router in Python does not tell its port but {line:?}"))?;
    Ok((program, port))
}

/// The Python of a virtual environment that has grpcio, made where it is not there yet.
fn environment() -> Result<std::path::PathBuf> {
    let home = workspace::target().join("bench/python");
    let python = home.join("bin/python");
    let check = format!("import grpc, sys; sys.exit(grpc.__version__ != {GRPCIO:?})");
    if Command::new(&python).args(["-c", &check]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return Ok(python);
    }
    eprintln!("installing grpcio {GRPCIO} into {}", home.display());
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
    run(Command::new("python3").args(["-m", "venv"]).arg(&home)).context("making a virtual environment")?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", &format!("grpcio=={GRPCIO}")]))
        .context("installing grpcio")?;
    Ok(python)
}
