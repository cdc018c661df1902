//! Certificates for tests of TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The name of all tasks of a fleet.
pub const PEER_NAME: &str = "peer.pixell.test";

/// Makes a certificate of `localhost` that signs itself and its key, in `directory`, and returns their paths. It is valid for `days` days.
///
/// # Errors
/// If the command openssl is missing or fails.
pub fn self_signed(directory: &Path, days: u32) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"]);
    openssl.args(["-days", &days.to_string(), "-out"]).arg(&certificate).arg("-keyout").arg(&key);
    run(&mut openssl)?;
    Ok((certificate, key))
}

/// Makes a certificate with its key, `FILE.crt` and `FILE.key` in `directory`: a CA, or one that the CA in the files `ca` there signs for a name.
/// It is valid for two days.
///
/// # Errors
/// If the command openssl is missing or fails.
pub fn certify(directory: &Path, file: &str, name: Option<&str>) -> Result<()> {
    let mut openssl = request(directory, file, file);
    if let Some(name) = name {
        sign(&mut openssl, directory);
        openssl.args(["-addext", &format!("subjectAltName=DNS:{name}")]);
    }
    run(&mut openssl)
}

/// Makes a certificate that the CA in `directory` signs and that names the tasks of a fleet in its subject alone, as certificates once did.
///
/// # Errors
/// If the command openssl is missing or fails.
pub fn certify_subject(directory: &Path, file: &str) -> Result<()> {
    let mut openssl = request(directory, file, PEER_NAME);
    sign(&mut openssl, directory);
    run(&mut openssl)
}

/// The command that makes a certificate of this subject.
fn request(directory: &Path, file: &str, subject: &str) -> Command {
    let path = |kind| directory.join(format!("{file}.{kind}"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj"]);
    openssl.arg(format!("/CN={subject}")).arg("-out").arg(path("crt")).arg("-keyout").arg(path("key"));
    openssl
}

/// Has the CA in `directory` sign it.
fn sign(openssl: &mut Command, directory: &Path) {
    openssl.arg("-CA").arg(directory.join("ca.crt")).arg("-CAkey").arg(directory.join("ca.key"));
}

/// The settings of a task whose certificate [`certify`] has made by this name of its files.
#[must_use]
pub fn peer_settings(directory: &Path, file: &str) -> Vec<(&'static str, String)> {
    let path = |file: String| directory.join(file).to_string_lossy().into_owned();
    vec![
        ("PIXELL_PEER_CERT_FILE", path(format!("{file}.crt"))),
        ("PIXELL_PEER_KEY_FILE", path(format!("{file}.key"))),
        ("PIXELL_PEER_CA_FILE", path("ca.crt".to_owned())),
        ("PIXELL_PEER_SAN", PEER_NAME.to_owned()),
    ]
}

/// Makes a CA and a certificate for all tasks of a fleet in `directory`, and returns their settings.
///
/// # Errors
/// If the command openssl is missing or fails.
pub fn of_peers(directory: &Path) -> Result<Vec<(&'static str, String)>> {
    certify(directory, "ca", None)?;
    certify(directory, "peer", Some(PEER_NAME))?;
    Ok(peer_settings(directory, "peer"))
}

fn run(openssl: &mut Command) -> Result<()> {
    let made = openssl.output().context("openssl is missing: install it (Debian: apt-get install openssl)")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}
