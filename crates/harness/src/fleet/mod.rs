//! A fleet of real tasks under load, with counts: what clients are told while agents move, and while tasks come, end and fail. The sizes are
//! arguments, so that a test runs the same code as `cargo xtask endurance`, only shorter.

mod agent;
mod balancer;
pub mod clients;
pub mod crashes;
mod draw;
pub mod failures;
pub mod ledger;
pub mod moves;
pub mod reuse;
pub mod rolling;
pub mod task;
pub mod tasks;

pub use tasks::{Fleet, Peers};

/// The id in requests and maps.
fn name(id: ledger::Id) -> String {
    format!("id-{id}")
}
