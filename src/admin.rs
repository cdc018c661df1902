//! The route API's side of Envoy: gathers a request, hands it to the core, sends the response.

use crate::host::{self, HostData, Signal};
use crate::metrics::AdminMetrics;
use pixell_core::admin::exchange::{Admin, Exchange, OwnedHead, Step};
use pixell_core::admin::response::{Outcome, Response};
use pixell_core::admin::tally::{self, Map};
use pixell_core::admin::token::{self, Token};
use pixell_core::config::AdminConfig;
use pixell_core::routes::bootstrap;
use pixell_core::store::{Backend, FLEET_MAP, ROUTE_MAP, prepare};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType};
use std::rc::Rc;

/// One worker's route API.
#[derive(Default)]
pub(crate) struct AdminRoot {
    plugin: Option<Rc<Plugin>>,
}

struct Plugin {
    admin: Admin,
    signal: Signal,
    metrics: AdminMetrics,
}

impl Context for AdminRoot {}

impl RootContext for AdminRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        match Plugin::configured() {
            Ok(plugin) => {
                self.plugin = Some(Rc::new(plugin));
                true
            }
            Err(error) => {
                log::error!("configuration of the admin filter: {error}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(AdminStream { plugin: self.plugin.clone(), exchange: Exchange::default() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Plugin {
    fn configured() -> Result<Self, String> {
        let config = AdminConfig::parse(&host::plugin_configuration()).map_err(|error| error.to_string())?;
        let token = match std::env::var(token::VARIABLE) {
            Ok(value) => Some(Token::parse(&value).map_err(|error| error.to_string())?),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => return Err(token::InvalidToken.to_string()),
        };
        prepare(&HostData, &ROUTE_MAP);
        if config.fleet.is_some() {
            prepare(&HostData, &FLEET_MAP);
        }
        let plugin = Self { admin: Admin::new(config, token), signal: Signal::open(), metrics: AdminMetrics::define() };
        if let Some(routes) = &plugin.admin.api.config.bootstrap_routes
            && bootstrap::store(routes, &plugin.backend())?
        {
            plugin.record(Outcome::Published { displaced: 0 }, Map::Routes);
        }
        // An earlier VM may have died after publishing a map and before it set the gauges.
        for map in [Map::Routes, Map::Fleet] {
            tally::settle(map, &plugin.metrics, &HostData, &plugin.signal);
        }
        Ok(plugin)
    }

    const fn backend(&self) -> Backend<'_, HostData, Signal> {
        Backend { data: &HostData, signal: &self.signal, new_epoch: host::random, now: host::time_of_day }
    }

    fn record(&self, outcome: Outcome, map: Map) {
        tally::record(outcome, map, &self.metrics, &HostData, &self.signal);
    }
}

struct AdminStream {
    plugin: Option<Rc<Plugin>>,
    exchange: Exchange,
}

impl Context for AdminStream {}

impl HttpContext for AdminStream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        // Envoy creates no stream on a VM that was not configured.
        let Some(plugin) = self.plugin.clone() else { return Action::Pause };
        let head = OwnedHead::read(host::head);
        let step = self.exchange.on_head(&plugin.admin, &head, end_of_stream, &plugin.backend());
        self.carry_out(&plugin, step)
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let Some(plugin) = self.plugin.clone() else { return Action::Pause };
        let step = self.exchange.on_body(&plugin.admin, size, end_of_stream);
        self.carry_out(&plugin, step)
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // With trailers no part of the body is the last one of the stream.
        let Some(plugin) = self.plugin.clone() else { return Action::Pause };
        let step = self.exchange.on_trailers(&plugin.admin);
        self.carry_out(&plugin, step)
    }
}

impl AdminStream {
    fn carry_out(&mut self, plugin: &Plugin, step: Step) -> Action {
        match step {
            Step::Pass => Action::Continue,
            Step::Wait => Action::Pause,
            Step::ReadBody { most } => {
                let body = hostcalls::get_buffer(BufferType::HttpRequestBody, 0, most).ok().flatten().unwrap_or_default();
                let step = self.exchange.finish(&plugin.admin, &body, &plugin.backend());
                self.carry_out(plugin, step)
            }
            Step::DropBody => {
                if let Err(status) = hostcalls::set_buffer(BufferType::HttpRequestBody, 0, usize::MAX, &[]) {
                    log::error!("a part of a body could not be dropped: {status:?}");
                }
                Action::Pause
            }
            Step::Record { outcome, map, code, next } => {
                plugin.record(outcome, map);
                if let Some(code) = code {
                    host::note_rejection(code);
                }
                self.carry_out(plugin, *next)
            }
            Step::Response(response) => {
                send(&response);
                Action::Pause
            }
        }
    }
}

fn send(response: &Response) {
    let headers = response.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = (!response.body.is_empty()).then_some(response.body.as_bytes());
    if let Err(status) = hostcalls::send_http_response(u32::from(response.status), headers, body) {
        log::error!("a response could not be sent: {status:?}");
    }
}
