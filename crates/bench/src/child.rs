//! A program that the bench has started. Dropping it kills the program.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A running program.
#[derive(Debug)]
pub struct Program(Child);

impl Program {
    /// Starts `command` without input. Its errors go to this program's standard error.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("`{name}` did not start"))?;
        Ok(Self(child))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its standard output, if the command has a pipe for that.
    pub fn output(&mut self) -> Option<std::process::ChildStdout> {
        self.0.stdout.take()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The program may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
