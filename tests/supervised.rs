//! The image's entry point around another program, for tests. `supervised ADMIN_SOCKET LAUNCHER_SOCKET PROGRAM ARGUMENT ...` relays the
//! output of PROGRAM and reports to Envoy how many lines were lost, as `pixell-envoy` does in the image.

use std::process::{Command, ExitCode};
use std::time::Duration;

use launcher::admin::AdminSocket;
use launcher::relay::Relay;
use launcher::report;
use launcher::supervisor::{Supervisor, watch_signals};

/// Longest wait for open requests after SIGTERM.
const DRAIN: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(admin), Some(socket), Some(program)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let run = || {
        let events = watch_signals()?;
        let relay = Relay::start()?;
        report::watch(relay.clone(), socket.into())?;
        Supervisor::start(command, AdminSocket::new(admin), DRAIN, relay)?.run(&events)
    };
    run().map_or(ExitCode::FAILURE, ExitCode::from)
}
