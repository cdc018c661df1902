//! The commands that are programs of other packages, such as those that start Envoy. They are built and then replace this process.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Args;

use crate::build;
use crate::command::{self, program};

/// The program's own arguments; its `--help` shows them.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.rest.iter().any(|argument| argument == flag)
    }

    /// The value that follows a flag, or an equals sign after it.
    pub(crate) fn value(&self, flag: &str) -> Option<&str> {
        let mut rest = self.rest.iter().filter_map(|argument| argument.to_str());
        let found =
            rest.find_map(|argument| argument.strip_prefix(flag).filter(|after| after.is_empty() || after.starts_with('=')))?;
        if found.is_empty() { rest.next() } else { found.get(1..) }
    }

    pub(crate) fn asks_for_help(&self) -> bool {
        self.has("--help") || self.has("-h")
    }

    pub(crate) fn push(&mut self, argument: OsString) {
        self.rest.push(argument);
    }
}

/// Builds the filter and the program `name`, and replaces this process by that program.
///
/// # Errors
/// If something does not build.
pub(crate) fn run(name: &str, arguments: &Arguments) -> Result<()> {
    if !arguments.asks_for_help() {
        build::modules()?;
    }
    run_without_envoy(name, arguments)
}

/// Builds the program `name`, and replaces this process by it.
///
/// # Errors
/// If it does not build.
pub(crate) fn run_without_envoy(name: &str, Arguments { rest }: &Arguments) -> Result<()> {
    // With the features that the whole workspace needs, so that the programs share their dependencies.
    command::run(&mut command::cargo(["build", "--quiet", "--workspace", "--bin", name]))?;
    let place = workspace::target().join("debug").join(name);
    let error = program(&place.to_string_lossy()).args(rest).exec();
    Err(error).with_context(|| format!("starting {}", place.display()))
}
