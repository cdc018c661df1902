//! `pixell-envoy-health`: exit code 0 when Envoy is ready, 1 when it is not, for container health checks.
//!
//! It asks what PAR and the load balancer see, `GET /ready` on port 9901, and so does not depend on a pushed map.

use launcher::http::{self, ExchangeError};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// Below the time limit of the image's HEALTHCHECK, so that the reason is still printed.
const TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("usage: pixell-envoy-health (no arguments): asks http://{ADMIN}/ready");
        return ExitCode::from(2);
    }
    match check() {
        Ok(state) => {
            println!("{state}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("not ready: http://{ADMIN}/ready: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Gives Envoy's word for its state, `LIVE`, or why that is not the state.
fn check() -> Result<String, String> {
    let reply = TcpStream::connect_timeout(&ADMIN, TIMEOUT)
        .map_err(ExchangeError::from)
        .and_then(|connection| http::exchange(connection, "GET", "/ready", TIMEOUT))
        .map_err(|error| error.to_string())?;
    let state = String::from_utf8_lossy(&reply.body).trim().to_owned();
    if reply.status == 200 { Ok(state) } else { Err(format!("status {}: {state}", reply.status)) }
}
