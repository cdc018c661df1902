//! A test suite: what it needs, and the command that runs it.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use launcher::filter::Filter;
use launcher::settings::FILTER;

use super::count::Runner;
use super::need::Need;
use super::wasm_only;

/// One run of one test runner.
pub(super) struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// How long it took in a fresh clone on two cores, in seconds, with another suite beside it.
    pub seconds: u32,
    /// What it tests, in a line.
    pub about: &'static str,
    /// What it needs. If it needs more than rustup, python3, node and openssl, it runs only with `--all`.
    pub needs: &'static [Need],
    /// How its count is read.
    pub runner: Runner,
    /// Prepares what only this suite needs and returns its command.
    pub command: fn() -> Result<Command>,
}

/// The suites that run with either form of the filter. Each of the others runs with fixed forms, or without the filter.
const CHOICE: [&str; 3] = ["rust", "netns", "demo"];

impl Suite {
    /// How long it may take, so that a test that hangs does not take the time of all other suites.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(600) + 3 * Duration::from_secs(self.seconds.into())
    }

    /// Whether it runs without `--all`.
    #[must_use]
    pub(super) fn is_common(&self) -> bool {
        self.needs.iter().all(|need| need.is_common())
    }

    /// Whether it runs with either form of the filter.
    #[must_use]
    pub(super) fn has_choice(&self) -> bool {
        CHOICE.contains(&self.name)
    }

    /// The command that runs it, with this form of the filter if it has a choice.
    ///
    /// # Errors
    /// If what it needs cannot be prepared.
    pub(super) fn command_with(&self, filter: Filter) -> Result<Command> {
        let mut command = (self.command)()?;
        if self.has_choice() {
            command.env(FILTER, filter.name());
            if self.name == "rust" && filter == Filter::Native {
                command.args(wasm_only::skips());
            }
        }
        Ok(command)
    }
}
