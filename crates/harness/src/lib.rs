//! Starts what the demo, the tests and the bench share: a real Envoy with the shipped configuration, and real agents.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use harness::{Envoy, agents};
//!
//! let envoy = Envoy::builder().start().await?;
//! let agent = agents::grpc::start("agent-a")?;
//! envoy.routes().put_all([("a", agent.port())]).await?;
//! # Ok(())
//! # }
//! ```

pub mod agents;
pub mod capacity;
pub mod certificate;
pub mod endurance;
pub mod envoy;
pub mod fabric;
pub mod fleet;
pub mod form;
pub mod ports;
pub mod proto;
pub mod routes;
pub mod shutdown;
pub mod tokens;
pub mod traces;
pub mod wait;

pub use agents::Agent;
pub use envoy::{Envoy, EnvoyBuilder};
pub use routes::{ApiResponse, RouteApi};

/// The exit code for the result of a command. An error is printed to standard error.
#[must_use]
pub fn end(result: anyhow::Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
