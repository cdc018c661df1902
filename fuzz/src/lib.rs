//! What must hold for any bytes: one property a file, each compared with a reading of the contract that shares no code with the
//! filter. libFuzzer runs them (`fuzz/fuzz_targets`), and so does `tests/fuzz.rs` as a plain test.
//!
//! `fuzz/corpus` holds inputs written by hand, whose names say what they are, and with hashes for names the fewest that reach all
//! that a run of libFuzzer has reached (`-set_cover_merge=1`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is how a property fails"
)]

pub mod api;
pub mod id;
pub mod patch;
pub mod snapshot;
mod store;
