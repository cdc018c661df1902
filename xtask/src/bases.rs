//! The base images: those that the recipes name, or stand-ins where no registry can be reached.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use harness::workspace;
use regex::Regex;

use crate::command::{program, read, say};
use crate::tools;

/// Where base images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// From the engine or a registry; stand-ins where no registry can be reached
    Auto,
    /// From the engine or a registry, or not at all
    Registry,
    /// Stand-ins
    StandIn,
}

/// The names of the images to build on.
#[derive(Debug)]
pub(crate) struct Bases {
    /// Has the pinned Rust; the first stage of `Dockerfile.envoy`.
    pub(crate) rust: String,
    /// Has Envoy; what the image is made of.
    pub(crate) envoy: String,
    /// Has Python; what the stand-in PAR is made of.
    pub(crate) python: String,
}

/// A base image: the build argument that names it, which is also an environment variable, and the recipe with its default.
struct Base {
    argument: &'static str,
    recipe: &'static str,
    /// What `make.sh` calls its stand-in.
    stand_in: &'static str,
}

const RUST: Base = Base { argument: "RUST_IMAGE", recipe: "Dockerfile.envoy", stand_in: "rust" };
const ENVOY: Base = Base { argument: "ENVOY_IMAGE", recipe: "Dockerfile.envoy", stand_in: "envoy" };
const PYTHON: Base = Base { argument: "PYTHON_IMAGE", recipe: "integration/Dockerfile", stand_in: "python" };

/// What every stand-in's name begins with.
const STAND_IN: &str = "pixell-stand-in/";

impl Bases {
    /// Sees to it that the engine has every base image.
    ///
    /// # Errors
    /// Where the engine does not answer, an image cannot be pulled though a registry answers, or a stand-in cannot be made.
    pub(crate) fn resolve(choice: Choice) -> Result<Self> {
        read(program("docker").args(["version", "--format", "{{.Server.Version}}"]))
            .context("no container engine answers: install Docker and start it (Debian: apt-get install docker.io)")?;
        let resolve = |base: &Base| base.resolve(choice).with_context(|| format!("the base image {}", base.argument));
        Ok(Self { rust: resolve(&RUST)?, envoy: resolve(&ENVOY)?, python: resolve(&PYTHON)? })
    }

    /// Says so where the image was built on a stand-in.
    pub(crate) fn warn(&self) {
        if self.envoy.starts_with(STAND_IN) {
            say("built on a stand-in for Envoy's image: good for tests here, not for deployment (docs/image.md says why)");
        }
    }
}

impl Base {
    fn resolve(&self, choice: Choice) -> Result<String> {
        if choice == Choice::StandIn {
            return self.make();
        }
        let name = self.name()?;
        if read(program("docker").args(["image", "inspect", &name])).is_ok() {
            return Ok(name);
        }
        say(&format!("pulling {name}"));
        let Err(refusal) = read(program("docker").args(["pull", &name])) else { return Ok(name) };
        if choice == Choice::Auto && is_out_of_reach(&refusal.to_string()) {
            say(&format!("no registry can be reached: making a stand-in for {name}"));
            return self.make();
        }
        Err(refusal)
    }

    /// The image's name: `$RUST_IMAGE` and so on, else the default of its recipe.
    fn name(&self) -> Result<String> {
        if let Ok(name) = std::env::var(self.argument)
            && !name.is_empty()
        {
            return Ok(name);
        }
        let recipe = std::fs::read_to_string(workspace::root().join(self.recipe))?;
        default(&recipe, self.argument)?.with_context(|| format!("{} has no `ARG {}=...`", self.recipe, self.argument))
    }

    /// Makes the stand-in, unless the engine has it.
    fn make(&self) -> Result<String> {
        tools::debian("mmdebstrap", "mmdebstrap")?;
        let mut make = program("integration/stand-ins/make.sh");
        make.arg(self.stand_in);
        if self.argument == ENVOY.argument {
            make.arg(harness::envoy::binary::release(&workspace::envoy_version()?)?);
        }
        // The name is all that it writes to standard output.
        let name = read(make.stderr(Stdio::inherit()))?.trim().to_owned();
        if !name.starts_with(STAND_IN) {
            bail!("make.sh printed {name:?}, which is no stand-in's name");
        }
        Ok(name)
    }
}

/// The default that `recipe` gives its build argument.
fn default(recipe: &str, argument: &str) -> Result<Option<String>> {
    let pattern = Regex::new(&format!(r"(?m)^ARG {argument}=(\S+)"))?;
    Ok(pattern.captures(recipe).map(|found| found.extract::<1>().1[0].to_owned()))
}

/// Whether a pull failed before any registry answered. A registry that answers and refuses is a fault to be seen.
fn is_out_of_reach(refusal: &str) -> bool {
    let signs = ["dial tcp", "no such host", "i/o timeout", "Client.Timeout", "TLS handshake timeout", "proxyconnect"];
    signs.iter().any(|sign| refusal.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(refusal: &str, expected: bool) {
        assert_eq!(is_out_of_reach(refusal), expected, "{refusal}");
    }

    #[test]
    fn a_registry_that_refuses_is_told_from_none() {
        check("Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host", true);
        check("Get \"https://registry-1.docker.io/v2/\": net/http: request canceled (Client.Timeout exceeded)", true);
        check("manifest for envoyproxy/envoy:v9.9.9 not found: manifest unknown", false);
        check("toomanyrequests: You have reached your pull rate limit", false);
        check("pull access denied for nobody/nothing, repository does not exist", false);
    }

    #[test]
    fn every_recipe_names_its_bases() {
        for base in [RUST, ENVOY, PYTHON] {
            let recipe = std::fs::read_to_string(workspace::root().join(base.recipe)).unwrap();
            assert!(default(&recipe, base.argument).unwrap().is_some(), "{}", base.argument);
        }
        assert_eq!(default("FROM scratch\n", "RUST_IMAGE").unwrap(), None);
    }
}
