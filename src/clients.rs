//! What one client address may hold: connections to the data path (a network filter, which also ends silent ones), and requests to one
//! agent (an HTTP filter behind the router's).

use crate::host::{self, HostData};
use crate::metrics::ClientMetrics;
use pixell_core::clients::{Clients, Holder, Silent};
use pixell_core::config::ClientsConfig;
use pixell_core::data_path::{ID_HEADER, Rejected, Response};
use pixell_core::rejection::{Client, Rejection};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{Action, ContextType};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// The `root_id` of the plugin that counts requests; the one that counts connections has none.
const REQUESTS: &[u8] = b"requests";
/// The clusters whose agents take one request at a time on a connection.
const HTTP1_CLUSTERS: [&[u8]; 2] = [b"agents_http1", b"agents_websocket"];
/// How often Envoy calls the plugin to look for connections that have sent nothing.
const TICK: Duration = Duration::from_secs(1);

thread_local! {
    /// What this VM's worker knows; the same for both plugins.
    static WORKER: RefCell<Worker> = RefCell::default();
    static BEGUN: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct Worker {
    clients: Clients,
    silent: Silent,
}

/// Host calls may enter the guest once more, but only to allocate: nobody else can hold the worker's state.
fn with_worker<T>(work: impl FnOnce(&mut Worker) -> T) -> Option<T> {
    WORKER.with(|worker| worker.try_borrow_mut().ok().map(|mut worker| work(&mut worker)))
}

/// A plugin: one configuration of the filter in this VM.
#[derive(Default)]
pub(crate) struct ClientsRoot {
    /// Shared with the contexts of connections and streams.
    plugin: Rc<OnceCell<Plugin>>,
}

struct Plugin {
    config: ClientsConfig,
    counts_requests: bool,
    metrics: ClientMetrics,
}

impl Context for ClientsRoot {}

impl RootContext for ClientsRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        match ClientsConfig::parse(&host::plugin_configuration()) {
            Ok(config) => {
                if !BEGUN.replace(true) {
                    Clients::begin(&HostData);
                }
                let counts_requests = host::property("plugin_root_id").is_some_and(|name| name == REQUESTS);
                // Envoy configures a root context once; another configuration gets another one.
                self.plugin.get_or_init(|| Plugin { config, counts_requests, metrics: ClientMetrics::define() });
                if !counts_requests {
                    self.set_tick_period(TICK);
                }
                true
            }
            Err(error) => {
                log::error!("configuration of the clients filter: {error}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        let ended = with_worker(|Worker { clients, silent }| {
            clients.notice(&HostData);
            silent.tick()
        });
        for connection in ended.unwrap_or_default() {
            // An error means that the connection has ended.
            if hostcalls::set_effective_context(connection).is_ok() {
                let _ = hostcalls::close_downstream();
            }
        }
    }

    fn create_stream_context(&self, connection: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Connection { plugin: Rc::clone(&self.plugin), connection, holder: None, is_silent: false }))
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request { plugin: Rc::clone(&self.plugin), holder: None }))
    }

    fn get_type(&self) -> Option<ContextType> {
        let counts_requests = self.plugin.get().is_some_and(|plugin| plugin.counts_requests);
        Some(if counts_requests { ContextType::HttpContext } else { ContextType::StreamContext })
    }
}

/// The client's address: the one that the load balancer sends, if PROXY protocol is on, else that of the connection.
fn holder(deployment: Option<&[u8]>) -> Option<Holder> {
    host::property("source\0address").and_then(|address| Holder::of(&address, deployment))
}

/// A connection of a client.
struct Connection {
    plugin: Rc<OnceCell<Plugin>>,
    /// Envoy's number of it.
    connection: u32,
    /// What it counts for.
    holder: Option<Holder>,
    is_silent: bool,
}

impl Context for Connection {}

impl StreamContext for Connection {
    fn on_new_connection(&mut self) -> Action {
        let (Some(plugin), Some(holder)) = (self.plugin.get(), holder(None)) else { return Action::Continue };
        let limit = plugin.config.connections;
        let taken = with_worker(|Worker { clients, silent }| {
            silent.add(self.connection);
            clients.take(&HostData, holder, limit)
        });
        self.is_silent = true;
        if taken == Some(false) {
            plugin.metrics.refused();
            let _ = hostcalls::close_downstream();
            return Action::Pause;
        }
        self.holder = Some(holder);
        Action::Continue
    }

    fn on_downstream_data(&mut self, _: usize, _: bool) -> Action {
        if std::mem::take(&mut self.is_silent) {
            with_worker(|worker| worker.silent.remove(self.connection));
        }
        Action::Continue
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        with_worker(|Worker { clients, silent }| {
            silent.remove(self.connection);
            if let Some(holder) = self.holder {
                clients.give_back(&HostData, holder);
            }
        });
    }
}

/// A request to an agent.
struct Request {
    plugin: Rc<OnceCell<Plugin>>,
    /// What it counts for.
    holder: Option<Holder>,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // A gRPC agent takes many requests on a connection.
        if host::property("xds\0cluster_name").is_none_or(|cluster| !HTTP1_CLUSTERS.contains(&cluster.as_slice())) {
            return Action::Continue;
        }
        // The router's filter has set it, however the client named the agent.
        let deployment = host::request_header(ID_HEADER).unwrap_or_default();
        let (Some(plugin), Some(holder)) = (self.plugin.get(), holder(Some(&deployment))) else {
            return Action::Continue;
        };
        let limit = plugin.config.requests_per_agent;
        if with_worker(|worker| worker.clients.take(&HostData, holder, limit)) == Some(false) {
            return reject(&plugin.metrics);
        }
        self.holder = Some(holder);
        Action::Continue
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(holder) = self.holder {
            with_worker(|worker| worker.clients.give_back(&HostData, holder));
        }
    }
}

fn reject(metrics: &ClientMetrics) -> Action {
    let rejected = Rejected::new(Rejection::Overloaded, Client::Http);
    metrics.rejected(rejected.code);
    host::note_rejection(rejected.code);
    if let Response::Http { status, body } = &rejected.response
        && let Err(status) = hostcalls::send_http_response(u32::from(*status), rejected.headers(), Some(body.as_bytes()))
    {
        log::error!("a rejection could not be sent: {status:?}");
    }
    Action::Pause
}
