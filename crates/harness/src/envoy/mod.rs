//! A real Envoy that runs the shipped configuration.

mod builder;
mod config;
pub mod follow;
mod freeze;
pub(crate) mod launch;
mod memory;
pub mod modules;
mod port_taken;
mod process;
mod stats;

pub use builder::{EnvoyBuilder, default_filter, is_native};
pub use process::Envoy;
pub use stats::Stats;
