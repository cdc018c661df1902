//! Digests of the base images: `cargo xtask image --pin` writes them into the recipes, and `--release` requires them.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::bases::{ALL, Base, default};
use crate::command::{program, read, say};

/// This file repeats the names in the recipes, because Compose cannot read them there.
const COMPOSE: &str = "integration/parts.yaml";

/// Pulls each base image by its tag, and writes the digest that the registry has for it into the recipes.
///
/// # Errors
/// If the engine or a registry does not respond, or a recipe does not name its base.
pub(crate) fn pin() -> Result<()> {
    for base in ALL {
        let old = named(&base)?;
        let tag = without_digest(&old);
        say(&format!("pulling {tag}"));
        read(program("docker").args(["pull", tag]))?;
        let digests = read(program("docker").args(["image", "inspect", "--format", "{{join .RepoDigests \"\\n\"}}", tag]))?;
        let new = pinned(tag, &digests).with_context(|| format!("the engine knows no digest of {tag}: {digests:?}"))?;
        for file in [base.recipe, COMPOSE] {
            let place = workspace::root().join(file);
            fs::write(&place, fs::read_to_string(&place)?.replace(&old, &new))?;
        }
        say(&format!("{} is {new}", base.argument));
    }
    Ok(())
}

/// Checks that every base of the image that is deployed is pinned.
///
/// # Errors
/// If one is not; the error names it and the command that pins it.
pub(crate) fn require() -> Result<()> {
    let mut unpinned = Vec::new();
    for base in ALL.iter().filter(|base| base.recipe == "Dockerfile.envoy") {
        let name = named(base)?;
        if !name.contains("@sha256:") {
            unpinned.push(name);
        }
    }
    if !unpinned.is_empty() {
        bail!(
            "not pinned by digest: {}. Run `cargo xtask image --pin` where the registry can be reached, and commit the recipes",
            unpinned.join(", ")
        );
    }
    Ok(())
}

/// The base images that Compose's file and the recipe name differently.
///
/// # Errors
/// If a file cannot be read, or a recipe does not name its base.
pub(crate) fn disagreements() -> Result<Vec<String>> {
    let compose = fs::read_to_string(workspace::root().join(COMPOSE)).with_context(|| format!("reading {COMPOSE}"))?;
    let mut errors = Vec::new();
    for base in ALL {
        let name = named(&base)?;
        let opening = format!("${{{}:-", base.argument);
        let in_compose = compose.split(&opening).skip(1).filter_map(|rest| rest.split('}').next());
        errors.extend(
            in_compose
                .filter(|other| *other != name)
                .map(|other| format!("{COMPOSE} has {} as {other}, {} has it as {name}", base.argument, base.recipe)),
        );
    }
    Ok(errors)
}

/// The base that its recipe names.
fn named(base: &Base) -> Result<String> {
    let recipe = fs::read_to_string(workspace::root().join(base.recipe))?;
    default(&recipe, base.argument)?.with_context(|| format!("{} has no `ARG {}=...`", base.recipe, base.argument))
}

fn without_digest(name: &str) -> &str {
    name.split_once('@').map_or(name, |(tag, _)| tag)
}

/// `tag` with its digest. `digests` are those that the engine knows, each a line `repository@sha256:...`.
fn pinned(tag: &str, digests: &str) -> Option<String> {
    let (_, version) = tag.rsplit_once(':')?;
    let repository = tag.strip_suffix(version)?.strip_suffix(':')?;
    let of_this = |line: &str| {
        let (name, digest) = line.trim().split_once('@')?;
        (name == repository || name.strip_prefix("docker.io/") == Some(repository)).then(|| digest.to_owned())
    };
    let digest = digests.lines().find_map(of_this)?;
    digest.starts_with("sha256:").then(|| format!("{tag}@{digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_the_tags_repository_is_taken() {
        let digests = "other/envoy@sha256:11\nenvoyproxy/envoy@sha256:22\n";
        assert_eq!(pinned("envoyproxy/envoy:v1.40.0", digests).unwrap(), "envoyproxy/envoy:v1.40.0@sha256:22");
        assert_eq!(pinned("rust:1.95.0", "docker.io/rust@sha256:33").unwrap(), "rust:1.95.0@sha256:33");
        assert_eq!(
            pinned("localhost:5000/envoy:v1", "localhost:5000/envoy@sha256:44").unwrap(),
            "localhost:5000/envoy:v1@sha256:44"
        );
        assert_eq!(pinned("rust:1.95.0", ""), None);
        assert_eq!(pinned("rust:1.95.0", "rust@md5:1"), None);
        assert_eq!(without_digest("rust:1.95.0@sha256:33"), "rust:1.95.0");
        assert_eq!(without_digest("rust:1.95.0"), "rust:1.95.0");
    }

    #[test]
    fn the_recipes_and_compose_name_the_same_bases() {
        assert_eq!(disagreements().unwrap(), [""; 0]);
    }

    /// As long as a base is not pinned, a release is an error; see "Releases" in docs/image.md.
    #[test]
    fn a_release_needs_digests() {
        let pinned = ALL[..2].iter().all(|base| named(base).unwrap().contains("@sha256:"));
        match require() {
            Ok(()) => assert!(pinned),
            Err(error) => assert!(!pinned && error.to_string().contains("cargo xtask image --pin"), "{error}"),
        }
    }
}
