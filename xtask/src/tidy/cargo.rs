//! What cargo's own tools find.

use std::process::Command;

use anyhow::Result;
use trim_modules::ROLES;

use crate::build::WASI;
use crate::command::{cargo, run};
use crate::tools;

/// Formatting is rustfmt's.
pub(super) fn formatting() -> Result<Vec<String>> {
    tool(&mut cargo(["fmt", "--all", "--check"]), "run `cargo fmt --all`")
}

/// Clippy on everything that runs on this machine.
pub(super) fn lints_host() -> Result<Vec<String>> {
    tool(&mut cargo(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]), "see clippy's words above")
}

/// Clippy on the modules, the only build that has the part that talks to the host.
pub(crate) fn lints_module() -> Result<Vec<String>> {
    tools::wasm_target(WASI)?;
    let mut clippy = cargo(["clippy", "--quiet", "--target", WASI, "--package", "pixell-router", "--lib"]);
    clippy.args(ROLES.iter().flat_map(|role| ["--package", role.package])).args(["--", "-D", "warnings"]);
    tool(&mut clippy, "see clippy's words above")
}

/// The documentation builds without a warning, for this machine and for the module.
pub(super) fn documentation() -> Result<Vec<String>> {
    tools::wasm_target(WASI)?;
    let mut faults = Vec::new();
    for what in [&["--workspace"][..], &["--package", "pixell-router", "--target", WASI]] {
        let mut doc = cargo(["doc", "--quiet", "--no-deps", "--document-private-items"]);
        doc.args(what).env("RUSTDOCFLAGS", "-D warnings");
        faults.extend(tool(&mut doc, "see rustdoc's words above")?);
    }
    Ok(faults)
}

/// Runs `command`; where it fails, `advice` is the fault.
fn tool(command: &mut Command, advice: &str) -> Result<Vec<String>> {
    Ok(run(command).err().map(|error| format!("{error:#}: {advice}")).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::program;

    #[test]
    fn a_tool_that_fails_is_a_fault() {
        assert!(tool(&mut program("true"), "do it").unwrap().is_empty());
        assert!(tool(&mut program("false"), "do it").unwrap()[0].ends_with("do it"));
    }
}
