//! `cargo xtask arm64`: builds the image's files for arm64 as the image's recipe does, and checks what they need. Nothing runs them.

use anyhow::{Context, Result, bail};
use workspace::elf::Needs;

use crate::command::{self, program, say};
use crate::tools;

/// Rust's name of arm64.
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The linker, with a C library.
const LINKER: (&str, &str) = ("aarch64-linux-gnu-gcc", "g++-aarch64-linux-gnu");

/// Builds and checks the files.
///
/// # Errors
/// If Rust's target or the linker is missing, a build fails, or a file needs what Envoy's images for arm64 do not have.
pub(crate) fn run() -> Result<()> {
    tools::rust_target(TARGET)?;
    let (linker, package) = LINKER;
    tools::debian(linker, package)?;
    let directory = workspace::target().join("arm64");
    let mut build = program("envoy/build-image.sh");
    command::run(build.arg(&directory).arg(TARGET).env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", linker))?;
    // The programs are linked statically, because the base image may have no C library.
    for (file, is_static) in
        [("lib/pixell-envoy/native.so", false), ("bin/pixell-envoy", true), ("bin/pixell-envoy-health", true)]
    {
        let needs = Needs::of(&directory.join("root/usr/local").join(file))?;
        needs.check_envoys_images().with_context(|| file.to_owned())?;
        if needs.machine != "AArch64" || needs.libraries.is_empty() != is_static {
            bail!("{file} is built wrongly: {needs:?}");
        }
        say(&format!("{file}: {}, libraries: {}", needs.machine, needs.libraries.join(", ")));
    }
    Ok(())
}
