//! The data path: one header read, one signal read and one foreign call for each request that is forwarded; and, where one is sent
//! again, the question whether it still may go where it was sent before.
//!
//! The router keeps nothing about a stream, so all streams of a plugin share one context: the build makes the module so
//! (`modules/trim`), and nothing is created and freed for a stream.

use super::host::{self, HostData, Signal};
use super::metrics::{Refreshes, RouterMetrics};
use crate::config::RouterConfig;
use crate::decision::{Decision, decide, decide_again};
use crate::problem::CONTENT_TYPE;
use crate::rejection::{ERROR_HEADER, GrpcStatus, Rejection, is_grpc};
use crate::store::{RouteCache, prepare};
use crate::upstream::{self, Argument};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, GrpcStatusCode};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

/// The `root_id` of the plugin that stands before the agents' clusters. Envoy calls it where a request is sent to its agent again,
/// which may be seconds after the first time and after changes of the map.
const AGAIN: &[u8] = b"retry";

thread_local! {
    /// What this VM's worker knows of the map; the same for all plugins.
    static WORKER: RefCell<Worker> = RefCell::default();
}

#[derive(Default)]
struct Worker {
    cache: RouteCache,
    argument: Argument,
    refreshes: Refreshes,
}

/// A plugin: one configuration of the filter in this VM.
#[derive(Default)]
pub(super) struct RouterRoot {
    /// Shared with the streams' context, which is created before the configuration is there.
    router: Rc<OnceCell<Router>>,
}

impl Context for RouterRoot {}

impl RootContext for RouterRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        match RouterConfig::parse(&host::plugin_configuration()) {
            Ok(config) => {
                prepare(&HostData);
                let again = match host::property("plugin_root_id") {
                    None => false,
                    Some(name) if name == AGAIN => true,
                    Some(_) => {
                        log::error!(
                            "root_id of the router filter: must be \"retry\" before an agents' cluster, and absent elsewhere"
                        );
                        return false;
                    }
                };
                // Envoy configures a root context once; another configuration gets another one.
                self.router.get_or_init(|| Router::new(&config, again));
                true
            }
            Err(error) => {
                log::error!("configuration of the router filter: {error}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(RouterStream { router: Rc::clone(&self.router) }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// Any stream of a plugin.
struct RouterStream {
    router: Rc<OnceCell<Router>>,
}

impl Context for RouterStream {}

impl HttpContext for RouterStream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // Envoy sends no stream to a plugin that was not configured.
        let Some(router) = self.router.get() else { return respond(Rejection::Internal) };
        #[cfg(feature = "test-trap")]
        if host::request_header("x-test-trap").is_some() {
            std::process::abort();
        }
        let header = router.id_headers.iter().find_map(|path| host::property(path));
        router.decide(header.as_deref())
    }
}

struct Router {
    /// The property paths of the headers that may carry the id.
    id_headers: Vec<String>,
    fallback_port: Option<u16>,
    /// Whether it judges requests that were sent before.
    again: bool,
    signal: Signal,
    metrics: RouterMetrics,
}

impl Router {
    fn new(config: &RouterConfig, again: bool) -> Self {
        Self {
            id_headers: config.id_headers.iter().map(|name| host::header_path(name)).collect(),
            fallback_port: config.fallback_port,
            again,
            signal: Signal::open(),
            metrics: RouterMetrics::define(),
        }
    }

    fn decide(&self, header: Option<&[u8]>) -> Action {
        WORKER.with(|worker| match worker.try_borrow_mut() {
            Ok(mut worker) => self.decide_by(&mut worker, header),
            // Host calls may enter the guest again, but only to allocate: nobody else can hold the worker's state.
            Err(_) => self.reject(Rejection::Internal),
        })
    }

    fn decide_by(&self, Worker { cache, argument, refreshes }: &mut Worker, header: Option<&[u8]>) -> Action {
        if cache.refresh(&HostData, &self.signal) {
            refreshes.count();
        }
        if self.again {
            return self.decide_again_by(cache, header);
        }
        match decide(header, |id| cache.find(id), cache.is_loaded(), self.fallback_port) {
            Decision::Forward { port } => {
                match hostcalls::call_foreign_function(upstream::FUNCTION, Some(argument.for_port(port))) {
                    Ok(_) => Action::Continue,
                    Err(status) => {
                        log::error!("{} failed: {status:?}", upstream::FUNCTION);
                        self.reject(Rejection::Internal)
                    }
                }
            }
            Decision::Reject(rejection) => self.reject(rejection),
        }
    }

    #[cold]
    fn decide_again_by(&self, cache: &RouteCache, header: Option<&[u8]>) -> Action {
        let bound = host::property(upstream::ADDRESS_PROPERTY).as_deref().and_then(upstream::port_of);
        match decide_again(header, bound, |id| cache.find(id), self.fallback_port) {
            Ok(()) => Action::Continue,
            Err(rejection) => self.reject(rejection),
        }
    }

    fn reject(&self, rejection: Rejection<'_>) -> Action {
        self.metrics.rejected(rejection.code());
        host::note_rejection(rejection.code());
        respond(rejection)
    }
}

fn respond(rejection: Rejection<'_>) -> Action {
    let content_type = host::request_header("content-type").unwrap_or_default();
    let sent = if is_grpc(&content_type) {
        let status = match rejection.grpc_status() {
            GrpcStatus::InvalidArgument => GrpcStatusCode::InvalidArgument,
            GrpcStatus::NotFound => GrpcStatusCode::NotFound,
            GrpcStatus::Internal => GrpcStatusCode::Internal,
            GrpcStatus::Unavailable => GrpcStatusCode::Unavailable,
        };
        let metadata = vec![(ERROR_HEADER, rejection.code().as_bytes())];
        hostcalls::send_grpc_response(status, Some(&rejection.message()), metadata)
    } else {
        let headers = vec![("content-type", CONTENT_TYPE), (ERROR_HEADER, rejection.code())];
        let body = rejection.problem().to_json();
        hostcalls::send_http_response(u32::from(rejection.http_status()), headers, Some(body.as_bytes()))
    };
    if let Err(status) = sent {
        log::error!("a rejection could not be sent: {status:?}");
    }
    Action::Pause
}
