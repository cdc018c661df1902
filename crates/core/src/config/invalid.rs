//! The errors of a configuration, as one line of Envoy's log.

use crate::problem::FieldErrors;
use std::fmt;

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig(pub FieldErrors);

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.listed().iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            let place = if error.pointer.is_empty() { "" } else { " " };
            write!(f, "{separator}{}{place}{}", error.pointer, error.detail)?;
        }
        match self.0.total() - self.0.listed().len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for InvalidConfig {}
