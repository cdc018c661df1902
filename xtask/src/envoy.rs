//! `cargo xtask envoy`: Envoy with the filter in the foreground, without agents.

use anyhow::{Result, bail};
use clap::Args;
use harness::Envoy;

use crate::build;
use crate::command::say;
use crate::ports::{ADMIN, LISTEN, Ports};
use crate::shutdown::Shutdown;

/// Run Envoy with the filter in the foreground until SIGTERM or Ctrl-C.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    ports: Ports,
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrency: u32,
}

/// Builds the filter and runs Envoy.
///
/// # Errors
/// Where a port is taken, the filter does not build, Envoy does not start, or ends by itself with a failure.
#[tokio::main]
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let (listen, admin) = arguments.ports.claim(LISTEN, ADMIN)?;
    let modules = build::modules()?;
    let binary = harness::envoy::binary::locate()?;
    say("starting Envoy");
    let mut shutdown = Shutdown::catch()?;
    let settings = Envoy::builder()
        .binary(binary)
        .modules(modules)
        .data_port(listen)
        .api_port(admin)
        .concurrency(arguments.concurrency)
        .foreground();
    let mut envoy = tokio::select! {
        started = settings.start() => started?,
        signal = shutdown.requested() => bail!("{signal} before Envoy was ready"),
    };
    say(&format!("agents are called at {}", envoy.data_url()));
    say(&format!("route API, /ready and /stats answer at {}", envoy.api_url()));
    say("Ctrl-C stops Envoy");
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
