//! Several tasks, each a real Envoy in a network namespace of its own, that forward requests to each other.
//!
//! Needs root and iproute2, so it is not part of a plain `cargo test`: `cargo xtask test netns`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

mod addressing;
mod authentication;
mod both;
mod certificates;
mod drains;
mod fabric;
mod failures;
mod filters;
mod grpc;
#[path = "../native/hooks.rs"]
#[expect(dead_code, reason = "these tests need the hooks of one filter")]
mod hooks;
mod hops;
mod ipv6;
mod panics;
mod peers_failed;
mod protocols;
mod queues;
mod resets;
mod shared_connections;
mod streams;
mod tasks;
mod traces;
mod under_load;
mod visibility;
