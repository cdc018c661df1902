//! `cargo xtask endurance`: its fleet needs more than the program itself.

use anyhow::Result;

use crate::command::{cargo, run as run_command};
use crate::{program, tools};

/// Provides what the tests need, and replaces this process by them.
///
/// # Errors
/// If something is missing, or does not build.
pub(crate) fn run(mut arguments: program::Arguments) -> Result<()> {
    let has_fleet = !arguments.has("--only") || arguments.has("fleet");
    if has_fleet && !arguments.asks_for_help() {
        tools::debian("ip", "iproute2")?;
        tools::debian("haproxy", "haproxy")?;
        run_command(&mut cargo(["build", "--quiet", "--package", "pixell-tests", "--bin", "supervised"]))?;
        arguments.push("--entry-point".into());
        arguments.push(workspace::target().join("debug/supervised").into());
    }
    program::run("harness", "endurance", &arguments)
}
