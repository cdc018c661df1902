//! An agent that passes each bare TCP connection to a function, for behaviour that no proper server has.

use std::future::Future;

use anyhow::Result;
use tokio::net::TcpStream;

use super::{Agent, Seat};

/// Starts an agent on a free port that passes each connection to `serve`.
///
/// # Errors
/// If no port is free.
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
            // A client that closes the connection is not an error of the agent.
            tokio::spawn(async { drop(serving.await) });
        }
    })
}
