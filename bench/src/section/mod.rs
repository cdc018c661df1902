//! What is measured beside single requests: one question a file, each answered with figures.

mod changes;
mod grpc;
mod memory;
mod pause;
mod put;
mod size;
mod start;
mod streaming;
mod workers;
mod writes;

use anyhow::{Context, Result};

use crate::contender::Stage;
use crate::results::Figure;

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What it asks, in a line.
    pub about: &'static str,
    question: Question,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Size,
    Streaming,
    Grpc,
    Writes,
    Changes,
    Pause,
    Put,
    Memory,
    Start,
}

/// All questions, in the order they are asked.
pub const SECTIONS: &[Section] = &[
    Section { name: "size", about: "size of the router's module", question: Question::Size },
    Section { name: "streaming", about: "CPU per message of a long gRPC stream", question: Question::Streaming },
    Section { name: "grpc", about: "unary gRPC, beside a router in Python behind Envoy", question: Question::Grpc },
    Section {
        name: "writes",
        about: "one route changed, until answered and until seen on every worker",
        question: Question::Writes,
    },
    Section { name: "changes", about: "requests while the map changes 100 times a second", question: Question::Changes },
    Section { name: "pause", about: "time that one changed route takes from a worker", question: Question::Pause },
    Section { name: "put", about: "the whole map of 10,000 routes replaced", question: Question::Put },
    Section { name: "memory", about: "memory of Envoy", question: Question::Memory },
    Section { name: "start", about: "start of Envoy to the first routed request", question: Question::Start },
];

impl Section {
    /// Measures, so often that the figures belong to a run of `rounds` rounds.
    ///
    /// # Errors
    /// Where something does not start or answers wrongly; the error names the section.
    pub async fn measure(&self, stage: &Stage<'_>, rounds: u32) -> Result<Vec<Figure>> {
        let figures = match self.question {
            Question::Size => size::measure(stage),
            Question::Streaming => streaming::measure(stage, rounds).await,
            Question::Grpc => grpc::measure(stage, rounds).await,
            Question::Writes => writes::measure(stage, rounds).await,
            Question::Changes => changes::measure(stage, rounds).await,
            Question::Pause => pause::measure(stage, rounds).await,
            Question::Put => put::measure(stage, rounds).await,
            Question::Memory => memory::measure(stage).await,
            Question::Start => start::measure(stage, rounds).await,
        };
        figures.with_context(|| format!("section {}", self.name))
    }
}
