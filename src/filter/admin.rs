//! The route API's side of Envoy: gathers a request, hands it to [`RouteApi`], sends the reply.

use super::host::{self, HostData, Signal};
use super::metrics::AdminMetrics;
use crate::admin::call::{Call, Head};
use crate::admin::reply::{Outcome, Reply};
use crate::admin::status_page::{self, StatusPage};
use crate::admin::token::{self, Token};
use crate::admin::{Backend, Begun, RouteApi, owns_path};
use crate::change::{Applied, Change, Edit};
use crate::config::AdminConfig;
use crate::deployment_id::DeploymentId;
use crate::store::{Update, prepare, publish};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType};
use std::rc::Rc;

/// One worker's route API.
#[derive(Default)]
pub(super) struct AdminRoot {
    admin: Option<Rc<Admin>>,
}

struct Admin {
    api: RouteApi,
    signal: Signal,
    metrics: AdminMetrics,
    page: StatusPage,
}

impl Context for AdminRoot {}

impl RootContext for AdminRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        match Admin::configured() {
            Ok(admin) => {
                self.admin = Some(Rc::new(admin));
                true
            }
            Err(error) => {
                log::error!("configuration of the admin filter: {error}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(AdminStream { admin: self.admin.clone(), call: None }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Admin {
    fn configured() -> Result<Self, String> {
        let config = AdminConfig::parse(&host::plugin_configuration()).map_err(|error| error.to_string())?;
        let token = match std::env::var(token::VARIABLE) {
            Ok(value) => Some(Token::parse(&value).map_err(|error| error.to_string())?),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => return Err(token::InvalidToken.to_string()),
        };
        prepare(&HostData);
        let signal = Signal::open();
        let metrics = AdminMetrics::define();
        metrics.written(store_bootstrap_routes(&config, signal)?, signal);
        // Should an earlier VM have died after publishing a map, the gauges still tell of the one before.
        metrics.settle(signal);
        Ok(Self { api: RouteApi { config, token }, signal, metrics, page: StatusPage::new() })
    }

    fn backend(&self) -> Backend<'_, HostData, Signal> {
        Backend { data: &HostData, signal: &self.signal, new_epoch: host::random }
    }

    fn finish(&self, call: &Call, body: &[u8]) {
        let reply = self.api.finish(call, body, &self.backend());
        self.metrics.written(reply.outcome, self.signal);
        send(&reply);
    }
}

/// Stores the configured routes, but only where no map exists: every worker comes by here, also after a crash of its VM.
fn store_bootstrap_routes(config: &AdminConfig, signal: Signal) -> Result<Outcome, String> {
    let Some(routes) = &config.bootstrap_routes else { return Ok(Outcome::Read) };
    let mut edits = Vec::with_capacity(routes.len());
    for (id, route) in routes {
        edits.push((DeploymentId::parse(id.as_bytes()).map_err(|error| error.to_string())?, Edit::Set(*route)));
    }
    let change = Change { replace: true, edits };
    let stored = publish(&HostData, &signal, host::random, |map| {
        if map.is_loaded() {
            return Ok(Update::Keep(Applied::default()));
        }
        change.apply(map, config.limits.max_routes).map(Update::Store)
    });
    stored
        .map(|done| if done.stored { Outcome::Published } else { Outcome::Read })
        .map_err(|error| format!("/bootstrap_routes could not be stored: {error:?}"))
}

struct AdminStream {
    admin: Option<Rc<Admin>>,
    call: Option<Call>,
}

impl Context for AdminStream {}

impl HttpContext for AdminStream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let target = hostcalls::get_property(vec!["request", "path"]).ok().flatten().unwrap_or_default();
        let page = status_page::owns_path(&target);
        if !page && !owns_path(&target) {
            return Action::Continue;
        }
        // Envoy creates no stream on a VM that was not configured.
        let Some(admin) = &self.admin else { return Action::Pause };
        let method = hostcalls::get_property(vec!["request", "method"]).ok().flatten().unwrap_or_default();
        if page {
            send(&admin.page.reply(&method));
            return Action::Pause;
        }
        let authorization = host::request_header("authorization");
        let content_type = host::request_header("content-type");
        let content_length = host::request_header("content-length");
        let if_match = host::request_header_or_empty("if-match");
        let if_none_match = host::request_header_or_empty("if-none-match");
        let head = Head {
            method: &method,
            target: &target,
            authorization: authorization.as_deref(),
            content_type: content_type.as_deref(),
            content_length: content_length.as_deref(),
            if_match: if_match.as_deref(),
            if_none_match: if_none_match.as_deref(),
        };
        match admin.api.begin(&head, &admin.backend()) {
            Begun::Answered(reply) => {
                // A read that is refused says nothing about the map; what is not a read can only be meant as a write.
                if !matches!(method.as_slice(), b"GET" | b"HEAD" | b"OPTIONS") {
                    admin.metrics.written(reply.outcome, admin.signal);
                }
                send(&reply);
            }
            Begun::NeedsBody(call) if end_of_stream => admin.finish(&call, &[]),
            Begun::NeedsBody(call) => self.call = Some(call),
        }
        Action::Pause
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let (Some(admin), Some(_)) = (&self.admin, &self.call) else { return Action::Continue };
        if !end_of_stream && body_size <= admin.api.config.max_body_bytes {
            return Action::Pause;
        }
        self.finish(body_size);
        Action::Pause
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // With trailers no part of the body is the last one of the stream.
        if self.call.is_none() {
            return Action::Continue;
        }
        self.finish(usize::MAX);
        Action::Pause
    }
}

impl AdminStream {
    fn finish(&mut self, body_size: usize) {
        let (Some(admin), Some(call)) = (&self.admin, self.call.take()) else { return };
        // One byte more than allowed is enough to see that it is too much.
        let most = body_size.min(admin.api.config.max_body_bytes.saturating_add(1));
        let body = hostcalls::get_buffer(BufferType::HttpRequestBody, 0, most).ok().flatten().unwrap_or_default();
        admin.finish(&call, &body);
    }
}

fn send(reply: &Reply) {
    if let Outcome::Refused(code) = reply.outcome {
        host::note_rejection(code);
    }
    let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = (!reply.body.is_empty()).then_some(reply.body.as_bytes());
    if let Err(status) = hostcalls::send_http_response(u32::from(reply.status), headers, body) {
        log::error!("a reply could not be sent: {status:?}");
    }
}
