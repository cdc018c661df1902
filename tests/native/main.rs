//! The native filter in a real Envoy: the tests in which it differs from the Wasm filter. All other tests are in `envoy/`, and run with
//! either filter.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

#[path = "../envoy/clients.rs"]
#[expect(dead_code, reason = "these tests do not need every client")]
mod clients;
mod hooks;
mod loading;
mod panics;
mod queues;
