//! The pixell-envoy filter as a WebAssembly module for Envoy: callbacks, each of which fetches, asks the core (`pixell-core`) and
//! applies what it says.
//!
//! The four roles are four modules (`crates/router-module`, `crates/responses-module`, `crates/admin-module`, `crates/clients-module`), each
//! of which starts one role here. The linker leaves out of a module what only other roles use.
#![cfg(target_os = "wasi")]

mod admin;
mod clients;
mod host;
mod metrics;
mod responses;
mod router;

use proxy_wasm::types::LogLevel;

/// Makes this VM a router: the data path.
pub fn start_router() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(router::RouterRoot::default()));
}

/// Makes this VM one that leads clients back: responses to requests that a path or a host addresses.
pub fn start_responses() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(responses::ResponsesRoot::default()));
}

/// Makes this VM an admin: the route API.
pub fn start_admin() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(admin::AdminRoot::default()));
}

/// Makes this VM a keeper of clients' shares: connections and requests of each client address.
pub fn start_clients() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(clients::ClientsRoot::default()));
}
