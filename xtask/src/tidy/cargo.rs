//! The checks by cargo's own tools: rustfmt, clippy and rustdoc.

use std::process::Command;

use anyhow::Result;

use crate::build::{PACKAGES, WASI};
use crate::command::{cargo, run};
use crate::tools;

/// All Rust code is formatted by rustfmt.
pub(super) fn formatting() -> Result<Vec<String>> {
    tool(&mut cargo(["fmt", "--all", "--check"]), "run `cargo fmt --all`")
}

/// Clippy on all code that runs on this machine.
pub(super) fn lints_host() -> Result<Vec<String>> {
    // `--all-targets` leaves out tests that a plain `cargo test` leaves out.
    let all = ["clippy", "--quiet", "--workspace", "--all-targets", "--test", "*", "--", "-D", "warnings"];
    tool(&mut cargo(all), "see clippy's output above")
}

/// Clippy on the Wasm modules: only they are built with the code that calls the host.
pub(crate) fn lints_module() -> Result<Vec<String>> {
    tools::rust_target(WASI)?;
    let mut clippy = cargo(["clippy", "--quiet", "--target", WASI, "--package", "pixell-router"]);
    clippy.args(PACKAGES.iter().flat_map(|package| ["--package", package])).args(["--", "-D", "warnings"]);
    tool(&mut clippy, "see clippy's output above")
}

/// The documentation builds without a warning, for this machine and for the Wasm modules.
pub(super) fn documentation() -> Result<Vec<String>> {
    tools::rust_target(WASI)?;
    let mut errors = Vec::new();
    for what in [&["--workspace"][..], &["--package", "pixell-router", "--target", WASI]] {
        let mut doc = cargo(["doc", "--quiet", "--no-deps", "--document-private-items"]);
        doc.args(what).env("RUSTDOCFLAGS", "-D warnings");
        errors.extend(tool(&mut doc, "see rustdoc's output above")?);
    }
    Ok(errors)
}

/// Runs `command`. If it fails, returns one error that ends with `advice`.
fn tool(command: &mut Command, advice: &str) -> Result<Vec<String>> {
    Ok(run(command).err().map(|error| format!("{error:#}: {advice}")).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::program;

    #[test]
    fn a_tool_that_fails_is_an_error() {
        assert!(tool(&mut program("true"), "do it").unwrap().is_empty());
        assert!(tool(&mut program("false"), "do it").unwrap()[0].ends_with("do it"));
    }
}
