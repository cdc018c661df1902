//! A version is pinned once. If another file must repeat it, both must agree.

use anyhow::{Context, Result};
use regex::Regex;

use super::text;
use crate::{digests, tools};

/// The image's recipe, which repeats the versions of Rust and Envoy.
const RECIPE: &str = "Dockerfile.envoy";

/// Compares the files of this repository.
pub(super) fn check() -> Result<Vec<String>> {
    let mut errors = disagreements(&Pins {
        toolchain: &text("rust-toolchain.toml")?,
        manifest: &text("Cargo.toml")?,
        envoy: &workspace::envoy_version()?,
        recipe: &text(RECIPE)?,
    })?;
    // wasm-bindgen does not run with a runner of another version.
    let library = tools::locked_version(&text("Cargo.lock")?, "wasm-bindgen")?;
    let runner = format!("{}/Cargo.lock", tools::WASM_RUNNER);
    let found = tools::locked_version(&text(&runner)?, "wasm-bindgen-cli")?;
    if found != library {
        errors.push(format!("{runner} has wasm-bindgen-cli {found}, Cargo.lock has wasm-bindgen {library}"));
    }
    errors.extend(digests::disagreements()?);
    Ok(errors)
}

/// The texts that pin versions.
struct Pins<'a> {
    /// `rust-toolchain.toml`
    toolchain: &'a str,
    /// The root `Cargo.toml`
    manifest: &'a str,
    /// The Envoy release that `Cargo.toml` pins.
    envoy: &'a str,
    /// `Dockerfile.envoy`
    recipe: &'a str,
}

fn disagreements(pins: &Pins<'_>) -> Result<Vec<String>> {
    let toolchain: toml::Table = pins.toolchain.parse().context("reading rust-toolchain.toml")?;
    let manifest: toml::Table = pins.manifest.parse().context("reading Cargo.toml")?;
    let rust = at(&toolchain, &["toolchain", "channel"]).context("rust-toolchain.toml names no channel")?;
    let oldest = at(&manifest, &["workspace", "package", "rust-version"]).context("Cargo.toml names no rust-version")?;
    let mut errors = Vec::new();
    if !(rust == oldest || rust.strip_prefix(oldest).is_some_and(|patch| patch.starts_with('.'))) {
        errors.push(format!("rust-toolchain.toml pins Rust {rust}, Cargo.toml says rust-version {oldest}"));
    }
    for (argument, pinned) in [("RUST_IMAGE", rust), ("ENVOY_IMAGE", pins.envoy)] {
        match base_version(pins.recipe, argument)? {
            Some(version) if version == pinned => {}
            Some(version) => errors.push(format!("{RECIPE}: {argument} has version {version}, but {pinned} is pinned")),
            None => errors.push(format!("{RECIPE} has no line `ARG {argument}=<name>:<version>`")),
        }
    }
    Ok(errors)
}

/// The string at `path` in a TOML file.
fn at<'a>(table: &'a toml::Table, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))?.as_str()
}

/// The version in the tag of the image that is the default of the build argument `name`: `1.2.3` of `a/b:v1.2.3-slim@sha256:...`.
fn base_version<'a>(recipe: &'a str, name: &str) -> Result<Option<&'a str>> {
    let argument = Regex::new(&format!(r"(?m)^ARG {name}=[^\s:]+(?::\d+/[^\s:]+)?:v?(\d[\d.]*)"))?;
    Ok(argument.captures(recipe).map(|found| found.extract::<1>().1[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(channel: &str, recipe: &str) -> Vec<String> {
        let toolchain = format!("[toolchain]\nchannel = \"{channel}\"\n");
        let manifest = "[workspace.package]\nrust-version = \"1.95\"\n";
        disagreements(&Pins { toolchain: &toolchain, manifest, envoy: "1.40.0", recipe }).unwrap()
    }

    #[test]
    fn versions_that_agree_are_no_error() {
        let recipe = "ARG RUST_IMAGE=rust:1.95.0-slim-bookworm\nARG ENVOY_IMAGE=localhost:5000/envoy:v1.40.0@sha256:00\n";
        assert_eq!(errors("1.95.0", recipe), [""; 0]);
    }

    #[test]
    fn each_disagreement_is_an_error() {
        assert!(errors("1.950.0", "")[0].contains("rust-version 1.95"));
        let old = errors("1.95.0", "ARG RUST_IMAGE=rust:1.94.0\nARG ENVOY_IMAGE=envoyproxy/envoy:v1.39.0\n");
        assert!(old[0].contains("1.94.0") && old[1].contains("1.39.0"), "{old:?}");
        assert_eq!(errors("1.95.0", "FROM scratch\nARG ENVOY_IMAGE=envoy\n").len(), 2);
    }
}
