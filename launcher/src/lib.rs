//! What the pixell-envoy image runs beside Envoy: its entry point (`pixell-envoy`) and its health command
//! (`pixell-envoy-health`).
//!
//! Both are linked statically and need neither a shell nor curl, so they run on every Envoy base image, the distroless
//! one too. The entry point exists because Envoy ends at once on SIGTERM, which would cut every open stream.

pub mod admin;
pub mod configuration;
pub mod http;
pub mod restart;
pub mod settings;
pub mod supervisor;
