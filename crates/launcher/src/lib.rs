//! What the pixell-envoy image runs beside Envoy: its entry point (`pixell-envoy`) and its health command
//! (`pixell-envoy-health`).
//!
//! Both are linked statically and need neither a shell nor curl, so they run on every Envoy base image, including the distroless
//! one. The entry point exists because Envoy ends at once on SIGTERM, which would cut every open stream.

pub mod addressing;
pub mod admin;
pub mod client_rejections;
pub mod configuration;
pub mod cors;
pub mod filter;
pub mod fleet;
pub mod http;
pub mod jwt;
pub mod origin;
pub mod peer_tls;
pub mod peers;
pub mod rate_limit;
pub mod relay;
pub mod report;
pub mod restart;
pub mod settings;
pub mod shown;
pub mod supervisor;
pub mod tls;
pub mod token;

/// Envoy's admin interface in the image, as `envoy/envoy.yaml` names it.
pub const ADMIN_SOCKET: &str = "/run/pixell-envoy/admin.sock";

/// The socket in the image on which Envoy learns how many lines were dropped, as `envoy/envoy.yaml` names it.
pub const LAUNCHER_SOCKET: &str = "/run/pixell-envoy/launcher.sock";

/// EX_CONFIG of sysexits.h: the settings are wrong, and a restart will not help.
pub const EXIT_CONFIG: u8 = 78;
