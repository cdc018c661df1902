//! Programs that a task needs besides cargo: looked for, fetched where cargo or pip can, and named where they are missing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use harness::workspace;

use crate::command::{self, program, say};

/// The oldest major version of Node.js that the tests are known to run on.
const NODE: u32 = 20;

/// Makes sure that Rust can compile for `target`.
///
/// # Errors
/// Where the target is missing and rustup is, too, or cannot fetch it.
pub(crate) fn wasm_target(target: &str) -> Result<()> {
    let libraries = command::read(program("rustc").args(["--print", "target-libdir", "--target", target]))
        .context("asking rustc for its targets")?;
    if Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    say(&format!("adding the Rust target {target}"));
    command::run(program("rustup").args(["target", "add", target])).with_context(|| {
        format!("Rust cannot compile for {target}: install rustup (https://rustup.rs), check the network and run `rustup target add {target}`")
    })
}

/// Makes sure that Node.js is there and young enough.
///
/// # Errors
/// Where it is not.
pub(crate) fn node() -> Result<()> {
    let advice = format!("install Node.js {NODE} or later (https://nodejs.org; Debian 13: apt-get install nodejs)");
    let said = command::read(program("node").arg("--version")).with_context(|| format!("node is missing: {advice}"))?;
    match node_major(&said) {
        Some(major) if major >= NODE => Ok(()),
        _ => bail!("node is {}: {advice}", said.trim()),
    }
}

/// Reads `v20.1.2`.
fn node_major(said: &str) -> Option<u32> {
    said.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// The runner of wasm-bindgen's tests, in exactly the version of the library: built where it is not there yet.
///
/// # Errors
/// Where it cannot be built.
pub(crate) fn wasm_bindgen_test_runner() -> Result<PathBuf> {
    let lock = std::fs::read_to_string(workspace::root().join("Cargo.lock"))?;
    let version = locked_version(&lock, "wasm-bindgen")?;
    let home = workspace::target().join("tools");
    let runner = home.join("bin/wasm-bindgen-test-runner");
    // It prints its version after its name.
    let present = command::read(std::process::Command::new(&runner).arg("--version")).unwrap_or_default();
    if present.split_whitespace().last() == Some(version.as_str()) {
        return Ok(runner);
    }
    say(&format!("building wasm-bindgen-test-runner {version} (once, about 4 minutes on two cores)"));
    // Not --locked: its lock file may name a release that has been withdrawn.
    let install = ["install", "wasm-bindgen-cli", "--version", &version, "--bin", "wasm-bindgen-test-runner", "--force"];
    command::run(command::cargo(install).arg("--root").arg(&home))
        .context("wasm-bindgen-test-runner cannot be built: check the network")?;
    Ok(runner)
}

/// The one version of the package `name` in the text of a Cargo.lock.
///
/// # Errors
/// Where there is none, or more than one.
pub(crate) fn locked_version(lock: &str, name: &str) -> Result<String> {
    let lock: toml::Table = lock.parse().context("reading Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock lists no packages")?;
    let named = packages.iter().filter(|package| package.get("name").and_then(toml::Value::as_str) == Some(name));
    let versions: Vec<_> = named.filter_map(|package| package.get("version")?.as_str()).collect();
    match versions.as_slice() {
        [version] => Ok((*version).to_owned()),
        _ => bail!("Cargo.lock must hold exactly one version of {name}, it holds {versions:?}"),
    }
}

/// Makes sure that `name` is on the search path, from the Debian package `package` where apt can install it.
///
/// # Errors
/// Where it is missing and cannot be installed.
pub(crate) fn debian(name: &str, package: &str) -> Result<()> {
    if installed(name) {
        return Ok(());
    }
    if !installed("apt-get") {
        bail!("{name} is missing, and apt-get, which could install it here: install it by hand (on Debian it is in {package})");
    }
    say(&format!("{name} is missing: installing the Debian package {package}"));
    let apt_get =
        |arguments: &[&str]| command::run(program("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"));
    apt_get(&["update", "-qq"])
        .and_then(|()| apt_get(&["install", "-y", "-qq", "--no-install-recommends", package]))
        .with_context(|| format!("{name} cannot be installed: as root, run `apt-get install {package}`"))?;
    if installed(name) { Ok(()) } else { Err(anyhow!("the Debian package {package} did not bring {name}")) }
}

/// Whether a program called `name` is on the search path.
fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_on_the_path_only() {
        assert!(installed("sh"));
        assert!(!installed("no-such-program"));
    }

    #[test]
    fn reads_nodes_version() {
        assert_eq!(node_major("v20.20.2\n"), Some(20));
        assert_eq!(node_major("20"), None);
    }

    #[test]
    fn finds_the_one_locked_version() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.2.3\"\n[[package]]\nname = \"b\"\nversion = \"1.0.0\"\n";
        assert_eq!(locked_version(lock, "a").unwrap(), "1.2.3");
        assert!(locked_version(lock, "c").is_err());
        let twice = format!("{lock}[[package]]\nname = \"a\"\nversion = \"2.0.0\"\n");
        assert!(locked_version(&twice, "a").unwrap_err().to_string().contains("2.0.0"));
    }
}
