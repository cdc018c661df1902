//! `cargo xtask envoy`: runs Envoy with the filter in the foreground, with the image's settings from the environment and without agents.

use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use harness::envoy::{follow, modules};
use harness::form::Form;
use harness::ports::{ADMIN, LISTEN, PEERS, Ports};
use harness::shutdown::Shutdown;
use harness::{Envoy, EnvoyBuilder};
use launcher::settings::{self, Settings};
use launcher::token;
use workspace::say;

/// Run Envoy with the filter in the foreground until SIGTERM or Ctrl-C.
#[derive(Parser)]
#[command(bin_name = "cargo xtask envoy")]
struct Arguments {
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    form: Form,
    /// Port for other tasks of the fleet, if PIXELL_FLEET_CIDRS is set; the same for all tasks [default: 50050]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    peer_port: Option<u16>,
    /// Number of worker threads; takes precedence over PIXELL_CONCURRENCY [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(workers()))]
    concurrency: Option<u32>,
    /// Address that all listeners bind
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: std::net::IpAddr,
    /// Show Envoy's own log on standard error
    #[arg(long)]
    verbose: bool,
}

/// As many as the image takes.
fn workers() -> RangeInclusive<i64> {
    let (least, most) = settings::CONCURRENCY_RANGE.into_inner();
    least.into()..=most.into()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let unknown = settings::unknown_names(std::env::vars_os().map(|(name, _)| name));
    if let Some(name) = unknown.iter().find(|name| settings::is_grave(name)) {
        eprintln!("error: {}", settings::unknown_error(name));
        return ExitCode::from(launcher::EXIT_CONFIG);
    }
    let settings = Settings::resolve(|name| std::env::var_os(name));
    let token = token::resolve(|name| std::env::var_os(name));
    match (settings, token) {
        (Ok(settings), Ok(token)) => {
            let warnings = token::warning(|name| std::env::var_os(name)).into_iter().chain(settings.warnings());
            warnings.for_each(|warning| eprintln!("{warning}"));
            match check(&settings) {
                Ok(()) => harness::end(run(&arguments, &settings, token.as_deref())),
                Err(error) => {
                    eprintln!("error: {error}");
                    ExitCode::from(launcher::EXIT_CONFIG)
                }
            }
        }
        (settings, token) => {
            let errors = settings.err().unwrap_or_default();
            let errors = errors.iter().map(ToString::to_string).chain(token.err().map(|error| error.to_string()));
            errors.for_each(|error| eprintln!("error: {error}"));
            ExitCode::from(launcher::EXIT_CONFIG)
        }
    }
}

/// Checks the files that the settings name, as the image does.
fn check(settings: &Settings) -> Result<(), String> {
    let peers = settings.fleet.as_ref().and_then(|fleet| fleet.tls.as_ref());
    if settings.tls.is_none() && settings.jwt.is_none() && peers.is_none() {
        return Ok(());
    }
    settings.check(&workspace::envoy::locate().map_err(|error| format!("{error:#}"))?)
}

/// Runs Envoy until it ends or a signal stops it.
///
/// # Errors
/// If a port is in use, the modules are missing or old, or Envoy does not start or ends with a failure.
#[tokio::main]
async fn run(arguments: &Arguments, settings: &Settings, token: Option<&str>) -> Result<()> {
    let (listen, admin) = arguments.ports.claim(LISTEN, ADMIN)?;
    let peer_port = arguments.peer_port.unwrap_or(PEERS);
    if settings.fleet.is_some() {
        let claimed = TcpListener::bind((arguments.bind, peer_port));
        claimed
            .with_context(|| format!("port {peer_port} cannot be used: choose another port with --peer-port, for all tasks"))?;
    }
    let filter = arguments.form.filter()?;
    let modules = modules::locate()?;
    let binary = workspace::envoy::locate()?;
    say("starting Envoy");
    let mut shutdown = Shutdown::catch()?;
    let builder = Envoy::builder()
        .settings(settings)
        .filter(filter)
        .bind(arguments.bind)
        .binary(binary)
        .modules(modules)
        .data_port(listen)
        .api_port(admin)
        .peer_port(peer_port)
        .foreground();
    let builder = arguments.concurrency.into_iter().fold(builder, EnvoyBuilder::concurrency);
    let builder = token.into_iter().fold(builder, |builder, token| builder.env(settings::ADMIN_TOKEN, token));
    let logs = if arguments.verbose { None } else { Some(follow::fresh_directory("envoy")?) };
    let builder = logs.iter().fold(builder, |builder, (directory, _taken)| builder.logs(directory.clone()));
    let mut envoy = tokio::select! {
        started = builder.start() => started?,
        signal = shutdown.requested() => bail!("{signal} before Envoy was ready"),
    };
    eprintln!("{}", follow::places(&envoy));
    say("the access log follows on standard output; Ctrl-C stops Envoy");
    let status = tokio::select! {
        status = envoy.ended() => status?,
        signal = shutdown.requested() => {
            say(&format!("{signal}: stopping Envoy"));
            envoy.sigterm().await?
        }
    };
    if !status.success() {
        bail!("Envoy ended with {status}");
    }
    Ok(())
}
