//! What a suite needs before it can run. If something is missing, cargo, pip or apt installs it; if they cannot, the error says what
//! to do.

use std::collections::HashMap;

use anyhow::{Result, bail};

use workspace::envoy::OLDER;

use crate::{build, tools};

/// One thing that a suite needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Need {
    /// The filter's modules, built from the source at hand.
    Modules,
    /// The same, in a form that a request can crash.
    TrapModules,
    /// Envoy's binary.
    Envoy,
    /// The older Envoy releases that are supported.
    OlderEnvoys,
    /// Node.js.
    Node,
    /// The command openssl, which nearly every machine has.
    OpenSsl,
    /// cargo-deny.
    CargoDeny,
    /// A program from a Debian package.
    Debian {
        /// The program, which must be on the search path.
        program: &'static str,
        /// The package that installs it.
        package: &'static str,
    },
}

impl Need {
    /// Whether rustup, python3, node and openssl are enough for it. If so, suites that need it run without `--all`.
    #[must_use]
    pub(super) const fn is_common(self) -> bool {
        match self {
            Self::Modules | Self::TrapModules | Self::Envoy | Self::Node | Self::OpenSsl => true,
            // Three downloads of 40 MB, or minutes of compiling, which are rarely worth it.
            Self::OlderEnvoys | Self::CargoDeny | Self::Debian { .. } => false,
        }
    }

    fn provide(self) -> Result<()> {
        match self {
            Self::Modules => build::modules().map(drop),
            Self::TrapModules => build::trap_modules().map(drop),
            Self::Envoy => workspace::envoy::locate().map(drop),
            Self::OlderEnvoys => OLDER.iter().try_for_each(|version| workspace::envoy::release(version).map(drop)),
            Self::Node => tools::node(),
            Self::OpenSsl => tools::debian("openssl", "openssl"),
            Self::CargoDeny => tools::cargo_deny().map(drop),
            Self::Debian { program, package } => tools::debian(program, package),
        }
    }
}

/// The needs that were provided, or the errors of those that could not be, so that each is tried only once.
#[derive(Default)]
pub(super) struct Provided(HashMap<Need, Option<String>>);

impl Provided {
    /// Provides all of `needs`.
    ///
    /// # Errors
    /// If one of them cannot be provided; the error says why, and what to do.
    pub(super) fn all(&mut self, needs: &[Need]) -> Result<()> {
        for need in needs {
            let error = self.0.entry(*need).or_insert_with(|| need.provide().err().map(|error| format!("{error:#}")));
            if let Some(error) = error {
                bail!("{error}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_tried_once_and_its_error_is_repeated() {
        let mut provided = Provided::default();
        provided.0.insert(Need::Node, Some("no node".into()));
        for _ in 0..2 {
            assert_eq!(provided.all(&[Need::Node]).unwrap_err().to_string(), "no node");
        }
    }
}
