//! Envoy with the shipped configuration, as it is and without the filter.

use anyhow::Result;
use harness::{Envoy, EnvoyBuilder};

use super::{Contender, Stage};
use crate::table::Table;

/// The settings that all Envoys of the bench share. One worker, unless told: it has a core to itself.
pub(crate) fn settings(stage: &Stage<'_>) -> EnvoyBuilder {
    Envoy::builder().modules(stage.modules).concurrency(1).log_level("warning")
}

/// Has the upstream's address taken from a header of the request, where no filter says it.
pub(crate) fn address_from_header(settings: EnvoyBuilder) -> EnvoyBuilder {
    let original = "      type: ORIGINAL_DST\n";
    settings.edit_times(2, original, &format!("{original}      original_dst_lb_config: {{ use_http_header: true }}\n"))
}

/// Lets a map hold a route for each port there is.
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

/// The shipped Envoy with the routes of `table`.
pub(super) async fn shipped(stage: &Stage<'_>, table: &Table) -> Result<Contender> {
    let envoy = without_limits(settings(stage)).start().await?;
    push(&envoy, table).await?;
    contender(stage, envoy, table.asked.clone())
}

/// The shipped Envoy with these runtime settings of the access log.
pub(super) async fn with_log(stage: &Stage<'_>, runtime: &str, table: &Table) -> Result<Contender> {
    let quiet = settings(stage).edit("static_layer: {}", &format!("static_layer: {{ {runtime} }}"));
    let envoy = without_limits(quiet).start().await?;
    push(&envoy, table).await?;
    contender(stage, envoy, table.asked.clone())
}

/// The shipped Envoy without metrics of requests and of agents. What the filter needs is left to it.
pub(super) async fn without_metrics(stage: &Stage<'_>, table: &Table) -> Result<Contender> {
    let matcher = "  stats_matcher: { exclusion_list: { patterns: [{ prefix: http. }, { prefix: cluster.agents }] } }\n";
    let quiet = settings(stage).edit("stats_config:\n", &format!("stats_config:\n{matcher}"));
    let envoy = without_limits(quiet).start().await?;
    push(&envoy, table).await?;
    contender(stage, envoy, table.asked.clone())
}

/// The shipped Envoy without the filter that is asked before a retry.
pub(super) async fn not_judged_again(stage: &Stage<'_>, table: &Table) -> Result<Contender> {
    let envoy = without_limits(settings(stage).without_retry_filter()).start().await?;
    push(&envoy, table).await?;
    contender(stage, envoy, table.asked.clone())
}

/// ORIGINAL_DST without a filter, asked for `agents` agents.
pub(super) async fn without_filter(stage: &Stage<'_>, agents: usize) -> Result<Contender> {
    let envoy = address_from_header(settings(stage).data_filter("")).start().await?;
    let agents = stage.agents.get(..agents).unwrap_or(stage.agents);
    contender(stage, envoy, Table::new(agents.len(), agents).asked)
}

/// The running `envoy`, moved to its core.
pub(super) fn contender(stage: &Stage<'_>, envoy: Envoy, asked: Vec<(String, u16)>) -> Result<Contender> {
    stage.cores.give_proxy(envoy.pid())?;
    Ok(Contender { address: envoy.data_addr(), pids: vec![envoy.pid()], asked, _running: Box::new(envoy) })
}
