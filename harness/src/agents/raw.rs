//! An agent made of bare TCP connections, for what no proper server does: a function is given each connection.

use std::future::Future;

use anyhow::Result;
use tokio::net::TcpStream;

use super::{Agent, Seat};

/// Starts an agent on a free port that gives each connection to `serve`.
///
/// # Errors
/// Where no port is free.
pub fn start<F>(name: &str, serve: impl Fn(TcpStream) -> F + Clone + Send + 'static) -> Result<Agent>
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    Agent::start(name, 0, |seat| async move {
        let Seat { listener, mut stopped, .. } = seat;
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                _ = &mut stopped => return Ok(()),
            };
            let serving = serve(stream);
            // A caller that goes away is no fault of the agent.
            tokio::spawn(async { drop(serving.await) });
        }
    })
}
