//! Paths in this repository, the Envoy version that its manifest pins, Envoy's binary, and what a built file needs.

pub mod elf;
pub mod envoy;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Prints the current step of a command to standard error.
pub fn say(text: &str) {
    eprintln!("==> {text}");
}

/// The repository's top directory.
#[must_use]
pub fn root() -> PathBuf {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member.ancestors().nth(2).unwrap_or(member).to_path_buf()
}

/// The directory of builds, downloads and unpacked tools.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Waits until no other process holds the lock `name`, and holds it until the returned file is dropped.
///
/// # Errors
/// If the lock's file in [`target`] cannot be made.
pub fn lock(name: &str) -> Result<File> {
    let path = target().join(format!("locks/{name}"));
    let open = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let file = File::create(&path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    open().with_context(|| format!("locking {}", path.display()))
}

/// The Envoy release that ships: `envoy` of `[workspace.metadata.pixell]` in the root manifest.
///
/// # Errors
/// If the manifest cannot be read or does not name it.
pub fn envoy_version() -> Result<String> {
    let path = root().join("Cargo.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let manifest: toml::Table = text.parse().with_context(|| format!("reading {}", path.display()))?;
    let mut value = manifest.get("workspace");
    for key in ["metadata", "pixell", "envoy"] {
        value = value.and_then(|table| table.get(key));
    }
    let version = value.and_then(toml::Value::as_str);
    version.map(str::to_owned).context("Cargo.toml does not name `envoy` in [workspace.metadata.pixell]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_envoy_is_a_release_number() {
        let version = envoy_version().unwrap();
        assert_eq!(version.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3, "{version}");
    }
}
