//! Reports to Envoy how many lines of its output were dropped, so that its statistics show it.
//!
//! Envoy has a listener on a Unix socket for these reports, and adds the numbers in a request's headers to its counters.

use crate::http::{self, ExchangeError};
use crate::relay::{Lost, Relay};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often to report, if there is anything to report.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for Envoy's response.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Reports from now on to the Envoy behind `socket` what `relay` drops. The first report may say 0: it creates the counters.
///
/// # Errors
/// If the thread cannot be started.
pub fn watch(relay: Relay, socket: PathBuf) -> io::Result<()> {
    thread::Builder::new().name("lost lines".to_owned()).spawn(move || {
        let mut reported = None;
        loop {
            let lost = relay.lost();
            // If Envoy does not listen yet, or no longer, a later report covers these lines, too.
            if reported != Some(lost) && report(&socket, &since(reported, lost)).is_ok() {
                reported = Some(lost);
            }
            thread::sleep(INTERVAL);
        }
    })?;
    Ok(())
}

fn since(reported: Option<Lost>, lost: Lost) -> Lost {
    let reported = reported.unwrap_or_default();
    Lost { stdout: lost.stdout - reported.stdout, stderr: lost.stderr - reported.stderr }
}

fn report(socket: &Path, lost: &Lost) -> Result<(), ExchangeError> {
    let headers = format!("x-stdout: {}\r\nx-stderr: {}\r\n", lost.stdout, lost.stderr);
    let response = http::exchange_with(UnixStream::connect(socket)?, "POST", "/lost", &headers, TIMEOUT)?;
    if response.status == 200 { Ok(()) } else { Err(ExchangeError::Malformed("the status is not 200")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_only_new_lines() {
        let lost = |stdout, stderr| Lost { stdout, stderr };
        assert_eq!(since(None, lost(3, 0)), lost(3, 0));
        assert_eq!(since(Some(lost(3, 0)), lost(5, 1)), lost(2, 1));
    }
}
