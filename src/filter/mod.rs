//! The shell: Envoy's callbacks, each of which fetches, asks the core and applies what it says.
//!
//! One compilation holds both roles. `cargo xtask build` makes two modules of it, each with one of the two entry points below
//! as its `main`, and without whatever only the other one reaches.

mod admin;
mod host;
mod router;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Debug);
}}

/// `main` of router.wasm; Envoy calls it after `_initialize`.
#[expect(unsafe_code, reason = "an export needs a name that is unique in the module; these two are")]
#[unsafe(no_mangle)]
extern "C" fn router_main(_argc: i32, _argv: i32) -> i32 {
    proxy_wasm::set_root_context(|_| Box::new(router::RouterRoot::default()));
    0
}

/// `main` of admin.wasm.
#[expect(unsafe_code, reason = "as above")]
#[unsafe(no_mangle)]
extern "C" fn admin_main(_argc: i32, _argv: i32) -> i32 {
    proxy_wasm::set_root_context(|_| Box::new(admin::AdminRoot::default()));
    0
}
