//! `cargo xtask fuzz`: runs libFuzzer on the properties of `crates/fuzz`. `cargo xtask test` runs them on the corpus and on generated inputs.

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{program, read, run, say};

/// The version of cargo-fuzz, which builds for libFuzzer.
const VERSION: &str = "0.13.2";

/// The targets, each a file in crates/fuzz/fuzz_targets.
const TARGETS: [&str; 5] = ["id", "table", "patch", "card", "api"];

/// Run libFuzzer on the targets, with AddressSanitizer.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Seconds for each target
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Run only these targets
    #[arg(value_name = "TARGET", value_parser = TARGETS)]
    names: Vec<String>,
}

/// Fuzzes the targets in turn.
///
/// # Errors
/// If cargo-fuzz or the targets cannot be built, or an input breaks a property; cargo-fuzz then prints its path.
pub(crate) fn run_targets(arguments: &Arguments) -> Result<()> {
    let home = workspace::target().join("tools");
    let tool = home.join("bin/cargo-fuzz");
    let present = read(program(&tool.to_string_lossy()).arg("--version")).unwrap_or_default();
    if present.split_whitespace().last() != Some(VERSION) {
        say(&format!("building cargo-fuzz {VERSION} (once)"));
        let install = ["install", "cargo-fuzz", "--version", VERSION, "--locked", "--force", "--root"];
        run(program("cargo").args(install).arg(&home)).context("cargo-fuzz cannot be built: check the network")?;
    }
    let mut path = std::ffi::OsString::from(home.join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    for target in
        TARGETS.into_iter().filter(|target| arguments.names.is_empty() || arguments.names.iter().any(|name| name == target))
    {
        // New inputs stay out of the repository; its corpus is only read.
        let found = workspace::target().join("fuzz-corpus").join(target);
        std::fs::create_dir_all(&found)?;
        let mut fuzz = program("cargo");
        // Sanitizers are an unstable feature: the pinned stable toolchain allows them only with RUSTC_BOOTSTRAP.
        fuzz.args(["fuzz", "run", "--fuzz-dir", "crates/fuzz", "--target-dir"])
            .arg(workspace::target().join("fuzz"))
            .env("RUSTC_BOOTSTRAP", "1");
        fuzz.arg(target).arg(&found).arg(format!("crates/fuzz/corpus/{target}"));
        let limits = [format!("-max_total_time={}", arguments.seconds), "-max_len=4096".into(), "-print_final_stats=1".into()];
        run(fuzz.arg("--").args(limits).env("PATH", &path))
            .with_context(|| format!("{target}: see the output above (libFuzzer needs a C++ compiler: apt-get install g++)"))?;
    }
    Ok(())
}
