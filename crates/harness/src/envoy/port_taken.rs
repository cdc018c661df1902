//! An error of Envoy's start: another program has begun to listen on the port that the system gave to Envoy. (Until somebody listens on a
//! port, Linux may give it to two programs, and Envoy compiles the modules between `bind` and `listen`.)

use std::fmt;

/// Another program listens on a port that the system gave to Envoy. Envoy stays up and serves nobody. Or the program had begun before
/// Envoy bound the port: then Envoy ends.
#[derive(Debug)]
pub(super) struct PortTaken;

impl std::error::Error for PortTaken {}

impl fmt::Display for PortTaken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("another program began to listen on a port that Envoy had bound")
    }
}

impl PortTaken {
    /// Whether Envoy has ended, and left this `log`, because it could not bind a port.
    pub(super) fn ended(log: &str) -> bool {
        log.contains("Address already in use")
    }

    /// The error, if the `log` of an Envoy that is up has it. 98 is EADDRINUSE.
    pub(super) fn check(log: &str) -> Result<(), Self> {
        if log.contains("cannot listen() errno=98") { Err(Self) } else { Ok(()) }
    }
}
