//! What the demo, the tests and the bench share: a real Envoy running the shipped configuration, and real agents.
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
pub mod endurance;
pub mod envoy;
pub mod proto;
pub mod routes;
pub mod wait;
pub mod workspace;

pub use agents::Agent;
pub use envoy::{Envoy, EnvoyBuilder};
pub use routes::{Reply, RouteApi};
