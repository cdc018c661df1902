//! A version is pinned once; where another file has to repeat it, both must agree.

use anyhow::{Context, Result};
use harness::workspace;
use regex::Regex;

use super::text;
use crate::tools;

/// The image's recipe, which repeats the versions of Rust and Envoy.
const RECIPE: &str = "Dockerfile.envoy";

/// Compares the files of this repository.
pub(super) fn check() -> Result<Vec<String>> {
    let recipe = workspace::root().join(RECIPE);
    let recipe = recipe.exists().then(|| text(RECIPE)).transpose()?;
    let mut faults = disagreements(&Pins {
        toolchain: &text("rust-toolchain.toml")?,
        manifest: &text("Cargo.toml")?,
        envoy: &workspace::envoy_version()?,
        recipe: recipe.as_deref(),
    })?;
    // The runner of the WebAssembly tests is built in the one version that the lock file has.
    faults.extend(tools::locked_version(&text("Cargo.lock")?, "wasm-bindgen").err().map(|error| format!("{error:#}")));
    Ok(faults)
}

/// The texts that pin versions.
struct Pins<'a> {
    /// `rust-toolchain.toml`
    toolchain: &'a str,
    /// The root `Cargo.toml`
    manifest: &'a str,
    /// The Envoy release that `Cargo.toml` pins.
    envoy: &'a str,
    /// `Dockerfile.envoy`, where there is one.
    recipe: Option<&'a str>,
}

fn disagreements(pins: &Pins<'_>) -> Result<Vec<String>> {
    let toolchain: toml::Table = pins.toolchain.parse().context("reading rust-toolchain.toml")?;
    let manifest: toml::Table = pins.manifest.parse().context("reading Cargo.toml")?;
    let rust = at(&toolchain, &["toolchain", "channel"]).context("rust-toolchain.toml names no channel")?;
    let oldest = at(&manifest, &["workspace", "package", "rust-version"]).context("Cargo.toml names no rust-version")?;
    let mut faults = Vec::new();
    if !(rust == oldest || rust.strip_prefix(oldest).is_some_and(|patch| patch.starts_with('.'))) {
        faults.push(format!("rust-toolchain.toml pins Rust {rust}, Cargo.toml says rust-version {oldest}"));
    }
    if let Some(recipe) = pins.recipe {
        for (argument, pinned) in [("RUST_IMAGE", rust), ("ENVOY_IMAGE", pins.envoy)] {
            match base_version(recipe, argument)? {
                Some(version) if version == pinned => {}
                Some(version) => faults.push(format!("{RECIPE}: {argument} is of version {version}, {pinned} is pinned")),
                None => faults.push(format!("{RECIPE} has no line `ARG {argument}=<name>:<version>`")),
            }
        }
    }
    Ok(faults)
}

/// The text at the end of `path` in a TOML file.
fn at<'a>(table: &'a toml::Table, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))?.as_str()
}

/// The version in the tag of the base image that the build argument `name` names: `1.2.3` of `a/b:v1.2.3-slim@sha256:...`.
fn base_version<'a>(recipe: &'a str, name: &str) -> Result<Option<&'a str>> {
    let argument = Regex::new(&format!(r"(?m)^ARG {name}=[^\s:]+(?::\d+/[^\s:]+)?:v?(\d[\d.]*)"))?;
    Ok(argument.captures(recipe).map(|found| found.extract::<1>().1[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(channel: &str, recipe: Option<&str>) -> Vec<String> {
        let toolchain = format!("[toolchain]\nchannel = \"{channel}\"\n");
        let manifest = "[workspace.package]\nrust-version = \"1.95\"\n";
        disagreements(&Pins { toolchain: &toolchain, manifest, envoy: "1.40.0", recipe }).unwrap()
    }

    #[test]
    fn agreement_is_no_fault() {
        assert!(faults("1.95.0", None).is_empty());
        let recipe = "ARG RUST_IMAGE=rust:1.95.0-slim-bookworm\nARG ENVOY_IMAGE=localhost:5000/envoy:v1.40.0@sha256:00\n";
        assert_eq!(faults("1.95.0", Some(recipe)), [""; 0]);
    }

    #[test]
    fn each_disagreement_is_a_fault() {
        assert!(faults("1.950.0", None)[0].contains("rust-version 1.95"));
        let old = faults("1.95.0", Some("ARG RUST_IMAGE=rust:1.94.0\nARG ENVOY_IMAGE=envoyproxy/envoy:v1.39.0\n"));
        assert!(old[0].contains("1.94.0") && old[1].contains("1.39.0"), "{old:?}");
        assert_eq!(faults("1.95.0", Some("FROM scratch\nARG ENVOY_IMAGE=envoy\n")).len(), 2);
    }
}
