//! What is measured: one way of routing by `x-deployment-id` each, running and ready to be asked.

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
    /// What `--only` and the tables call it.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Envoy without the filter, and how many agents it is asked for.
    None { agents: usize },
    /// Envoy with a Wasm filter that does nothing.
    Empty,
    /// Envoy with a module written by hand against the bare ABI.
    Raw,
    /// The shipped Envoy with so many routes.
    Ours { routes: usize },
    /// The shipped Envoy with 20 routes and other runtime settings of the access log.
    Log { settings: &'static str },
    /// The shipped Envoy with 20 routes, and without the metrics of requests and connections.
    Unmeasured,
    /// The shipped Envoy with 20 routes, and without the filter that is asked before a retry.
    NotJudgedAgain,
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
        kind: Kind::Unmeasured,
    },
    Plan {
        name: "ours-20-no-retry-filter",
        about: "the same 20 routes, not judged again before a retry",
        kind: Kind::NotJudgedAgain,
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

/// How many agents the load is spread over, where the contender has as many routes.
pub const AGENTS: usize = 16;

/// What all contenders are started with.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// Where the proxy runs.
    pub cores: Cores,
    /// The ports of the agents.
    pub agents: &'a [u16],
    /// The directory of router.wasm and admin.wasm.
    pub modules: &'a Path,
    /// Where files can be put as long as the contenders run.
    pub scratch: &'a Path,
}

/// A contender that runs, on its core.
#[derive(Debug)]
pub struct Contender {
    /// Where it is called.
    pub address: SocketAddr,
    /// The processes whose CPU time counts.
    pub pids: Vec<u32>,
    /// The ids to ask for, and the ports of the agents that must answer.
    pub asked: Vec<(String, u16)>,
    /// Ends it when dropped.
    _running: Box<dyn std::fmt::Debug>,
}

impl Plan {
    /// The floor that is asked for as many agents.
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
    /// Where it does not get ready; the error names it.
    pub async fn start(&self, stage: &Stage<'_>) -> Result<Contender> {
        let started = match self.kind {
            Kind::None { agents } => envoy::without_filter(stage, agents).await,
            Kind::Empty => wasm::empty(stage).await,
            Kind::Raw => wasm::raw(stage).await,
            Kind::Ours { routes } => envoy::shipped(stage, &Table::new(routes, stage.agents)).await,
            Kind::Unmeasured => envoy::without_metrics(stage, &Table::new(20, stage.agents)).await,
            Kind::NotJudgedAgain => envoy::not_judged_again(stage, &Table::new(20, stage.agents)).await,
            Kind::Log { settings } => envoy::with_log(stage, settings, &Table::new(20, stage.agents)).await,
            Kind::Lua { routes } => peers::lua(stage, &Table::new(routes, stage.agents)).await,
            Kind::HeaderRoutes { routes } => peers::header_routes(stage, &Table::new(routes, stage.agents)).await,
            Kind::Haproxy { routes } => haproxy::contender(stage, &Table::new(routes, stage.agents)).await,
        };
        started.with_context(|| format!("contender {}", self.name))
    }
}
