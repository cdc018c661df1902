//! The shell: Envoy's callbacks, each of which fetches, asks the core and applies what it says.
//!
//! The two roles are two modules (`modules/router`, `modules/admin`), each of which starts one of them here. The linker leaves
//! out of a module what only the other role reaches.

mod admin;
mod host;
mod metrics;
mod router;

use proxy_wasm::types::LogLevel;

/// Makes this VM a router: the data path.
pub fn start_router() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(router::RouterRoot::default()));
}

/// Makes this VM an admin: the route API.
pub fn start_admin() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(admin::AdminRoot::default()));
}
