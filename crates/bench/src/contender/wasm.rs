//! Modules written by hand, in place of the router's: they show what Wasm costs in Envoy without an SDK and without a route map.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Contender, Stage, envoy};
use crate::table::Table;

/// A filter that does nothing; the address comes from a header.
pub(super) async fn empty(stage: &Stage<'_>) -> Result<Contender> {
    let modules = directory(stage, "empty", include_str!("../../modules/empty.wat"))?;
    let settings = envoy::settings(stage).modules(modules).without_retry_filter();
    let envoy = envoy::address_from_header(settings).start().await?;
    envoy::contender(stage, envoy, Table::new(stage.agents.len(), stage.agents).requested)
}

/// A filter that reads the id and a metric, and sends every request to the first agent.
pub(super) async fn raw(stage: &Stage<'_>) -> Result<Contender> {
    let table = Table::new(1, stage.agents);
    let (_, port) = table.requested.first().context("the bench has no agent")?;
    let address = format!("127.0.0.1:{port}");
    // The argument of the foreign function is {1: path, 2: address, 3: span}. The template lacks only the address.
    let text = include_str!("../../modules/raw.wat")
        .replace("ADDRESS_LENGTH", &format!("\\{:02x}", address.len()))
        .replace("ADDRESS", &address)
        .replace("ARGUMENT_LENGTH", &(2 + PATH.len() + 2 + address.len() + 2).to_string());
    let modules = directory(stage, "raw", &text)?;
    let envoy = envoy::settings(stage).modules(modules).without_retry_filter().start().await?;
    envoy::contender(stage, envoy, table.requested)
}

/// The filter state that an ORIGINAL_DST cluster takes its address from.
const PATH: &str = "envoy.network.transport_socket.original_dst_address";

/// Makes a directory with the module `text` as router.wasm, and the other shipped ones.
fn directory(stage: &Stage<'_>, name: &str, text: &str) -> Result<PathBuf> {
    let directory = stage.scratch.join(name);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("router.wasm"), wat::parse_str(text)?)?;
    for shipped in ["responses.wasm", "admin.wasm"] {
        fs::copy(stage.modules.join(shipped), directory.join(shipped))?;
    }
    Ok(directory)
}
