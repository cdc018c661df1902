//! Long runs with figures: what an Envoy does over many changes of its map. Each takes its size, so that a test runs a short form
//! of the very thing that `cargo xtask endurance` runs long.

pub mod changes;
pub mod growth;
pub mod memory;
