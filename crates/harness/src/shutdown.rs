//! Catches the signals that ask this process to end.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

/// SIGTERM and SIGINT (Ctrl-C), caught from the moment this is made.
pub struct Shutdown {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Shutdown {
    /// Starts catching both.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn catch() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them and returns its name.
    pub async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
