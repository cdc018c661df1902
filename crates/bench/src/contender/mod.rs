//! The contenders. Each is a way to route by `x-deployment-id`.

mod bare;
mod caddy;
pub(crate) mod envoy;
pub(crate) mod haproxy;
mod native;
mod parts;
mod peers;
mod plans;
mod wasm;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::pinning::Cores;
use crate::table::Table;
use plans::Kind;

pub use plans::{AGENTS, FLOORS, PLANS, Plan};

/// What every contender needs to start.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// The cores of the load and of the proxy.
    pub cores: Cores,
    /// The ports of the agents.
    pub agents: &'a [u16],
    /// The directory of the Wasm modules and native.so.
    pub modules: &'a Path,
    /// A directory for files that contenders need while they run.
    pub scratch: &'a Path,
    /// Envoy, or a program that runs it.
    pub envoy: &'a Path,
}

/// A contender that runs, on the proxy's core.
#[derive(Debug)]
pub struct Contender {
    /// Its address.
    pub address: SocketAddr,
    /// The processes whose CPU time counts.
    pub pids: Vec<u32>,
    /// The ids to request, and the ports of the agents that must respond.
    pub requested: Vec<(String, u16)>,
    /// Dropping it ends the contender.
    _running: Box<dyn std::fmt::Debug>,
}

impl Plan {
    /// Starts the contender.
    ///
    /// # Errors
    /// If it does not start; the error names it.
    pub async fn start(&self, stage: &Stage<'_>) -> Result<Contender> {
        let table = |routes| Table::new(routes, stage.agents);
        let started = match self.kind {
            Kind::Bare => bare::contender(stage, self.name).await,
            Kind::None { agents } => envoy::without_filter(stage, agents).await,
            Kind::Part { part } => envoy::changed_part(stage, part).await,
            Kind::Empty => wasm::empty(stage).await,
            Kind::Raw => wasm::raw(stage).await,
            Kind::EmptyNative { retry } => native::empty(stage, retry).await,
            Kind::Ours { filter, routes } => envoy::shipped(stage, filter, &table(routes)).await,
            Kind::WithoutMetrics => envoy::without_metrics(stage, &table(20)).await,
            Kind::WithoutRetryFilter { filter } => envoy::without_retry_filter(stage, filter, &table(20)).await,
            Kind::Log { settings } => envoy::with_log(stage, settings, &table(20)).await,
            Kind::Lua { routes } => peers::lua(stage, &table(routes)).await,
            Kind::HeaderRoutes { routes } => peers::header_routes(stage, &table(routes)).await,
            Kind::Haproxy { routes } => haproxy::contender(stage, &table(routes)).await,
            Kind::Caddy { routes } => caddy::contender(stage, &table(routes)).await,
        };
        started.with_context(|| format!("contender {}", self.name))
    }
}
