//! `pixell-envoy`: the entry point of the image. It starts Envoy with the shipped configuration and, on SIGTERM, lets open streams
//! end before it ends Envoy. It passes its arguments on to Envoy.

use launcher::admin::AdminSocket;
use launcher::configuration;
use launcher::filter::{self, Filter, Role};
use launcher::relay::Relay;
use launcher::report;
use launcher::restart;
use launcher::settings::{self, Settings};
use launcher::supervisor::{self, Supervisor};
use launcher::token;
use launcher::{ADMIN_SOCKET, EXIT_CONFIG, LAUNCHER_SOCKET};
use std::path::Path;
use std::process::{Command, ExitCode};

const ENVOY: &str = "/usr/local/bin/envoy";
const CONFIG: &str = "/etc/envoy/envoy.yaml";
/// The configuration as the settings change it, in the only directory that the image can write to.
const RENDERED_CONFIG: &str = "/run/pixell-envoy/envoy.yaml";

/// The exit code that a shell gives for a program that cannot be started.
const EXIT_CANNOT_START: u8 = 126;

fn main() -> ExitCode {
    let settings = match Settings::resolve(|name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(errors) => {
            for error in errors {
                eprintln!("pixell-envoy: {error}");
            }
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let unknown = settings::unknown_names(std::env::vars_os().map(|(name, _)| name));
    if let Some(name) = unknown.iter().find(|name| settings::is_grave(name)) {
        eprintln!("pixell-envoy: {}", settings::unknown_error(name));
        return ExitCode::from(EXIT_CONFIG);
    }
    for name in unknown {
        eprintln!(
            "pixell-envoy: warning: {name} is not a setting and is ignored; the settings are {}",
            settings::known_names()
        );
    }
    for warning in token::warning(|name| std::env::var_os(name)).into_iter().chain(settings.warnings()) {
        eprintln!("pixell-envoy: {warning}");
    }
    let checked = settings.check(Path::new(ENVOY));
    let config = match checked.and_then(|()| configuration(&settings)) {
        Ok(path) => path,
        Err(error) => {
            eprintln!("pixell-envoy: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let token = match token::resolve(|name| std::env::var_os(name)) {
        Ok(token) => token,
        Err(error) => {
            eprintln!("pixell-envoy: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let mut envoy = Command::new(ENVOY);
    if let Some(token) = token {
        envoy.env(settings::ADMIN_TOKEN, token);
    }
    envoy
        .args(["--config-path", config])
        // Write the access log every second: Envoy's default of 10 s is long for a person who watches it.
        .args(["--file-flush-interval-msec", "1000"])
        // Hot restart needs shared memory to hand sockets to a second Envoy in the same container, and there is never one.
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

/// The configuration to run: the shipped file, or a changed copy if the settings ask for a change.
fn configuration(settings: &Settings) -> Result<&'static str, String> {
    let edits = configuration::edits(settings);
    if edits.is_empty() && settings.filter == Filter::Wasm {
        return Ok(CONFIG);
    }
    let shipped = std::fs::read_to_string(CONFIG).map_err(|error| format!("cannot read {CONFIG}: {error}"))?;
    let mut rendered = configuration::render(&shipped, &edits).map_err(|error| format!("{CONFIG} {error}"))?;
    if settings.filter == Filter::Native {
        let version = filter::version_of(Path::new(ENVOY))?;
        settings.filter.check_envoy(&version).map_err(|error| format!("{} is \"native\": {error}", settings::FILTER))?;
        let roles: Vec<_> = Role::ALL.into_iter().chain(settings.fleet.iter().flat_map(|_| Role::FLEET)).collect();
        rendered = filter::to_native(&rendered, &roles).map_err(|error| format!("{CONFIG} {error}"))?;
    }
    for (path, text) in configuration::files(settings) {
        std::fs::write(path, text).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    std::fs::write(RENDERED_CONFIG, rendered).map_err(|error| format!("cannot write {RENDERED_CONFIG}: {error}"))?;
    Ok(RENDERED_CONFIG)
}

fn run(envoy: Command, settings: &Settings) -> std::io::Result<u8> {
    if let Some(notice) = restart::notice(Path::new(ADMIN_SOCKET)) {
        eprintln!("{notice}");
    }
    // Before Envoy starts, so that no signal is lost.
    let events = supervisor::watch_signals()?;
    let relay = Relay::start()?;
    report::watch(relay.clone(), LAUNCHER_SOCKET.into())?;
    Supervisor::start(envoy, AdminSocket::new(ADMIN_SOCKET), settings.drain, relay)?.run(&events)
}
