//! Programs that a task needs besides cargo. If one is missing, cargo or apt installs it; if they cannot, the error names it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::command::{self, program, say};

/// The oldest major version of Node.js that the tests are known to run on.
const NODE: u32 = 20;

/// Makes sure that Rust can compile for `target`.
///
/// # Errors
/// If the target is missing and rustup cannot add it.
pub(crate) fn rust_target(target: &str) -> Result<()> {
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

/// Checks that Node.js is installed and new enough.
///
/// # Errors
/// If it is not; the error says what to install.
pub(crate) fn node() -> Result<()> {
    let advice = format!("install Node.js {NODE} or later (https://nodejs.org; Debian 13: apt-get install nodejs)");
    let said = command::read(program("node").arg("--version")).with_context(|| format!("node is missing: {advice}"))?;
    match node_major(&said) {
        Some(major) if major >= NODE => Ok(()),
        _ => bail!("node is {}: {advice}", said.trim()),
    }
}

/// The major version in `v20.1.2`.
fn node_major(said: &str) -> Option<u32> {
    said.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// The package that builds the runner of wasm-bindgen's tests.
pub(crate) const WASM_RUNNER: &str = "crates/wasm-runner";

/// The runner of wasm-bindgen's tests, built from the locked dependencies of `crates/wasm-runner`.
///
/// # Errors
/// If it cannot be built.
pub(crate) fn wasm_bindgen_test_runner() -> Result<PathBuf> {
    let home = workspace::target().join("tools");
    say("building wasm-bindgen's test runner (once, about 2 minutes on two cores)");
    let mut build = command::cargo(["build", "--quiet", "--locked", "--release", "--target-dir"]);
    build.arg(&home).arg("--manifest-path").arg(workspace::root().join(WASM_RUNNER).join("Cargo.toml"));
    command::run(&mut build).context("wasm-bindgen's test runner cannot be built: check the network")?;
    Ok(home.join("release/wasm-runner"))
}

/// The version of cargo-deny, whose own lock file fixes the rest.
const CARGO_DENY: &str = "0.20.2";

/// cargo-deny, built from crates.io.
///
/// # Errors
/// If it cannot be built.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let home = workspace::target().join(format!("tools/cargo-deny-{CARGO_DENY}"));
    let built = home.join("bin/cargo-deny");
    if built.is_file() {
        return Ok(built);
    }
    say("building cargo-deny (once, about a minute on two cores)");
    let mut install = command::cargo(["install", "--quiet", "--locked", "--debug", "--version", CARGO_DENY, "--root"]);
    install.env("CARGO_PROFILE_DEV_DEBUG", "none");
    command::run(install.arg(&home).arg("cargo-deny")).context("cargo-deny cannot be built: check the network")?;
    Ok(built)
}

/// The one version of the package `name` in the text of a Cargo.lock.
///
/// # Errors
/// If there is none, or more than one.
pub(crate) fn locked_version(lock: &str, name: &str) -> Result<String> {
    let lock: toml::Table = lock.parse().context("reading Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock lists no packages")?;
    let named = packages.iter().filter(|package| package.get("name").and_then(toml::Value::as_str) == Some(name));
    let versions: Vec<_> = named.filter_map(|package| package.get("version")?.as_str()).collect();
    match versions.as_slice() {
        [version] => Ok((*version).to_owned()),
        _ => bail!("Cargo.lock must hold exactly one version of {name}, but it holds {versions:?}"),
    }
}

/// Makes sure that the program `name` is on the search path; if it is missing, apt installs the Debian package `package`. Prints the
/// package's version: it cannot be locked, because Debian's archive keeps only the newest, so the log of a failed run must show it.
///
/// # Errors
/// If it is missing and cannot be installed.
pub(crate) fn debian(name: &str, package: &str) -> Result<()> {
    install(name, package)?;
    if let Ok(version) = command::read(program("dpkg-query").args(["--show", "--showformat=${Version}", package])) {
        say(&format!("{name} is from the Debian package {package} {version}"));
    }
    Ok(())
}

fn install(name: &str, package: &str) -> Result<()> {
    if installed(name) {
        return Ok(());
    }
    if !installed("apt-get") {
        bail!("{name} is missing, and there is no apt-get to install it: install it by hand (its Debian package is {package})");
    }
    say(&format!("{name} is missing: installing the Debian package {package}"));
    let apt_get =
        // At runlevel 1 a package does not start its service (invoke-rc.d(8)), which is not wanted on this machine.
        |arguments: &[&str]| {
            command::run(program("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"))
        };
    apt_get(&["update", "-qq"])
        .and_then(|()| apt_get(&["install", "-y", "-qq", "--no-install-recommends", package]))
        .with_context(|| format!("{name} cannot be installed: as root, run `apt-get install {package}`"))?;
    if installed(name) { Ok(()) } else { Err(anyhow!("the Debian package {package} did not install {name}")) }
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
    fn a_program_is_found_only_on_the_search_path() {
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
