//! The data path: one header read, one signal read and one foreign call for each request that is forwarded.

use super::host::{self, HostData, Signal};
use super::metrics::RouterMetrics;
use crate::config::RouterConfig;
use crate::decision::{Decision, decide, deployment_id};
use crate::problem::CONTENT_TYPE;
use crate::rejection::{ERROR_HEADER, GrpcStatus, Rejection, is_grpc};
use crate::store::{RouteCache, prepare};
use crate::upstream::{self, Argument};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, GrpcStatusCode};
use std::cell::RefCell;
use std::rc::Rc;

/// One worker's router.
#[derive(Default)]
pub(super) struct RouterRoot {
    router: Option<Rc<Router>>,
}

impl Context for RouterRoot {}

impl RootContext for RouterRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        match RouterConfig::parse(&host::plugin_configuration()) {
            Ok(config) => {
                prepare(&HostData);
                self.router = Some(Rc::new(Router {
                    config,
                    signal: Signal::open(),
                    metrics: RouterMetrics::define(),
                    worker: RefCell::default(),
                }));
                true
            }
            Err(error) => {
                log::error!("configuration of the router filter: {error}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(RouterStream { router: self.router.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Router {
    config: RouterConfig,
    signal: Signal,
    metrics: RouterMetrics,
    worker: RefCell<Worker>,
}

#[derive(Default)]
struct Worker {
    cache: RouteCache,
    argument: Argument,
}

struct RouterStream {
    router: Option<Rc<Router>>,
}

impl Context for RouterStream {}

impl HttpContext for RouterStream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // Envoy creates no stream on a VM that was not configured.
        let Some(router) = &self.router else { return respond(Rejection::Internal) };
        #[cfg(feature = "test-trap")]
        if host::request_header("x-test-trap").is_some() {
            std::process::abort();
        }
        let header = router.config.id_headers.iter().find_map(|name| host::request_header(name));
        match deployment_id(header.as_deref()) {
            Ok(id) => router.decide(id),
            Err(rejection) => router.reject(rejection),
        }
    }
}

impl Router {
    fn decide(&self, id: crate::deployment_id::DeploymentId<'_>) -> Action {
        // Host calls may enter the guest again, but only to allocate: nobody else can hold the worker's state.
        let Ok(mut worker) = self.worker.try_borrow_mut() else { return self.reject(Rejection::Internal) };
        let Worker { cache, argument } = &mut *worker;
        if cache.refresh(&HostData, &self.signal) {
            self.metrics.refreshed();
        }
        match decide(id, cache.find(id), cache.is_loaded(), self.config.fallback_port) {
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
