//! The contenders. Each is a way to route by `x-deployment-id`.

pub(crate) mod envoy;
pub(crate) mod haproxy;
mod peers;
mod wasm;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::pinning::Cores;
use crate::table::{LARGEST, Table};

/// A contender before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Its name, for `--only` and the tables.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Envoy without the filter, with requests to so many agents.
    None { agents: usize },
    /// Envoy with a Wasm filter that does nothing.
    Empty,
    /// Envoy with a module that is written by hand for the bare ABI.
    Raw,
    /// The shipped Envoy with so many routes.
    Ours { routes: usize },
    /// The shipped Envoy with 20 routes and other runtime settings of the access log.
    Log { settings: &'static str },
    /// The shipped Envoy with 20 routes, without metrics of requests and agents.
    WithoutMetrics,
    /// The shipped Envoy with 20 routes, without the filter that judges a request before a retry.
    WithoutRetryFilter,
    /// Envoy's Lua filter.
    Lua { routes: usize },
    /// Envoy's own routes, matched by header.
    HeaderRoutes { routes: usize },
    /// HAProxy with a map file.
    Haproxy { routes: usize },
}

/// All contenders, in the order they are measured and shown.
pub const PLANS: &[Plan] = &[
    Plan { name: "none", about: "floor: ORIGINAL_DST without a filter, 16 agents", kind: Kind::None { agents: AGENTS } },
    Plan { name: "none-1", about: "floor: ORIGINAL_DST without a filter, 1 agent", kind: Kind::None { agents: 1 } },
    Plan { name: "empty", about: "floor: a Wasm filter that does nothing, 16 agents", kind: Kind::Empty },
    Plan { name: "raw", about: "floor: Wasm without SDK: one header, one metric, one fixed address", kind: Kind::Raw },
    Plan { name: "ours-1", about: "pixell-envoy, 1 route", kind: Kind::Ours { routes: 1 } },
    Plan { name: "ours-20", about: "pixell-envoy, 20 routes", kind: Kind::Ours { routes: 20 } },
    Plan { name: "ours-1000", about: "pixell-envoy, 1,000 routes", kind: Kind::Ours { routes: 1000 } },
    Plan { name: "ours-10000", about: "pixell-envoy, 10,000 routes", kind: Kind::Ours { routes: 10_000 } },
    Plan {
        name: "ours-largest",
        about: "pixell-envoy, 65,535 routes (one for each port: no map is larger)",
        kind: Kind::Ours { routes: LARGEST },
    },
    Plan {
        name: "ours-20-log-off",
        about: "the same 20 routes, successes not logged (every other Envoy here logs all)",
        kind: Kind::Log { settings: "pixell.access_log.full: 0" },
    },
    Plan {
        name: "ours-20-log-brief",
        about: "the same 20 routes, successes logged in brief",
        kind: Kind::Log { settings: "pixell.access_log.full: 0, pixell.access_log.brief: 100" },
    },
    Plan {
        name: "ours-20-metrics-off",
        about: "the same 20 routes, nothing counted about requests and agents (every other Envoy here counts)",
        kind: Kind::WithoutMetrics,
    },
    Plan {
        name: "ours-20-no-retry-filter",
        about: "the same 20 routes, not judged again before a retry",
        kind: Kind::WithoutRetryFilter,
    },
    Plan { name: "lua", about: "Envoy's Lua filter with a table of 20 in the script", kind: Kind::Lua { routes: 20 } },
    Plan { name: "headers-20", about: "Envoy, 20 routes matched by header", kind: Kind::HeaderRoutes { routes: 20 } },
    Plan { name: "headers-1000", about: "Envoy, 1,000 routes matched by header", kind: Kind::HeaderRoutes { routes: 1000 } },
    Plan {
        name: "headers-10000",
        about: "Envoy, 10,000 routes matched by header",
        kind: Kind::HeaderRoutes { routes: 10_000 },
    },
    Plan { name: "haproxy-20", about: "HAProxy with a map file of 20", kind: Kind::Haproxy { routes: 20 } },
    Plan { name: "haproxy-10000", about: "HAProxy with a map file of 10,000", kind: Kind::Haproxy { routes: 10_000 } },
];

/// How many agents the load is spread over, if the contender has as many routes.
pub const AGENTS: usize = 16;

/// What every contender needs to start.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// The cores of the load and of the proxy.
    pub cores: Cores,
    /// The ports of the agents.
    pub agents: &'a [u16],
    /// The directory of router.wasm and admin.wasm.
    pub modules: &'a Path,
    /// A directory for files that contenders need while they run.
    pub scratch: &'a Path,
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
    /// The floor with requests to as many agents.
    #[must_use]
    pub const fn floor(&self) -> &'static str {
        match self.kind {
            Kind::Raw | Kind::None { agents: 1 } | Kind::Ours { routes: 1 } => "none-1",
            _ => "none",
        }
    }

    /// Starts the contender.
    ///
    /// # Errors
    /// If it does not start; the error names it.
    pub async fn start(&self, stage: &Stage<'_>) -> Result<Contender> {
        let started = match self.kind {
            Kind::None { agents } => envoy::without_filter(stage, agents).await,
            Kind::Empty => wasm::empty(stage).await,
            Kind::Raw => wasm::raw(stage).await,
            Kind::Ours { routes } => envoy::shipped(stage, &Table::new(routes, stage.agents)).await,
            Kind::WithoutMetrics => envoy::without_metrics(stage, &Table::new(20, stage.agents)).await,
            Kind::WithoutRetryFilter => envoy::without_retry_filter(stage, &Table::new(20, stage.agents)).await,
            Kind::Log { settings } => envoy::with_log(stage, settings, &Table::new(20, stage.agents)).await,
            Kind::Lua { routes } => peers::lua(stage, &Table::new(routes, stage.agents)).await,
            Kind::HeaderRoutes { routes } => peers::header_routes(stage, &Table::new(routes, stage.agents)).await,
            Kind::Haproxy { routes } => haproxy::contender(stage, &Table::new(routes, stage.agents)).await,
        };
        started.with_context(|| format!("contender {}", self.name))
    }
}
