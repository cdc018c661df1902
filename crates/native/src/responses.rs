//! Responses to requests that a path or a host addresses: their heads, and the bodies of agent cards. Envoy's routes enable this filter, and it
//! stands behind the router's, whose note it reads.

use crate::abi::{ConfigHost, Host, Map};
use crate::abi_types::LogLevel;
use crate::metrics::CardMetrics;
use crate::{fault, host};
use pixell_core::config::RouterConfig;
use pixell_core::responses::{Card, Change, Part, ResponseHost, Responses, Unchanged};
use std::borrow::Cow;

/// A configuration of the filter.
#[derive(Debug)]
pub(crate) struct ResponsesFilter {
    responses: Responses,
    metrics: CardMetrics,
}

impl ResponsesFilter {
    pub(crate) fn new(envoy: &ConfigHost, config: &[u8]) -> Result<Self, String> {
        let config = RouterConfig::parse(config).map_err(|error| format!("configuration of the responses filter: {error}"))?;
        Ok(Self { responses: Responses::new(&config), metrics: CardMetrics::define(envoy) })
    }

    pub(crate) fn on_response(&self, card: &mut Option<Card>, envoy: &mut Host<'_>) {
        fault::point("response_headers");
        let head = self.responses.head(envoy);
        apply(envoy, &head.changes);
        self.tell(envoy, head.unchanged);
        *card = head.card;
    }

    pub(crate) fn on_response_body(&self, card: &mut Option<Card>, envoy: &mut Host<'_>, ends: bool) {
        let Some(card) = card else { return };
        fault::point("response_body");
        let (part, unchanged) = card.push(&envoy.response_part(), ends, &self.responses);
        self.tell(envoy, unchanged);
        match part {
            Part::Pass => {}
            Part::Hold => envoy.replace_response_part(&[]),
            Part::Replace(new) => envoy.replace_response_part(&new),
        }
    }

    pub(crate) fn on_response_trailers(&self, card: &mut Option<Card>, envoy: &mut Host<'_>) {
        let Some(card) = card else { return };
        fault::point("response_trailers");
        let (part, unchanged) = card.push(&[], true, &self.responses);
        self.tell(envoy, unchanged);
        if let Part::Replace(new) = part {
            envoy.add_response_body(&new);
        }
    }

    /// A hook has panicked.
    pub(crate) fn panicked(&self, envoy: &Host<'_>) {
        self.metrics.panicked(envoy);
    }

    fn tell(&self, envoy: &Host<'_>, unchanged: Option<(Unchanged, String)>) {
        if let Some((unchanged, id)) = unchanged
            && self.metrics.unchanged(envoy, unchanged.reason())
        {
            crate::abi::write_log(LogLevel::Warn, &unchanged.line(&id));
        }
    }
}

impl ResponseHost for Host<'_> {
    fn note(&self) -> Option<Cow<'_, [u8]>> {
        self.state(host::NOTE).map(Cow::Borrowed)
    }

    fn response(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        let (first, count) = self.value(Map::Response, name, 0);
        let others = (1..count).filter_map(|index| self.value(Map::Response, name, index).0);
        first.into_iter().chain(others).map(Cow::Borrowed).collect()
    }
}

fn apply(envoy: &mut Host<'_>, changes: &[Change]) {
    for change in changes {
        let done = match change {
            Change::Set(name, value) => envoy.set_in(Map::Response, name, value),
            Change::Add(name, value) => envoy.add_to(Map::Response, name, value),
            Change::Remove(name) => envoy.remove_from(Map::Response, name),
        };
        if !done {
            host::error(&format!("a header could not be changed: {change:?}"));
        }
    }
}
