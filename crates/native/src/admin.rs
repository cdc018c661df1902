//! The route API's side of Envoy: gathers a request, hands it to the core, sends the response.

use crate::abi::{ConfigHost, Host};
use crate::abi_types::{DataStatus, Status};
use crate::metrics::{AdminMetrics, AdminRecord, now};
use crate::shared::{DATA, SIGNAL, ShownSignal, backend};
use crate::{fault, host};
use pixell_core::admin::exchange::{Admin, Exchange, OwnedHead, Step};
use pixell_core::admin::response::{Outcome, Response};
use pixell_core::admin::tally::{self, Map};
use pixell_core::admin::token::{self, Token};
use pixell_core::config::AdminConfig;
use pixell_core::data_path::Rejected;
use pixell_core::rejection::{Client, Rejection};
use pixell_core::routes::bootstrap;
use pixell_core::store::{FLEET_MAP, ROUTE_MAP, prepare};
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

/// A configuration of the route API.
#[derive(Debug)]
pub(crate) struct AdminFilter {
    admin: Admin,
    metrics: AdminMetrics,
    /// When the routes of the configuration were stored, in seconds since 1970.
    started_with_routes: Option<u64>,
    /// Whether the gauges have been set from the map. Envoy sets a gauge only for a stream, so the first stream does it.
    settled: AtomicBool,
}

impl AdminFilter {
    pub(crate) fn new(envoy: &ConfigHost, config: &[u8]) -> Result<Self, String> {
        Self::configured(envoy, config).map_err(|error| format!("configuration of the admin filter: {error}"))
    }

    fn configured(envoy: &ConfigHost, config: &[u8]) -> Result<Self, String> {
        let config = AdminConfig::parse(config).map_err(|error| error.to_string())?;
        let token = match std::env::var(token::VARIABLE) {
            Ok(value) => Some(Token::parse(&value).map_err(|error| error.to_string())?),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => return Err(token::InvalidToken.to_string()),
        };
        prepare(&*DATA, &ROUTE_MAP);
        if config.fleet.is_some() {
            prepare(&*DATA, &FLEET_MAP);
        }
        let stored = match &config.bootstrap_routes {
            Some(routes) => bootstrap::store(routes, &backend(&*SIGNAL))?,
            None => false,
        };
        Ok(Self {
            admin: Admin::new(config, token),
            metrics: AdminMetrics::define(envoy),
            started_with_routes: stored.then(now),
            settled: AtomicBool::new(false),
        })
    }

    pub(crate) fn on_request_headers(&self, exchange: &mut Exchange, envoy: &mut Host<'_>, ends: bool) -> Status {
        // Envoy counts only for a stream, and a scrape is a stream of this filter.
        (0..fault::take_uncounted()).for_each(|_| self.metrics.panicked(envoy));
        if !self.settled.swap(true, Ordering::Relaxed) {
            self.settle(envoy);
        }
        let head = OwnedHead::read(|name| host::joined(envoy, name).map(Cow::into_owned));
        let signal = ShownSignal { host: envoy, metrics: &self.metrics };
        let step = exchange.on_head(&self.admin, &head, ends, &backend(&signal));
        match self.carry_out(exchange, envoy, step) {
            Done::Pass => Status::Continue,
            Done::Wait | Done::Drop | Done::Replied => Status::Stop,
        }
    }

    pub(crate) fn on_request_body(&self, exchange: &mut Exchange, envoy: &mut Host<'_>, ends: bool) -> DataStatus {
        let step = exchange.on_body(&self.admin, envoy.body_size(), ends);
        match self.carry_out(exchange, envoy, step) {
            Done::Pass => DataStatus::Continue,
            Done::Wait => DataStatus::StopAndKeep,
            Done::Drop | Done::Replied => DataStatus::StopAndDrop,
        }
    }

    pub(crate) fn on_request_trailers(&self, exchange: &mut Exchange, envoy: &mut Host<'_>) -> Status {
        // With trailers no part of the body is the last one of the stream.
        let step = exchange.on_trailers(&self.admin);
        match self.carry_out(exchange, envoy, step) {
            Done::Pass => Status::Continue,
            Done::Wait | Done::Drop | Done::Replied => Status::Stop,
        }
    }

    /// A hook has panicked.
    pub(crate) fn panicked(&self, envoy: &Host<'_>) {
        self.metrics.panicked(envoy);
    }

    /// Responds that the filter has failed.
    pub(crate) fn fail(envoy: &mut Host<'_>) {
        host::reject(envoy, &Rejected::new(Rejection::Internal, Client::Http));
    }

    fn carry_out(&self, exchange: &mut Exchange, envoy: &mut Host<'_>, step: Step) -> Done {
        match step {
            Step::Pass => Done::Pass,
            Step::Wait => Done::Wait,
            Step::DropBody => {
                envoy.drop_kept_body();
                Done::Drop
            }
            Step::ReadBody { most } => {
                let body = envoy.body(most);
                let signal = ShownSignal { host: envoy, metrics: &self.metrics };
                let step = exchange.finish(&self.admin, &body, &backend(&signal));
                self.carry_out(exchange, envoy, step)
            }
            Step::Record { outcome, map, code, next } => {
                self.record(envoy, outcome, map, now());
                if let Some(code) = code {
                    host::note_rejection(envoy, code);
                }
                self.carry_out(exchange, envoy, *next)
            }
            Step::Response(response) => {
                send(envoy, &response);
                Done::Replied
            }
        }
    }

    fn settle(&self, envoy: &Host<'_>) {
        self.metrics.show_build(envoy);
        self.metrics.show_change(envoy);
        let record = AdminRecord { metrics: &self.metrics, host: envoy, now: 0 };
        tally::settle(Map::Fleet, &record, &*DATA, &*SIGNAL);
        match self.started_with_routes {
            Some(then) => self.record(envoy, Outcome::Published { displaced: 0 }, Map::Routes, then),
            None => tally::settle(Map::Routes, &record, &*DATA, &*SIGNAL),
        }
    }

    fn record(&self, envoy: &Host<'_>, outcome: Outcome, map: Map, now: u64) {
        tally::record(outcome, map, &AdminRecord { metrics: &self.metrics, host: envoy, now }, &*DATA, &*SIGNAL);
    }
}

/// What was done about a request.
enum Done {
    /// It goes to Envoy's own admin interface.
    Pass,
    /// More of it has to come.
    Wait,
    /// More of it has to come, and what is there is not needed.
    Drop,
    /// It has its response.
    Replied,
}

fn send(envoy: &mut Host<'_>, response: &Response) {
    let headers: Vec<_> = response.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    host::respond(envoy, response.status, &headers, &response.body);
}
