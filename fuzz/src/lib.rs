//! What must hold for any bytes: one property a file, each compared with a reading of the contract that shares no code with the
//! filter. libFuzzer runs them (`fuzz/fuzz_targets`), and `tests/fuzz.rs` does on the stable toolchain.
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
