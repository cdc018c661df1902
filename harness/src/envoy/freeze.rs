//! Holding Envoy up, as a machine does that has no processor to give it: its ports take connections and nobody answers.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Envoy;

impl Envoy {
    /// Stops the process where it stands, until [`Envoy::thaw`].
    ///
    /// # Errors
    /// Where it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets the process go on.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), signal).with_context(|| format!("{signal} to Envoy"))
    }
}
