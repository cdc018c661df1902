//! Being asked to stop.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

/// SIGTERM and SIGINT (Ctrl-C), caught from the moment this is made.
pub(crate) struct Shutdown {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Shutdown {
    /// Starts catching both.
    ///
    /// # Errors
    /// Where the system does not allow it.
    pub(crate) fn catch() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them and tells which came.
    pub(crate) async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
