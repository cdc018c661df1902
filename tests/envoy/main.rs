//! The filter in a real Envoy with the shipped configuration, driven by real clients against real agents. One topic a file.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

mod access_log;
mod admin_listener;
mod clients;
mod hostile_headers;
mod metrics;
mod observability;
mod rejections;
mod smoke;
mod status_page;
mod unreachable;
mod visibility;
