//! `cargo xtask demo`: with `--fleet` it needs more than the program itself.

use anyhow::Result;

use crate::{program, python, tools};

/// Provides what the demo needs, and replaces this process by it.
///
/// # Errors
/// If something is missing, or does not build.
pub(crate) fn run(mut arguments: program::Arguments) -> Result<()> {
    if arguments.has("--fleet") && !arguments.asks_for_help() {
        tools::debian("ip", "iproute2")?;
        tools::debian("redis-server", "redis-server")?;
        let python = python::CLIENT.programs()?.join("python");
        arguments.push("--python".into());
        arguments.push(python.into());
    }
    program::run("demo", &arguments)
}
