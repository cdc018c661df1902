//! A program that the bench started itself; dropping it kills it.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A running program.
#[derive(Debug)]
pub struct Program(Child);

impl Program {
    /// Starts `command` without input; its complaints go to this program's standard error.
    ///
    /// # Errors
    /// Where it does not start.
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

    /// What it writes to standard output, where the command has a pipe for that.
    pub fn output(&mut self) -> Option<std::process::ChildStdout> {
        self.0.stdout.take()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that has ended already is no fault here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
