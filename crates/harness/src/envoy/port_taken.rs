//! An error of Envoy's start: another program has begun to listen on the port that the system gave to Envoy. (Until somebody listens on a
//! port, Linux may give it to two programs, and Envoy compiles the modules between `bind` and `listen`.)

use std::fmt;

/// Another program listens on a port that the system gave to Envoy. Envoy stays up and serves nobody.
#[derive(Debug)]
pub(super) struct PortTaken;

impl std::error::Error for PortTaken {}

impl fmt::Display for PortTaken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("another program began to listen on a port that Envoy had bound")
    }
}

impl PortTaken {
    /// The error, if Envoy's `log` has it. 98 is EADDRINUSE.
    pub(super) fn check(log: &str) -> Result<(), Self> {
        if log.contains("cannot listen() errno=98") { Err(Self) } else { Ok(()) }
    }
}
