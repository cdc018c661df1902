//! A certificate for tests of TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Makes a certificate of `localhost` that signs itself and its key, in `directory`, and returns their paths. It is valid for `days` days.
///
/// # Errors
/// If the command openssl is missing or fails.
pub fn self_signed(directory: &Path, days: u32) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"]);
    openssl.args(["-days", &days.to_string(), "-out"]).arg(&certificate).arg("-keyout").arg(&key);
    let made = openssl.output().context("openssl is missing: install it (Debian: apt-get install openssl)")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Ok((certificate, key))
}
