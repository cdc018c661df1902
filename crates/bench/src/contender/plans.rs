//! The list of the contenders.

use launcher::filter::Filter::{self, Native, Wasm};

use super::parts::Part;
use crate::load::Protocol;
use crate::table::LARGEST;

/// A contender before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Its name, for `--only` and the tables.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// What the load speaks to it.
    pub protocol: Protocol,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Envoy with ORIGINAL_DST and nothing else.
    Bare,
    /// Envoy without the filter, with requests to so many agents.
    None { agents: usize },
    /// The same without a part of the shipped configuration, or with one more.
    Part { part: Part },
    /// Envoy with a Wasm filter that does nothing.
    Empty,
    /// Envoy with a module that is written by hand for the bare ABI.
    Raw,
    /// Envoy with a native filter that does nothing, also before the agents' clusters if `retry` is set.
    EmptyNative { retry: bool },
    /// The shipped Envoy with so many routes.
    Ours { filter: Filter, routes: usize },
    /// The shipped Envoy with 20 routes and other runtime settings of the access log.
    Log { settings: &'static str },
    /// The shipped Envoy with 20 routes, without metrics of requests and agents.
    WithoutMetrics,
    /// The shipped Envoy with 20 routes, without the filter that judges a request before a retry.
    WithoutRetryFilter { filter: Filter },
    /// Envoy's Lua filter.
    Lua { routes: usize },
    /// Envoy's own routes, matched by header.
    HeaderRoutes { routes: usize },
    /// HAProxy with a map file.
    Haproxy { routes: usize },
    /// Caddy with a route for each id.
    Caddy { routes: usize },
}

/// All contenders, in the order they are measured and shown.
pub const PLANS: &[Plan] = &[
    plan("bare", "floor: an Envoy with ORIGINAL_DST and nothing else, 16 agents", Kind::Bare),
    plan("none", "floor: the shipped configuration without a filter, 16 agents", Kind::None { agents: AGENTS }),
    plan("none-1", "floor: the shipped configuration without a filter, 1 agent", Kind::None { agents: 1 }),
    plan("empty", "floor: a Wasm filter that does nothing, 16 agents", Kind::Empty),
    plan("raw", "floor: Wasm without SDK: one header, one metric, one fixed address", Kind::Raw),
    plan("ours-1", "pixell-envoy, 1 route", Kind::Ours { filter: Wasm, routes: 1 }),
    plan("ours-20", "pixell-envoy, 20 routes", Kind::Ours { filter: Wasm, routes: 20 }),
    plan("ours-1000", "pixell-envoy, 1,000 routes", Kind::Ours { filter: Wasm, routes: 1000 }),
    plan("ours-10000", "pixell-envoy, 10,000 routes", Kind::Ours { filter: Wasm, routes: 10_000 }),
    plan(
        "ours-largest",
        "pixell-envoy, 65,535 routes (one for each port: no map is larger)",
        Kind::Ours { filter: Wasm, routes: LARGEST },
    ),
    plan(
        "ours-20-log-off",
        "the same 20 routes, successes not logged (every other Envoy with the shipped configuration logs all)",
        Kind::Log { settings: "pixell.access_log.full: 0" },
    ),
    plan(
        "ours-20-log-brief",
        "the same 20 routes, successes logged in brief",
        Kind::Log { settings: "pixell.access_log.full: 0, pixell.access_log.brief: 100" },
    ),
    plan(
        "ours-20-metrics-off",
        "the same 20 routes, nothing counted about requests and agents (every other Envoy here counts)",
        Kind::WithoutMetrics,
    ),
    plan(
        "ours-20-no-retry-filter",
        "the same 20 routes, not judged again before a retry",
        Kind::WithoutRetryFilter { filter: Wasm },
    ),
    plan("native-1", "pixell-envoy with the native filter, 1 route", Kind::Ours { filter: Native, routes: 1 }),
    plan("native-20", "pixell-envoy with the native filter, 20 routes", Kind::Ours { filter: Native, routes: 20 }),
    plan(
        "native-largest",
        "pixell-envoy with the native filter, 65,535 routes",
        Kind::Ours { filter: Native, routes: LARGEST },
    ),
    plan(
        "native-20-no-retry-filter",
        "the native filter with 20 routes, not judged again before a retry",
        Kind::WithoutRetryFilter { filter: Native },
    ),
    plan("lua", "Envoy's Lua filter with a table of 20 in the script", Kind::Lua { routes: 20 }),
    plan("headers-20", "Envoy, 20 routes matched by header", Kind::HeaderRoutes { routes: 20 }),
    plan("headers-1000", "Envoy, 1,000 routes matched by header", Kind::HeaderRoutes { routes: 1000 }),
    plan("headers-10000", "Envoy, 10,000 routes matched by header", Kind::HeaderRoutes { routes: 10_000 }),
    plan("haproxy-20", "HAProxy with a map file of 20", Kind::Haproxy { routes: 20 }),
    plan("haproxy-10000", "HAProxy with a map file of 10,000", Kind::Haproxy { routes: 10_000 }),
    plan("caddy-20", "Caddy with 20 routes, pushed through its admin API", Kind::Caddy { routes: 20 }),
    part("without-log", "`none` without the access log of the data path", Part::Log),
    part("without-log-conditions", "`none`, each request logged without a condition", Part::LogConditions),
    part("without-log-fields", "`none`, a line of the log has one field", Part::LogFields),
    part("without-log-cel", "`none` without the log's condition in CEL", Part::LogExpression),
    part("without-request-id", "`none`, no `x-request-id` made up", Part::RequestId),
    part("without-retries", "`none` without the retry policy", Part::Retries),
    part("with-attempt-header", "`none` with the number of the attempt, as shipped", Part::AttemptHeader),
    part("without-dynamic-stats", "`none` without the router's counters of responses", Part::DynamicStats),
    part("without-stats", "`none`, nothing counted about requests and agents", Part::Stats),
    part("without-stats-tags", "`none` without labels made of metrics' names", Part::StatsTags),
    part("without-breakers", "`none` without circuit breakers of its own", Part::Breakers),
    part("without-accounting", "`none`, buffers not accounted to streams", Part::Accounting),
    part("without-overload", "`none` without the overload manager", Part::Overload),
    part("without-mutations", "`none`, no client headers removed", Part::HeaderMutations),
    part("without-agent-headers", "`none`, no agent headers removed", Part::AgentHeaders),
    part("without-local-replies", "`none` without a form for Envoy's own responses", Part::LocalReplies),
    part("without-timers", "`none` without time limits for headers and idle connections", Part::Timers),
    over_http2("h2-bare", "`bare` over HTTP/2", Kind::Bare),
    over_http2("h2-none", "`none` over HTTP/2", Kind::None { agents: AGENTS }),
    over_http2("h2-ours-20", "`ours-20` over HTTP/2", Kind::Ours { filter: Wasm, routes: 20 }),
    over_http2("h2-native-20", "`native-20` over HTTP/2", Kind::Ours { filter: Native, routes: 20 }),
];

/// Floors that only `cargo xtask profile` measures.
pub const FLOORS: &[Plan] = &[
    plan("native-empty", "floor: `none` with a native filter that does nothing", Kind::EmptyNative { retry: false }),
    plan("native-empty-retry", "floor: the same, and one before the agents' clusters", Kind::EmptyNative { retry: true }),
];

/// How many agents the load is spread over, if the contender has as many routes.
pub const AGENTS: usize = 16;

const fn plan(name: &'static str, about: &'static str, kind: Kind) -> Plan {
    Plan { name, about, protocol: Protocol::Http1, kind }
}

const fn part(name: &'static str, about: &'static str, part: Part) -> Plan {
    plan(name, about, Kind::Part { part })
}

const fn over_http2(name: &'static str, about: &'static str, kind: Kind) -> Plan {
    Plan { name, about, protocol: Protocol::Http2, kind }
}

impl Plan {
    /// The floor with requests to as many agents, over the same protocol.
    #[must_use]
    pub const fn floor(&self) -> &'static str {
        match (self.protocol, self.kind) {
            (Protocol::Http2, _) => "h2-none",
            (Protocol::Http1, Kind::Raw | Kind::None { agents: 1 } | Kind::Ours { routes: 1, .. }) => "none-1",
            (Protocol::Http1, _) => "none",
        }
    }
}
