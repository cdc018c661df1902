//! `pixell-envoy-health`, for container health checks: exit code 0 if Envoy is ready, 1 if it is not.
//!
//! It sends the request that PAR and the load balancer send, `GET /ready` on port 9901, so it does not depend on a route map.

use launcher::http::{self, ExchangeError};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// Shorter than the timeout of the image's HEALTHCHECK, so that the reason is still printed.
const TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("usage: pixell-envoy-health (no arguments): sends GET http://{ADMIN}/ready");
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

/// Returns Envoy's word for its state, `LIVE`, or why Envoy is not ready.
fn check() -> Result<String, String> {
    let response = TcpStream::connect_timeout(&ADMIN, TIMEOUT)
        .map_err(ExchangeError::from)
        .and_then(|connection| http::exchange(connection, "GET", "/ready", TIMEOUT))
        .map_err(|error| error.to_string())?;
    let state = String::from_utf8_lossy(&response.body).trim().to_owned();
    if response.status == 200 { Ok(state) } else { Err(format!("status {}: {state}", response.status)) }
}
