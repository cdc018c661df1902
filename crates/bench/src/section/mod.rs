//! Measurements other than single requests. Each section has a file and returns figures.

mod authentication;
mod changes;
mod fleet;
mod grpc;
mod hop;
mod hop_changes;
mod local;
mod memory;
mod pause;
mod put;
mod size;
mod start;
mod streaming;
mod workers;
mod writes;

use anyhow::{Context, Result};
use launcher::filter::Filter::{self, Native, Wasm};

use crate::contender::Stage;
use crate::results::Figure;

/// A section of the measurements.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// What it measures, in a line.
    pub about: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Size,
    Streaming,
    Grpc,
    Writes(Filter),
    Changes(Filter),
    Pause,
    Put,
    Fleet(Filter),
    Local(Filter),
    Hop(Filter),
    HopChanges(Filter),
    Authentication(Filter),
    Memory,
    MemoryAboveNone(Filter),
    Start(Filter),
}

/// All sections, in the order in which they are measured.
pub const SECTIONS: &[Section] = &[
    Section { name: "size", about: "size of the router's module", kind: Kind::Size },
    Section { name: "streaming", about: "CPU per message of a long gRPC stream", kind: Kind::Streaming },
    Section { name: "grpc", about: "unary gRPC, beside a router in Python behind Envoy", kind: Kind::Grpc },
    Section {
        name: "writes",
        about: "one route changed, until the response and until every worker sees it",
        kind: Kind::Writes(Wasm),
    },
    Section { name: "changes", about: "requests while the map changes 100 times a second", kind: Kind::Changes(Wasm) },
    Section { name: "pause", about: "time that one changed route takes from a worker", kind: Kind::Pause },
    Section { name: "put", about: "the whole map of 10,000 routes replaced", kind: Kind::Put },
    Section { name: "fleet", about: "the fleet map of 100,000 routes replaced, and changed", kind: Kind::Fleet(Wasm) },
    Section { name: "fleet-local", about: "requests to agents of the same task, with a fleet", kind: Kind::Local(Wasm) },
    Section { name: "hop", about: "the time that a hop adds (needs network namespaces)", kind: Kind::Hop(Wasm) },
    Section {
        name: "hop-changes",
        about: "one route of the fleet changed, until requests on every worker go by it (needs network namespaces)",
        kind: Kind::HopChanges(Wasm),
    },
    Section {
        name: "authentication",
        about: "TLS, tokens, the claim and a rate, each by itself",
        kind: Kind::Authentication(Wasm),
    },
    Section { name: "memory", about: "memory of Envoy with large maps", kind: Kind::Memory },
    Section { name: "memory-20", about: "memory of the filter with 20 routes", kind: Kind::MemoryAboveNone(Wasm) },
    Section { name: "start", about: "start of Envoy to the first routed request", kind: Kind::Start(Wasm) },
    Section { name: "native-writes", about: "writes with the native filter", kind: Kind::Writes(Native) },
    Section { name: "native-changes", about: "changes with the native filter", kind: Kind::Changes(Native) },
    Section { name: "native-fleet", about: "the fleet map with the native filter", kind: Kind::Fleet(Native) },
    Section { name: "native-fleet-local", about: "the same with the native filter", kind: Kind::Local(Native) },
    Section { name: "native-hop", about: "hops with the native filter", kind: Kind::Hop(Native) },
    Section { name: "native-hop-changes", about: "changes for hops with the native filter", kind: Kind::HopChanges(Native) },
    Section {
        name: "native-authentication",
        about: "authentication with the native filter",
        kind: Kind::Authentication(Native),
    },
    Section { name: "native-memory-20", about: "memory of the native filter", kind: Kind::MemoryAboveNone(Native) },
    Section { name: "native-start", about: "start with the native filter", kind: Kind::Start(Native) },
];

impl Section {
    /// Measures the section in a run of `rounds` rounds.
    ///
    /// # Errors
    /// If something does not start or sends a wrong response; the error names the section.
    pub async fn measure(&self, stage: &Stage<'_>, rounds: u32) -> Result<Vec<Figure>> {
        let figures = match self.kind {
            Kind::Size => size::measure(stage),
            Kind::Streaming => streaming::measure(stage, rounds).await,
            Kind::Grpc => grpc::measure(stage, rounds).await,
            Kind::Writes(filter) => writes::measure(stage, filter, rounds).await,
            Kind::Changes(filter) => changes::measure(stage, filter, rounds).await,
            Kind::Pause => pause::measure(stage, rounds).await,
            Kind::Put => put::measure(stage, rounds).await,
            Kind::Fleet(filter) => fleet::measure(stage, filter, rounds).await,
            Kind::Local(filter) => local::measure(stage, filter, rounds).await,
            Kind::Hop(filter) => hop::measure(stage, filter, rounds).await,
            Kind::HopChanges(filter) => hop_changes::measure(stage, filter, rounds).await,
            Kind::Authentication(filter) => authentication::measure(stage, filter, rounds).await,
            Kind::Memory => memory::measure(stage).await,
            Kind::MemoryAboveNone(filter) => memory::above_none(stage, filter).await,
            Kind::Start(filter) => start::measure(stage, filter, rounds).await,
        };
        figures.with_context(|| format!("section {}", self.name))
    }
}

/// What a figure is called that is measured with both forms of the filter.
fn titled(filter: Filter, what: &str) -> String {
    match filter {
        Wasm => what.to_owned(),
        Native => format!("Native filter: {what}"),
    }
}
