//! Responses to requests whose path or host names the agent: their heads, and the bodies of agent cards. The router's stream of such a request
//! also changes its response, so that no second filter is needed, as with Wasm.

use crate::abi::{ConfigHost, Host, Map};
use crate::abi_types::LogLevel;
use crate::host;
use crate::metrics::CardMetrics;
use pixell_core::config::RouterConfig;
use pixell_core::responses::{Card, Change, Part, ResponseHost, Responses, Unchanged};
use std::borrow::Cow;

/// A configuration of what is done to responses.
#[derive(Debug)]
pub(crate) struct ResponseConfig {
    responses: Responses,
    metrics: CardMetrics,
}

/// The part of a response that has not arrived yet.
#[derive(Debug)]
pub(crate) enum Awaited {
    /// Its head. This was noted about the request.
    Head(Vec<u8>),
    /// The body of an agent card.
    Card(Card),
}

impl ResponseConfig {
    pub(crate) fn new(envoy: &ConfigHost, config: &RouterConfig) -> Self {
        Self {
            responses: Responses::new(config.addressing.clone(), config.external_origins.clone()),
            metrics: CardMetrics::define(envoy),
        }
    }

    /// The head of the response to the request that `note` is about. Returns the part that has yet to arrive, if that matters.
    pub(crate) fn on_head(&self, note: &[u8], envoy: &mut Host<'_>) -> Option<Awaited> {
        let head = self.responses.head(&Noted { envoy, note });
        apply(envoy, &head.changes);
        self.tell(envoy, head.unchanged);
        head.card.map(Awaited::Card)
    }

    pub(crate) fn on_body(&self, card: &mut Card, envoy: &mut Host<'_>, ends: bool) {
        let (part, unchanged) = card.push(&envoy.response_part(), ends, &self.responses);
        self.tell(envoy, unchanged);
        match part {
            Part::Pass => {}
            Part::Hold => envoy.replace_response_part(&[]),
            Part::Replace(new) => envoy.replace_response_part(&new),
        }
    }

    pub(crate) fn on_trailers(&self, card: &mut Card, envoy: &mut Host<'_>) {
        let (part, unchanged) = card.push(&[], true, &self.responses);
        self.tell(envoy, unchanged);
        if let Part::Replace(new) = part {
            envoy.add_response_body(&new);
        }
    }

    fn tell(&self, envoy: &Host<'_>, unchanged: Option<(Unchanged, String)>) {
        if let Some((unchanged, id)) = unchanged
            && self.metrics.unchanged(envoy, unchanged.reason())
        {
            crate::abi::write_log(LogLevel::Warn, &unchanged.line(&id));
        }
    }
}

/// The head of a response, with what was noted about its request.
struct Noted<'a> {
    envoy: &'a Host<'a>,
    note: &'a [u8],
}

impl ResponseHost for Noted<'_> {
    fn note(&self) -> Option<Cow<'_, [u8]>> {
        Some(self.note.into())
    }

    fn response(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        let (first, count) = self.envoy.value(Map::Response, name, 0);
        let others = (1..count).filter_map(|index| self.envoy.value(Map::Response, name, index).0);
        first.into_iter().chain(others).map(Cow::Borrowed).collect()
    }
}

fn apply(envoy: &mut Host<'_>, changes: &[Change]) {
    for change in changes {
        let done = match change {
            Change::Set(name, value) => envoy.set_in(Map::Response, name, value),
            Change::Add(name, value) => envoy.add_to(Map::Response, name, value),
            Change::Remove(name) => envoy.remove_from(Map::Response, name.as_bytes()),
        };
        if !done {
            host::error(&format!("a header could not be changed: {change:?}"));
        }
    }
}
