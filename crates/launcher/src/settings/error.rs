//! A value that is not allowed, and how it is shown.

use std::ffi::OsString;
use std::fmt;

use super::{JWKS_CA_FILE, JWKS_FILE, JWKS_URL, TLS_CERT_FILE, TLS_CLIENT_CA_FILE, TLS_KEY_FILE};
use crate::shown;

/// The value of a variable is not allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingError {
    pub(super) name: &'static str,
    pub(super) value: OsString,
    pub(super) expected: String,
}

impl SettingError {
    pub(crate) fn new(name: &'static str, value: OsString, expected: &str) -> Self {
        Self { name, value, expected: expected.to_owned() }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.to_string_lossy();
        let value = match self.name {
            TLS_CERT_FILE | TLS_KEY_FILE | TLS_CLIENT_CA_FILE | JWKS_FILE | JWKS_CA_FILE => shown::path(&value),
            JWKS_URL => shown::url(&value),
            _ => shown::text(&value),
        };
        write!(f, "{} is {value}: expected {}", self.name, self.expected)
    }
}

impl std::error::Error for SettingError {}
