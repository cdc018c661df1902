//! A native module written for the bare interface, in place of ours: it shows what Envoy spends to have a native filter.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};
use harness::envoy::modules::NATIVE;
use launcher::filter::Filter;

use super::{Contender, Stage, envoy};
use crate::table::Table;

/// Filters that do nothing; the address comes from a header. With `retry` there is one before the agents' clusters, too.
pub(super) async fn empty(stage: &Stage<'_>, retry: bool) -> Result<Contender> {
    let directory = stage.scratch.join("empty");
    fs::create_dir_all(&directory)?;
    let (source, module) = (directory.join("empty.rs"), directory.join(NATIVE));
    fs::write(&source, include_str!("../../modules/empty.rs"))?;
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort", "-C", "strip=symbols", "-o"]);
    let output = rustc.arg(&module).arg(&source).output()?;
    if !output.status.success() {
        bail!("{} does not compile: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    }
    let settings = envoy::address_from_header(envoy::settings(stage).filter(Filter::Native).modules(directory));
    let settings = if retry { settings } else { settings.without_retry_filter() };
    envoy::contender(stage, settings.start().await?, Table::new(stage.agents.len(), stage.agents).requested)
}
