//! The pixell-envoy filter: routes a request to the agent that its `x-deployment-id` header names.
//!
//! The crate is a pure core and a thin shell. The core decides; it builds on any target and knows no host:
//!
//! | module | what it is |
//! | --- | --- |
//! | [`deployment_id`] | the key a caller sends |
//! | [`route`] | where an id leads: a port and a state |
//! | [`snapshot`] | the route map as bytes, searched in place |
//! | [`store`] | publishing and reading snapshots through shared data |
//! | [`change`] | what one write does to the map |
//! | [`decision`] | header and map to forward or reject |
//! | [`upstream`] | how the chosen port is handed to Envoy |
//! | [`rejection`] | every refusal of the data path |
//! | [`metrics`] | names and labels of what is counted |
//! | [`problem`] | the error document both roles answer with |
//! | [`json`] | JSON text to values, duplicate keys kept apart |
//! | [`config`] | plugin configuration |
//! | [`admin`] | the route API as a pure function: request to reply |
//!
//! The shell, `filter`, exists in the WebAssembly module alone and is the only part that talks to Envoy.

pub mod admin;
pub mod change;
pub mod config;
pub mod decision;
pub mod deployment_id;
pub mod json;
pub mod metrics;
pub mod problem;
pub mod rejection;
pub mod route;
pub mod snapshot;
pub mod store;
pub mod upstream;

#[cfg(target_os = "wasi")]
pub mod filter;
