//! Long runs over many changes of the route map, with figures. The size is an argument, so that a test runs the same code as
//! `cargo xtask endurance`, only shorter.

pub mod changes;
pub mod growth;
pub mod memory;
pub mod rates;
