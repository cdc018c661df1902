//! The base images: those that the recipes name, or stand-ins if no registry can be reached.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use regex::Regex;

use crate::command::{program, read, say};
use crate::tools;

/// Where base images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// From the engine or a registry; stand-ins if no registry can be reached
    Auto,
    /// Only from the engine or a registry
    Registry,
    /// Only stand-ins
    StandIn,
}

/// The names of the images to build on.
#[derive(Debug)]
pub(crate) struct Bases {
    /// Has the pinned Rust: the first stage of `Dockerfile.envoy`.
    pub(crate) rust: String,
    /// Has Envoy: the base of the shipped image.
    pub(crate) envoy: String,
    /// Has Python: the base of the stand-in PAR's image.
    pub(crate) python: String,
}

/// A base image.
pub(crate) struct Base {
    /// The build argument that names it. An environment variable of the same name overrides the recipe's default.
    pub(crate) argument: &'static str,
    /// The recipe with the default.
    pub(crate) recipe: &'static str,
    /// The name of its stand-in in `make.sh`.
    stand_in: &'static str,
}

const RUST: Base = Base { argument: "RUST_IMAGE", recipe: "Dockerfile.envoy", stand_in: "rust" };
const ENVOY: Base = Base { argument: "ENVOY_IMAGE", recipe: "Dockerfile.envoy", stand_in: "envoy" };
const PYTHON: Base = Base { argument: "PYTHON_IMAGE", recipe: "integration/Dockerfile", stand_in: "python" };

/// All of them.
pub(crate) const ALL: [Base; 3] = [RUST, ENVOY, PYTHON];

/// The beginning of every stand-in's name.
const STAND_IN: &str = "pixell-stand-in/";

impl Bases {
    /// Makes sure that the engine has every base image.
    ///
    /// # Errors
    /// If the engine does not respond, an image cannot be pulled although a registry responds, or a stand-in cannot be made.
    pub(crate) fn resolve(choice: Choice) -> Result<Self> {
        read(program("docker").args(["version", "--format", "{{.Server.Version}}"]))
            .context("no container engine responds: install Docker and start it (Debian: apt-get install docker.io)")?;
        let resolve = |base: &Base| base.resolve(choice).with_context(|| format!("the base image {}", base.argument));
        Ok(Self { rust: resolve(&RUST)?, envoy: resolve(&ENVOY)?, python: resolve(&PYTHON)? })
    }

    /// Prints a warning if the image was built on a stand-in.
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
        let Err(error) = read(program("docker").args(["pull", &name])) else { return Ok(name) };
        if choice == Choice::Auto && is_out_of_reach(&error.to_string()) {
            say(&format!("no registry can be reached: making a stand-in for {name}"));
            return self.make();
        }
        Err(error.context(format!(
            "{name} cannot be pulled; --bases stand-in makes base images of what is on this machine (docs/image.md, Without a registry)"
        )))
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

    /// Makes the stand-in, if the engine does not have it yet.
    fn make(&self) -> Result<String> {
        tools::debian("mmdebstrap", "mmdebstrap")?;
        let mut make = program("integration/stand-ins/make.sh");
        make.arg(self.stand_in);
        if self.argument == ENVOY.argument {
            make.arg(workspace::envoy::release(&workspace::envoy_version()?)?);
        }
        // It writes only the name to standard output.
        let name = read(make.stderr(Stdio::inherit()))?.trim().to_owned();
        if !name.starts_with(STAND_IN) {
            bail!("make.sh printed {name:?}, which is not the name of a stand-in");
        }
        Ok(name)
    }
}

/// The default that `recipe` gives its build argument.
pub(crate) fn default(recipe: &str, argument: &str) -> Result<Option<String>> {
    let pattern = Regex::new(&format!(r"(?m)^ARG {argument}=(\S+)"))?;
    Ok(pattern.captures(recipe).map(|found| found.extract::<1>().1[0].to_owned()))
}

/// Whether a pull failed before any registry responded. An error from a registry must be shown instead.
fn is_out_of_reach(error: &str) -> bool {
    let signs = ["dial tcp", "no such host", "i/o timeout", "Client.Timeout", "TLS handshake timeout", "proxyconnect"];
    signs.iter().any(|sign| error.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: &str, expected: bool) {
        assert_eq!(is_out_of_reach(error), expected, "{error}");
    }

    #[test]
    fn only_a_registry_that_does_not_respond_is_out_of_reach() {
        check("Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host", true);
        check("Get \"https://registry-1.docker.io/v2/\": net/http: request canceled (Client.Timeout exceeded)", true);
        check("manifest for envoyproxy/envoy:v9.9.9 not found: manifest unknown", false);
        check("toomanyrequests: You have reached your pull rate limit", false);
        check("pull access denied for nobody/nothing, repository does not exist", false);
    }

    #[test]
    fn every_recipe_names_its_bases() {
        for base in ALL {
            let recipe = std::fs::read_to_string(workspace::root().join(base.recipe)).unwrap();
            assert!(default(&recipe, base.argument).unwrap().is_some(), "{}", base.argument);
        }
        assert_eq!(default("FROM scratch\n", "RUST_IMAGE").unwrap(), None);
    }
}
