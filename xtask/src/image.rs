//! `cargo xtask image`: builds the image that is deployed.

use anyhow::{Context, Result};
use clap::Args;

use crate::bases::{Bases, Choice};
use crate::command::{self, program, read, say};
use crate::digests;

/// The image's default name; `integration/parts.yaml` uses the same.
pub(crate) const NAME: &str = "pixell-envoy";

/// Build the image pixell-envoy.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name and tag of the image
    #[arg(long, default_value = NAME)]
    tag: String,
    /// Where the base images come from; auto makes stand-ins only if no registry can be reached
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    bases: Choice,
    /// Build for deployment: only on base images that the recipe pins by digest
    #[arg(long, conflicts_with_all = ["bases", "pin"])]
    release: bool,
    /// Pull the newest base images of the pinned versions and write their digests into the recipes, without building
    #[arg(long)]
    pin: bool,
}

/// Builds the image, or pins its base images.
///
/// # Errors
/// If there is no container engine, a base image is not available or not pinned, or the build fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.pin {
        return digests::pin();
    }
    if arguments.release {
        digests::require()?;
        return build(&arguments.tag, &Bases::resolve(Choice::Registry)?);
    }
    let bases = Bases::resolve(arguments.bases)?;
    build(&arguments.tag, &bases)
}

/// Builds the image `tag` on `bases`.
///
/// # Errors
/// If the build fails.
pub(crate) fn build(tag: &str, bases: &Bases) -> Result<()> {
    say(&format!("building the image {tag} on {}", bases.envoy));
    let mut docker = program("docker");
    docker.args(["build", "--file", "Dockerfile.envoy", "--tag", tag]);
    docker.arg("--build-arg").arg(format!("RUST_IMAGE={}", bases.rust));
    docker.arg("--build-arg").arg(format!("ENVOY_IMAGE={}", bases.envoy));
    docker.args(["--build-arg", concat!("VERSION=", env!("CARGO_PKG_VERSION"))]);
    docker.arg("--build-arg").arg(format!("REVISION={}", revision()));
    command::run(docker.args(proxies()).arg("."))?;
    let (base, whole) = (size(&bases.envoy)?, size(tag)?);
    say(&format!("{tag}: {:.1} MB on top of {:.1} MB of its base", megabytes(whole - base), megabytes(base)));
    bases.warn();
    Ok(())
}

/// Arguments that pass this machine's proxies on to a build. They do not have the values, which may hold a password: docker and Compose
/// take those from their environment.
pub(crate) fn proxies() -> impl Iterator<Item = &'static str> {
    const NAMES: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];
    // Compose v1 makes up a value for a variable that is not set, so those are left out.
    NAMES.into_iter().filter(|name| std::env::var_os(name).is_some()).flat_map(|name| ["--build-arg", name])
}

/// The commit that is built, with `-dirty` if files differ from it.
fn revision() -> String {
    // An unpacked archive has no commit, but can be built, too.
    let described = read(program("git").args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]));
    described.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn size(image: &str) -> Result<u64> {
    let said = read(program("docker").args(["image", "inspect", "--format", "{{.Size}}", image]))?;
    said.trim().parse().with_context(|| format!("the size of {image} is {said:?}"))
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
