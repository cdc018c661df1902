//! A real Envoy that runs the shipped configuration.

pub mod binary;
mod builder;
mod config;
mod freeze;
mod launch;
mod memory;
pub mod modules;
mod process;
mod stats;

pub use builder::EnvoyBuilder;
pub use process::Envoy;
pub use stats::Stats;
