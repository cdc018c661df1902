//! What a suite needs before it can run. What is missing is fetched where cargo, pip or apt can, else it is a failure that says
//! what to do.

use std::collections::HashMap;

use anyhow::{Result, bail};

use harness::envoy::binary::OLDER;

use crate::{build, tools};

/// One thing that a suite needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Need {
    /// The filter's modules, built from the source at hand.
    Modules,
    /// The same with a way to kill the data path.
    TrapModules,
    /// Envoy's binary.
    Envoy,
    /// The older Envoy releases that are supported.
    OlderEnvoys,
    /// Node.js.
    Node,
    /// A program that a Debian package of this name installs.
    Debian {
        /// The program that must be found.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
}

impl Need {
    /// Whether rustup, python3 and node are enough for it, so that it belongs to `cargo xtask test` without `--all`.
    #[must_use]
    pub(super) const fn is_common(self) -> bool {
        match self {
            Self::Modules | Self::TrapModules | Self::Envoy | Self::Node => true,
            // Three downloads of 40 MB that most days teach nothing.
            Self::OlderEnvoys | Self::Debian { .. } => false,
        }
    }

    fn provide(self) -> Result<()> {
        match self {
            Self::Modules => build::modules().map(drop),
            Self::TrapModules => build::trap_modules().map(drop),
            Self::Envoy => harness::envoy::binary::locate().map(drop),
            Self::OlderEnvoys => OLDER.iter().try_for_each(|version| harness::envoy::binary::release(version).map(drop)),
            Self::Node => tools::node(),
            Self::Debian { program, package } => tools::debian(program, package),
        }
    }
}

/// What has been provided, or could not be, so that each need is seen to once.
#[derive(Default)]
pub(super) struct Provided(HashMap<Need, Option<String>>);

impl Provided {
    /// Provides all of `needs`.
    ///
    /// # Errors
    /// Where one of them cannot be had; the error says why, and what to do.
    pub(super) fn all(&mut self, needs: &[Need]) -> Result<()> {
        for need in needs {
            let fault = self.0.entry(*need).or_insert_with(|| need.provide().err().map(|error| format!("{error:#}")));
            if let Some(fault) = fault {
                bail!("{fault}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_had_is_said_again() {
        let mut provided = Provided::default();
        provided.0.insert(Need::Node, Some("no node".into()));
        for _ in 0..2 {
            assert_eq!(provided.all(&[Need::Node]).unwrap_err().to_string(), "no node");
        }
    }
}
