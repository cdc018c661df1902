//! Envoy with the shipped configuration: as it is, and with parts removed.

use anyhow::Result;
use harness::{Envoy, EnvoyBuilder};
use launcher::filter::Filter;
use launcher::settings::Settings;

use super::parts::{NO_STATS, Part, changes};
use super::{Contender, Stage};
use crate::table::Table;

/// The settings that all Envoys of the bench share. By default there is one worker, because Envoy has one core, and the filter is Wasm.
pub(crate) fn settings(stage: &Stage<'_>) -> EnvoyBuilder {
    Envoy::builder().binary(stage.envoy).filter(Filter::Wasm).modules(stage.modules).concurrency(1).log_level("warning")
}

/// As [`settings`], with the image's settings.
pub(crate) fn with_settings(stage: &Stage<'_>, image: &Settings) -> EnvoyBuilder {
    // These have a log level and perhaps workers, too.
    settings(stage).settings(image).concurrency(1).log_level("warning")
}

/// Takes the upstream's address from a request header, for an Envoy without a filter that sets it.
pub(crate) fn address_from_header(settings: EnvoyBuilder) -> EnvoyBuilder {
    let original = "      type: ORIGINAL_DST\n";
    settings.edit_times(3, original, &format!("{original}      original_dst_lb_config: {{ use_http_header: true }}\n"))
}

/// Allows a route map with a route for every port.
pub(crate) fn without_limits(settings: EnvoyBuilder) -> EnvoyBuilder {
    settings.edit(
        "\"role\": \"admin\"",
        "\"role\": \"admin\", \"port_range\": {\"min\": 1, \"max\": 65535}, \"denied_ports\": [], \"max_routes\": 65535",
    )
}

/// Pushes all routes of `table`.
pub(crate) async fn push(envoy: &Envoy, table: &Table) -> Result<()> {
    envoy.routes().put_all(table.routes.iter().map(|(id, port)| (id.as_str(), *port))).await?;
    Ok(())
}

/// The shipped Envoy with this form of the filter and the routes of `table`.
pub(super) async fn shipped(stage: &Stage<'_>, filter: Filter, table: &Table) -> Result<Contender> {
    let envoy = without_limits(settings(stage).filter(filter)).start().await?;
    push(&envoy, table).await?;
    contender(stage, envoy, table.requested.clone())
}

/// The shipped Envoy with these runtime settings of the access log.
pub(super) async fn with_log(stage: &Stage<'_>, runtime: &str, table: &Table) -> Result<Contender> {
    let quiet = settings(stage).edit("static_layer: {}", &format!("static_layer: {{ {runtime} }}"));
    let envoy = without_limits(quiet).start().await?;
    push(&envoy, table).await?;
    contender(stage, envoy, table.requested.clone())
}

/// The shipped Envoy without metrics of requests and agents. The metrics that the filter itself needs stay.
pub(super) async fn without_metrics(stage: &Stage<'_>, table: &Table) -> Result<Contender> {
    let quiet = settings(stage).edit(NO_STATS[0], NO_STATS[1]);
    let envoy = without_limits(quiet).start().await?;
    push(&envoy, table).await?;
    contender(stage, envoy, table.requested.clone())
}

/// The shipped Envoy without the filter that judges a request before a retry.
pub(super) async fn without_retry_filter(stage: &Stage<'_>, filter: Filter, table: &Table) -> Result<Contender> {
    let envoy = without_limits(settings(stage).filter(filter).without_retry_filter()).start().await?;
    push(&envoy, table).await?;
    contender(stage, envoy, table.requested.clone())
}

/// ORIGINAL_DST without a filter, with requests to `agents` agents.
pub(super) async fn without_filter(stage: &Stage<'_>, agents: usize) -> Result<Contender> {
    let envoy = address_from_header(settings(stage).data_filter("")).start().await?;
    let agents = stage.agents.get(..agents).unwrap_or(stage.agents);
    contender(stage, envoy, Table::new(agents.len(), agents).requested)
}

/// As [`without_filter`] with all agents, without `part` of the shipped configuration, or with it if that has gone with the filter.
pub(super) async fn changed_part(stage: &Stage<'_>, part: Part) -> Result<Contender> {
    let shipped = std::fs::read_to_string(workspace::root().join("envoy/envoy.yaml"))?;
    let settings = address_from_header(settings(stage).data_filter(""));
    let settings = changes(part, &shipped)?.into_iter().fold(settings, |settings, (from, to)| settings.edit(&from, &to));
    contender(stage, settings.start().await?, Table::new(stage.agents.len(), stage.agents).requested)
}

/// Moves the running `envoy` to the proxy's core.
pub(crate) fn contender(stage: &Stage<'_>, envoy: Envoy, requested: Vec<(String, u16)>) -> Result<Contender> {
    stage.cores.give_proxy(envoy.pid())?;
    Ok(Contender { address: envoy.data_addr(), pids: vec![envoy.pid()], requested, _running: Box::new(envoy) })
}
