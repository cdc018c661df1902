//! The image's recipe copies the manifest of every member of the workspace, without which cargo does not build there.

use anyhow::{Context, Result};

use super::text;

const RECIPE: &str = "Dockerfile.envoy";
const IGNORED: &str = ".dockerignore";

/// Compares the recipe with the workspace.
pub(super) fn check() -> Result<Vec<String>> {
    missing(&text("Cargo.toml")?, &text(RECIPE)?)
}

fn missing(manifest: &str, recipe: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse().context("reading Cargo.toml")?;
    let members = manifest.get("workspace").and_then(|workspace| workspace.get("members")).and_then(toml::Value::as_array);
    let members = members.context("Cargo.toml names no members")?.iter().filter_map(toml::Value::as_str);
    Ok(members
        .filter(|member| !recipe.contains(&format!("COPY {member}/Cargo.toml {member}/\n")))
        .map(|member| format!("{RECIPE} does not copy {member}/Cargo.toml; {IGNORED} must let it through, too"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_not_copied_is_named() {
        let manifest = "[workspace]\nmembers = [\"a\", \"b/c\"]\n";
        let faults = missing(manifest, "COPY a/Cargo.toml a/\nCOPY b b\n").unwrap();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("b/c/Cargo.toml"), "{faults:?}");
    }
}
