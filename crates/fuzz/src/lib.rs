//! Properties that must hold for any bytes, one in each file. Each compares the filter's core with a second implementation of the
//! contract that shares no code with it. libFuzzer runs them (`crates/fuzz/fuzz_targets`), and `crates/core/tests/fuzz.rs` runs them as
//! plain tests.
//!
//! `crates/fuzz/corpus` holds inputs written by hand, whose names say what they are. The inputs that libFuzzer finds stay in
//! `target/fuzz-corpus`. If one of them breaks a property, add it to the corpus with a name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is how a property fails"
)]

pub mod api;
pub mod card;
pub mod id;
pub mod patch;
mod server;
pub mod table;
