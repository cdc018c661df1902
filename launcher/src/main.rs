//! `pixell-envoy`: the entry point of the image. Starts Envoy with the shipped configuration and, on SIGTERM, lets open streams
//! end before Envoy does. Arguments are handed to Envoy.

use launcher::admin::AdminSocket;
use launcher::configuration;
use launcher::restart;
use launcher::settings::{self, Settings};
use launcher::supervisor::{self, Supervisor};
use std::path::Path;
use std::process::{Command, ExitCode};

const ENVOY: &str = "/usr/local/bin/envoy";
const CONFIG: &str = "/etc/envoy/envoy.yaml";
/// Where the configuration goes when settings change it: the one directory that the image can write to.
const RENDERED_CONFIG: &str = "/run/pixell-envoy/envoy.yaml";
const ADMIN_SOCKET: &str = "/run/pixell-envoy/admin.sock";
/// EX_CONFIG of sysexits.h: the settings are wrong, a restart will not help.
const EXIT_CONFIG: u8 = 78;
/// What a shell gives for a program that cannot be started.
const EXIT_CANNOT_START: u8 = 126;

fn main() -> ExitCode {
    let settings = match Settings::resolve(|name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(faults) => {
            for fault in faults {
                eprintln!("pixell-envoy: {fault}");
            }
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    for name in settings::unknown_names(std::env::vars_os().map(|(name, _)| name)) {
        eprintln!("pixell-envoy: warning: {name} is not a setting and is ignored; there are {}", settings::known_names());
    }
    let config = match configuration(&settings) {
        Ok(path) => path,
        Err(fault) => {
            eprintln!("pixell-envoy: {fault}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let mut envoy = Command::new(ENVOY);
    envoy
        .args(["--config-path", config])
        // The access log is written every second; Envoy's 10 s are long for whoever watches it.
        .args(["--file-flush-interval-msec", "1000"])
        // Hot restart hands sockets to a second Envoy in the same container, which never comes; it would need shared memory.
        .arg("--disable-hot-restart")
        .args(settings.envoy_args())
        .args(std::env::args_os().skip(1));
    match run(envoy, &settings) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("pixell-envoy: cannot run {ENVOY}: {error}");
            ExitCode::from(EXIT_CANNOT_START)
        }
    }
}

/// The configuration to run: the shipped file, or, where settings change it, a copy that has them.
fn configuration(settings: &Settings) -> Result<&'static str, String> {
    let edits = configuration::edits(settings);
    if edits.is_empty() {
        return Ok(CONFIG);
    }
    let shipped = std::fs::read_to_string(CONFIG).map_err(|error| format!("cannot read {CONFIG}: {error}"))?;
    let rendered = configuration::render(&shipped, &edits).map_err(|error| format!("{CONFIG} {error}"))?;
    std::fs::write(RENDERED_CONFIG, rendered).map_err(|error| format!("cannot write {RENDERED_CONFIG}: {error}"))?;
    Ok(RENDERED_CONFIG)
}

fn run(envoy: Command, settings: &Settings) -> std::io::Result<u8> {
    if let Some(notice) = restart::notice(Path::new(ADMIN_SOCKET)) {
        eprintln!("{notice}");
    }
    // Before Envoy starts, so that no signal is lost in between.
    let events = supervisor::watch_signals()?;
    Supervisor::start(envoy, AdminSocket::new(ADMIN_SOCKET), settings.drain)?.run(&events)
}
