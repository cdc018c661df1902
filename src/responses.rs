//! Responses to requests whose path or host names the agent: their heads, and the bodies of agent cards. Envoy's routes enable this filter. It
//! comes after the router's filter, whose note it reads.

use crate::host;
use crate::metrics::CardMetrics;
use pixell_core::config::RouterConfig;
use pixell_core::responses::{Card, Change, Part, ResponseHost, Responses, Unchanged};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, MapType};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;

/// A plugin: one configuration of the filter in this VM.
#[derive(Default)]
pub(crate) struct ResponsesRoot {
    /// Shared with the streams' contexts.
    plugin: Rc<OnceCell<Plugin>>,
}

struct Plugin {
    responses: Responses,
    metrics: CardMetrics,
}

impl Context for ResponsesRoot {}

impl RootContext for ResponsesRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        match RouterConfig::parse(&host::plugin_configuration()) {
            Ok(config) => {
                // Envoy configures a root context once; another configuration gets another one.
                self.plugin.get_or_init(|| Plugin {
                    responses: Responses::new(config.addressing, config.external_origins),
                    metrics: CardMetrics::define(),
                });
                true
            }
            Err(error) => {
                log::error!("configuration of the responses filter: {error}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { plugin: Rc::clone(&self.plugin), card: None }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// A stream of a plugin.
struct Stream {
    plugin: Rc<OnceCell<Plugin>>,
    /// The card that arrives.
    card: Option<Card>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(plugin) = self.plugin.get() else { return Action::Continue };
        let head = plugin.responses.head(&Shown::default());
        apply(&head.changes);
        plugin.tell(head.unchanged);
        self.card = head.card;
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, ends: bool) -> Action {
        let (Some(plugin), Some(card)) = (self.plugin.get(), &mut self.card) else { return Action::Continue };
        let part = hostcalls::get_buffer(BufferType::HttpResponseBody, 0, size).ok().flatten().unwrap_or_default();
        let (part, unchanged) = card.push(&part, ends, &plugin.responses);
        plugin.tell(unchanged);
        let new = match part {
            Part::Pass => return Action::Continue,
            Part::Hold => Vec::new(),
            Part::Replace(new) => new,
        };
        if let Err(status) = hostcalls::set_buffer(BufferType::HttpResponseBody, 0, size, &new) {
            log::error!("the body of an agent card could not be changed: {status:?}");
        }
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        // It is too late to send a body before the trailers. The response is reset, so that the client does not take an empty card for the agent's.
        if self.card.as_ref().is_some_and(Card::holds) {
            log::warn!("an agent card with trailers, which were not requested, was cut off");
            let _ = hostcalls::reset_http_response();
            return Action::Pause;
        }
        Action::Continue
    }
}

impl Plugin {
    fn tell(&self, unchanged: Option<(Unchanged, String)>) {
        if let Some((unchanged, id)) = unchanged
            && self.metrics.unchanged(unchanged.reason())
        {
            log::warn!("{}", unchanged.line(&id));
        }
    }
}

/// The head of the response that Envoy has called for.
#[derive(Default)]
struct Shown {
    /// All headers, once one is there that may have to be changed.
    all: OnceCell<Vec<(String, Vec<u8>)>>,
}

impl ResponseHost for Shown {
    fn note(&self) -> Option<Cow<'_, [u8]>> {
        host::note().map(Cow::Owned)
    }

    fn response(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        // Looking for a header that is absent costs Envoy and this module much less than copying all headers.
        if !matches!(hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, name), Ok(Some(_))) {
            return Vec::new();
        }
        let all = self.all.get_or_init(|| hostcalls::get_map_bytes(MapType::HttpResponseHeaders).unwrap_or_default());
        all.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_slice().into()).collect()
    }
}

fn apply(changes: &[Change]) {
    let map = MapType::HttpResponseHeaders;
    for change in changes {
        let done = match change {
            Change::Set(name, value) => hostcalls::set_map_value_bytes(map, name, Some(value)),
            Change::Add(name, value) => hostcalls::add_map_value_bytes(map, name, value),
            Change::Remove(name) => hostcalls::set_map_value_bytes(map, name, None),
        };
        if let Err(status) = done {
            log::error!("a header could not be changed: {change:?}: {status:?}");
        }
    }
}
