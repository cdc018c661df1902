//! An HTTP/1.1 agent whose responses differ by path: `/held` responds once the gate is open, `/fails` with status 500, all else at once.

use ::http::{Response, StatusCode};
use anyhow::Result;
use tokio::sync::watch;

use super::{Agent, http};

/// What holds the requests for `/held`.
#[derive(Debug)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// Lets the requests for `/held` end, those that come later included.
    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

/// Starts an agent on any free port.
///
/// # Errors
/// If there is no free port.
pub fn start(name: &str) -> Result<(Agent, Gate)> {
    let (open, gate) = watch::channel(false);
    let agent = http::start(name, 0, http::Version::Http1, move |request| {
        let mut gate = gate.clone();
        async move {
            let mut response = Response::new(http::whole("done"));
            match request.uri().path() {
                "/held" => drop(gate.wait_for(|open| *open).await),
                "/fails" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
                _ => {}
            }
            response
        }
    })?;
    Ok((agent, Gate(open)))
}
