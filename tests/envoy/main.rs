//! The filter in a real Envoy with the shipped configuration, driven by real clients against real agents. One topic a file.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

mod access_log;
mod admin_listener;
mod api;
mod api_bodies;
mod api_bootstrap;
mod api_configuration;
mod api_contract;
mod api_model;
mod api_patch;
mod api_raw;
mod api_token;
mod api_versions;
mod api_writers;
mod clients;
mod endurance;
mod faults;
mod grpc_streams;
mod hostile_bytes;
mod hostile_headers;
mod http1;
mod limits;
mod live_streams;
mod metrics;
mod model;
mod observability;
mod rejections;
mod retries;
mod smoke;
mod spoofing;
mod status_page;
mod tracing;
mod trap;
mod unreachable;
mod visibility;
mod wire;
