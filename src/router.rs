//! The data path: for each request that is forwarded, one header, one read of the signal and two foreign calls; and for a retry, the check
//! whether the request may still go to its port.

use crate::host::{self, HostData, Signal};
use crate::metrics::{Refreshes, RouterMetrics};
use pixell_core::config::RouterConfig;
use pixell_core::data_path::{
    Changes, DataPath, Event, Header, Hop, ID_HEADER, Judges, Maps, Rejected, RequestHost, Response, Verdict,
};
use pixell_core::hop::Direction;
use pixell_core::rejection::{Client, GrpcStatus, Rejection};
use pixell_core::store::{FLEET_MAP, ROUTE_MAP, prepare};
use pixell_core::upstream::{self, Arguments};
use pixell_core::waiting::Waiting;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, GrpcStatusCode, Status};
use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// The cluster that `envoy/envoy.yaml` routes gRPC requests to, and the name of the route that `envoy/fleet/routes.yaml` has for gRPC.
const GRPC: [(&str, &[u8]); 2] = [("xds\0cluster_name", b"agents_http2"), ("xds\0route_name", b"peers_grpc")];

/// The property with this end of the connection to the agent; absent until there is one.
const LOCAL_ADDRESS: &str = "upstream\0local_address";

/// The property with Envoy's response code details.
const DETAILS: &str = "response\0code_details";

/// What the script of `envoy/fleet/cluster.yaml` counts.
const RETURNS_PROPERTY: &str = "metadata\0filter_metadata\0pixell\0returns";

/// How often Envoy calls the plugin of the data path to look for requests that have waited too long.
const TICK: Duration = Duration::from_secs(1);

thread_local! {
    /// What this VM's worker knows; the same for all plugins.
    static WORKER: RefCell<Worker> = RefCell::default();
}

#[derive(Default)]
struct Worker {
    maps: Maps,
    arguments: Arguments,
    refreshes: Refreshes,
    waiting: Waiting,
}

/// A plugin: one configuration of the filter in this VM.
#[derive(Default)]
pub(crate) struct RouterRoot {
    /// Shared with the streams' contexts.
    router: Rc<OnceCell<Router>>,
}

impl Context for RouterRoot {}

impl RootContext for RouterRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        match RouterConfig::parse(&host::plugin_configuration()) {
            Ok(config) => {
                prepare(&HostData, &ROUTE_MAP);
                let judges = match host::property("plugin_root_id") {
                    None => Some(Judges::Requests),
                    Some(name) => Judges::named(&name),
                };
                let Some(judges) = judges else {
                    let names = Judges::NAMES.map(|(name, _)| name).join(", ");
                    log::error!("root_id of the router filter: must be one of {names}, or absent for the first of them");
                    return false;
                };
                if config.fleet.is_some() {
                    prepare(&HostData, &FLEET_MAP);
                }
                // Envoy configures a root context once; another configuration gets another one.
                self.router.get_or_init(|| Router::new(&config, judges));
                if judges == Judges::Requests {
                    self.set_tick_period(TICK);
                }
                true
            }
            Err(error) => {
                log::error!("configuration of the router filter: {error}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(router) = self.router.get() {
            router.end_long_waits();
        }
    }

    fn create_http_context(&self, stream: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(RouterStream { router: Rc::clone(&self.router), stream, at_peer_since: None }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// A stream of a plugin.
struct RouterStream {
    router: Rc<OnceCell<Router>>,
    /// Envoy's number of the stream.
    stream: u32,
    /// When the request was sent to a peer, if it was.
    at_peer_since: Option<Duration>,
}

impl Drop for RouterStream {
    fn drop(&mut self) {
        if let (Some(since), Some(router)) = (self.at_peer_since, self.router.get()) {
            router.end_hop(since);
        }
    }
}

impl Context for RouterStream {}

impl HttpContext for RouterStream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        #[cfg(feature = "test-trap")]
        if host::request_header("x-test-trap").is_some() {
            std::process::abort();
        }
        // Envoy sends no stream to a plugin that was not configured.
        self.router.get().map_or(Action::Pause, |router| router.on_request(self.stream, &mut self.at_peer_since))
    }
}

/// The request that Envoy has called for.
struct CurrentRequest;

impl RequestHost for CurrentRequest {
    fn header(&self, header: &Header) -> Option<Cow<'_, [u8]>> {
        host::property(&header.attribute).map(Cow::Owned)
    }

    fn has(&self, header: &Header) -> bool {
        host::first_value(&header.name).is_some()
    }

    fn path(&self) -> Cow<'_, [u8]> {
        host::first_value(":path").unwrap_or_default().into()
    }

    fn authority(&self) -> Cow<'_, [u8]> {
        host::first_value(":authority").unwrap_or_default().into()
    }

    fn method(&self) -> Cow<'_, [u8]> {
        host::first_value(":method").unwrap_or_default().into()
    }

    fn is_https(&self) -> bool {
        host::first_value("x-forwarded-proto").is_some_and(|scheme| scheme == b"https")
    }

    fn bound_port(&self) -> Option<u16> {
        host::property(upstream::ADDRESS_PROPERTY).as_deref().and_then(upstream::port_of)
    }

    fn age(&self) -> Duration {
        host::request_age()
    }

    fn was_connected(&self) -> bool {
        host::property(LOCAL_ADDRESS).is_some()
    }

    fn trail(&self) -> Option<Cow<'_, [u8]>> {
        host::trail().map(Cow::Owned)
    }

    fn is_from_peer(&self) -> bool {
        host::hop().is_some_and(|hop| hop == Direction::In.name().as_bytes())
    }

    fn returns(&self) -> u8 {
        let count = host::property(RETURNS_PROPERTY).and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        count.unwrap_or_default()
    }

    fn details(&self) -> Option<Cow<'_, [u8]>> {
        host::property(DETAILS).map(Cow::Owned)
    }

    fn now(&self) -> Duration {
        host::now()
    }
}

struct Router {
    data_path: DataPath,
    signal: Signal,
    metrics: RouterMetrics,
}

impl Router {
    fn new(config: &RouterConfig, judges: Judges) -> Self {
        Self { data_path: DataPath::new(config, judges), signal: Signal::open(), metrics: RouterMetrics::define() }
    }

    fn on_request(&self, stream: u32, at_peer_since: &mut Option<Duration>) -> Action {
        WORKER.with(|worker| match worker.try_borrow_mut() {
            Ok(mut worker) => self.judge(&mut worker, stream, at_peer_since),
            // Host calls may enter the guest once more, but only to allocate: nobody else can hold the worker's state.
            Err(_) => self.fail(),
        })
    }

    fn judge(
        &self,
        Worker { maps, arguments, refreshes, waiting }: &mut Worker,
        stream: u32,
        at_peer_since: &mut Option<Duration>,
    ) -> Action {
        if self.data_path.refresh(maps, &HostData, &self.signal) {
            refreshes.count();
        }
        if self.data_path.judges() == Judges::Incoming
            && let Err(status) = host::note_hop(Direction::In)
        {
            log::error!("the hop of a request could not be noted: {status:?}");
        }
        let (event, verdict) = self.data_path.judge_counted(&CurrentRequest, maps);
        if let Some(event) = event {
            self.metrics.count(event);
        }
        match verdict {
            Verdict::Continue => Action::Continue,
            Verdict::Hop(hop) => match set_out(arguments, &hop) {
                Ok(()) => {
                    self.metrics.count(Event::Hopped(Direction::Out));
                    *at_peer_since = Some(CurrentRequest.now());
                    waiting.add(stream);
                    Action::Continue
                }
                Err(status) => {
                    log::error!("a request could not be sent to a peer: {status:?}");
                    self.fail()
                }
            },
            Verdict::Next { address, trail } => {
                match address.map_or(Ok(()), |address| set_upstream(arguments.peer(address))).and(host::leave_trail(&trail)) {
                    Ok(()) => Action::Continue,
                    Err(status) => {
                        log::error!("the next peer could not be set: {status:?}");
                        self.fail()
                    }
                }
            }
            Verdict::Forward { port, id, changes } => {
                if let Some(changes) = changes {
                    change(&id, &changes);
                }
                match set_upstream(arguments.address(port)).and_then(|()| set_upstream(arguments.pool(&id))) {
                    Ok(()) => {
                        waiting.add(stream);
                        Action::Continue
                    }
                    Err(status) => {
                        log::error!("{} failed: {status:?}", upstream::FUNCTION);
                        self.fail()
                    }
                }
            }
            Verdict::Reject(rejected) => self.reject(&rejected),
        }
    }

    /// A request that went to a peer has ended.
    fn end_hop(&self, since: Duration) {
        WORKER.with(|worker| {
            let failure = worker
                .try_borrow_mut()
                .ok()
                .and_then(|mut worker| self.data_path.end_hop(&CurrentRequest, since, &mut worker.maps));
            if failure.is_some() {
                self.metrics.count(Event::PeerFailed);
            }
        });
    }

    /// Rejects the requests that have waited for a connection for as long as they may.
    fn end_long_waits(&self) {
        let streams = WORKER.with(|worker| worker.try_borrow_mut().map(|mut worker| worker.waiting.tick()).unwrap_or_default());
        for stream in streams {
            // An error means that the stream has ended.
            if hostcalls::set_effective_context(stream).is_ok() && waits_for_a_connection() {
                // Outside of a callback of the stream, its headers cannot be read. Every gRPC client understands a response that is written out.
                let grpc = GRPC.iter().any(|(path, name)| host::property(path).is_some_and(|found| found == *name));
                let client = if grpc { Client::GrpcWithParameter } else { Client::Http };
                self.reject(&Rejected::new(Rejection::Overloaded, client));
            }
        }
    }

    fn fail(&self) -> Action {
        self.reject(&self.data_path.rejected(&CurrentRequest, Rejection::Internal))
    }

    fn reject(&self, rejected: &Rejected) -> Action {
        if self.metrics.rejected(rejected) {
            host::note_first();
        }
        host::note_rejection(rejected.code);
        if let Some(id) = &rejected.id {
            host::try_to_set_request_header(ID_HEADER, Some(id));
        }
        let sent = match &rejected.response {
            Response::Grpc { status, message } => {
                let headers = rejected.headers().into_iter().map(|(name, value)| (name, value.as_bytes())).collect();
                hostcalls::send_grpc_response(status_code(*status), Some(message), headers)
            }
            Response::WrittenGrpc { .. } => hostcalls::send_http_response(200, rejected.headers(), None),
            Response::Http { status, body } => {
                hostcalls::send_http_response(u32::from(*status), rejected.headers(), Some(body.as_bytes()))
            }
        };
        if let Err(status) = sent {
            log::error!("a rejection could not be sent: {status:?}");
        }
        Action::Pause
    }
}

fn set_upstream(argument: &[u8]) -> Result<(), Status> {
    hostcalls::call_foreign_function(upstream::FUNCTION, Some(argument)).map(drop)
}

/// Prepares a request for its way to a peer, and has Envoy choose its route again.
fn set_out(arguments: &mut Arguments, hop: &Hop) -> Result<(), Status> {
    for (name, value) in hop.headers() {
        host::set_request_header(name, Some(value))?;
    }
    set_upstream(arguments.peer(hop.address))?;
    host::leave_trail(&hop.trail)?;
    host::note_hop(Direction::Out)?;
    hostcalls::call_foreign_function("clear_route_cache", None).map(drop)
}

fn change(id: &[u8], changes: &Changes) {
    if let Some(note) = &changes.note {
        host::leave_note(note);
    }
    for (name, value) in changes.headers(id) {
        host::try_to_set_request_header(name, value);
    }
}

const fn status_code(status: GrpcStatus) -> GrpcStatusCode {
    match status {
        GrpcStatus::InvalidArgument => GrpcStatusCode::InvalidArgument,
        GrpcStatus::NotFound => GrpcStatusCode::NotFound,
        GrpcStatus::PermissionDenied => GrpcStatusCode::PermissionDenied,
        GrpcStatus::Internal => GrpcStatusCode::Internal,
        GrpcStatus::Unavailable => GrpcStatusCode::Unavailable,
    }
}

/// Whether the stream has neither a connection to its agent nor a response.
fn waits_for_a_connection() -> bool {
    [LOCAL_ADDRESS, "response\0code"].iter().all(|path| host::property(path).is_none())
}
