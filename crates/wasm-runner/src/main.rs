//! wasm-bindgen's test runner. It is not built by `cargo install wasm-bindgen-cli`, because that cannot use a lock file of ours, and its
//! own lock file may name releases that no longer exist.

use std::env;

fn main() -> anyhow::Result<()> {
    wasm_bindgen_cli::wasm_bindgen_test_runner::run_cli_with_args(env::args_os())
}
