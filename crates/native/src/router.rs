//! The data path: for each request that is forwarded, one header, one read of the change signal and one call of Envoy; and before each
//! attempt to reach an agent, the check whether the request may go there.

use crate::abi::{ConfigHost, Host, Map};
use crate::abi_types::{Attribute, Status};
use crate::metrics::{Counted, RouterMetrics, new_worker};
use crate::responses::{Awaited, ResponseConfig};
use crate::shared::{DATA, SIGNAL};
use crate::waits::{self, Call, Place};
use crate::{fault, host};
use pixell_core::config::RouterConfig;
use pixell_core::data_path::{DataPath, Event, Hop, ID_HEADER, Judges, Maps, Rejected, RequestHost, Verdict};
use pixell_core::hop::Direction;
use pixell_core::rejection::Rejection;
use pixell_core::store::{FLEET_MAP, ROUTE_MAP, prepare};
use pixell_core::upstream::{self, Address};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

thread_local! {
    /// This worker's copies of the maps; the same for all configurations.
    static MAPS: RefCell<Maps> = RefCell::default();
    /// What else this worker has, from its first request on.
    static WORKER: OnceCell<Worker> = const { OnceCell::new() };
    /// The counts that the filter before the agents' clusters leaves. Envoy would put its metrics among those of the cluster, so the filter of
    /// the listener counts for it, before the same response reaches the client.
    static OWED: RefCell<Vec<Counted>> = const { RefCell::new(Vec::new()) };
}

struct Worker {
    /// Its label in metrics.
    label: Rc<str>,
    waits: waits::Worker,
}

impl Worker {
    fn new() -> Self {
        Self { label: new_worker(), waits: waits::Worker::new() }
    }
}

/// A request that has no connection after this time is in a queue, because a connection to a port of this machine succeeds or fails much faster.
/// Requests whose connection is being made go on, as if the map had changed a moment later.
const QUEUED: Duration = Duration::from_millis(100);

/// A configuration of the data path.
#[derive(Debug)]
pub(crate) struct Router {
    data_path: DataPath,
    /// None of its own, if it stands before a cluster.
    metrics: Option<RouterMetrics>,
    /// What is done to responses; nothing, if it stands before a cluster.
    responses: Option<ResponseConfig>,
}

/// What a stream keeps until it ends.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The port that it was given.
    port: Option<u16>,
    /// When it was sent to a peer, if it was.
    at_peer_since: Option<Duration>,
    /// Its place in the list of those that may be waiting.
    place: Option<Place>,
    /// The part of its response that has not arrived yet, if the path or the host names the agent.
    awaited: Option<Awaited>,
}

impl Router {
    pub(crate) fn new(envoy: &ConfigHost, config: &[u8], judges: Judges) -> Result<Self, String> {
        let config = RouterConfig::parse(config).map_err(|error| format!("configuration of the router filter: {error}"))?;
        prepare(&*DATA, &ROUTE_MAP);
        if config.fleet.is_some() {
            prepare(&*DATA, &FLEET_MAP);
        }
        let has_listener = matches!(judges, Judges::Requests | Judges::Incoming);
        if has_listener && !crate::abi::only_validates() {
            waits::start_clock();
        }
        let metrics = has_listener.then(|| RouterMetrics::define(envoy));
        let responses = has_listener.then(|| ResponseConfig::new(envoy, &config));
        Ok(Self { data_path: DataPath::new(&config, judges), metrics, responses })
    }

    /// Its `filter_name`.
    pub(crate) fn name(&self) -> &'static str {
        let judges = self.data_path.judges();
        Judges::NAMES.iter().find(|(_, named)| *named == judges).map_or("", |(name, _)| name)
    }

    /// A request, or an attempt.
    pub(crate) fn on_request(&self, envoy: &mut Host<'_>, kept: &mut Kept) -> Status {
        if self.data_path.judges() == Judges::Incoming && !host::note_hop(envoy, Direction::In) {
            host::error("the hop of a request could not be noted");
        }
        match self.judge(envoy) {
            Verdict::Continue => Status::Continue,
            Verdict::Hop(hop) => {
                if !set_out(envoy, &hop) {
                    host::error("a request could not be sent to a peer");
                    return self.reject(envoy, &self.data_path.rejected(envoy, Rejection::Internal));
                }
                self.count(envoy, Counted::Event(Event::Hopped(Direction::Out)));
                kept.at_peer_since = Some(envoy.now());
                self.wait(envoy, kept);
                Status::Continue
            }
            Verdict::Next { address, trail } => {
                let is_set =
                    address.is_none_or(|address| envoy.set_typed_state(upstream::ADDRESS, address.to_string().as_bytes()));
                if is_set && host::leave_trail(envoy, &trail) {
                    return Status::Continue;
                }
                host::error("the next peer could not be set");
                self.reject(envoy, &self.data_path.rejected(envoy, Rejection::Internal))
            }
            Verdict::Forward { port, id, changes } => {
                if let Some(changes) = changes {
                    for (name, value) in changes.headers(&id) {
                        set_header(envoy, name, value);
                    }
                    // Responses of gRPC stay as they are.
                    kept.awaited = changes.note.filter(|_| !host::is_grpc(envoy)).map(Awaited::Head);
                }
                if !envoy.set_typed_state(upstream::ADDRESS, Address::of(port).as_bytes())
                    || !envoy.set_typed_state(upstream::POOL, &upstream::pool(&id))
                {
                    host::error("the upstream could not be set");
                    return self.reject(envoy, &self.data_path.rejected(envoy, Rejection::Internal));
                }
                kept.port = Some(port);
                self.wait(envoy, kept);
                Status::Continue
            }
            Verdict::Reject(rejected) => self.reject(envoy, &rejected),
        }
    }

    /// Puts the stream in the list of those that may be waiting for a connection.
    fn wait(&self, envoy: &mut Host<'_>, kept: &mut Kept) {
        host::note_arrival(envoy);
        if let Some(scheduler) = envoy.scheduler() {
            kept.place = Some(WORKER.with(|worker| worker.get_or_init(Worker::new).waits.add(scheduler)));
        }
    }

    fn judge(&self, envoy: &Host<'_>) -> Verdict {
        self.with_maps(envoy, |maps| {
            let (event, verdict) = self.data_path.judge_counted(envoy, maps);
            if let Some(event) = event {
                self.count(envoy, Counted::Event(event));
            }
            verdict
        })
    }

    /// What `judge` says by the present maps.
    fn with_maps(&self, envoy: &Host<'_>, judge: impl FnOnce(&mut Maps) -> Verdict) -> Verdict {
        MAPS.with(|maps| match maps.try_borrow_mut() {
            Ok(mut maps) => {
                if self.data_path.refresh(&mut maps, &*DATA, &*SIGNAL) {
                    let worker = WORKER.with(|worker| Rc::clone(&worker.get_or_init(Worker::new).label));
                    self.count(envoy, Counted::Refreshed(worker));
                }
                fault::point(|| "maps", "judge");
                judge(&mut maps)
            }
            // Nothing that is called while the maps are borrowed comes back here.
            Err(_) => Verdict::Reject(self.data_path.rejected(envoy, Rejection::Internal)),
        })
    }

    /// A request that went to a peer has ended.
    pub(crate) fn end_hop(&self, envoy: &Host<'_>, kept: &Kept) {
        let Some(since) = kept.at_peer_since else { return };
        // Nothing that is called while the maps are borrowed comes back here.
        let failure = MAPS.with(|maps| self.data_path.end_hop(envoy, since, &mut *maps.try_borrow_mut().ok()?));
        if failure.is_some() {
            self.count(envoy, Counted::Event(Event::PeerFailed));
        }
    }

    /// Rejects a request that has waited for a connection for as long as it may, or whose port the map no longer gives to its deployment.
    pub(crate) fn on_scheduled(&self, envoy: &mut Host<'_>, kept: &Kept, call: Call) {
        if envoy.text(Attribute::UpstreamLocalAddress).is_some() || envoy.number(Attribute::ResponseCode).is_some() {
            return;
        }
        let verdict = match (call, kept.port) {
            (Call::Due, _) => Verdict::Reject(self.data_path.rejected(envoy, Rejection::Overloaded)),
            (Call::Changed, Some(port)) if envoy.age() >= QUEUED => {
                self.with_maps(envoy, |maps| self.data_path.judge_waiting(envoy, port, maps))
            }
            (Call::Changed, _) => return,
        };
        if let Verdict::Reject(rejected) = verdict {
            self.reject(envoy, &rejected);
        }
    }

    /// A hook has panicked.
    pub(crate) fn panicked(&self, envoy: &Host<'_>) {
        // A copy may have been left half-way between two maps.
        MAPS.with(|maps| maps.try_borrow_mut().map(|mut maps| *maps = Maps::default())).unwrap_or_default();
        self.count(envoy, Counted::Panicked);
    }

    /// Responds that the filter has failed.
    pub(crate) fn fail(&self, envoy: &mut Host<'_>) {
        self.reject(envoy, &self.data_path.rejected(envoy, Rejection::Internal));
    }

    /// The head of a response is on its way.
    pub(crate) fn on_response(&self, envoy: &mut Host<'_>, kept: &mut Kept) {
        match self.data_path.judges() {
            Judges::Hops => host::note_return(envoy),
            Judges::Attempts => host::remove_forged(envoy, Map::Response),
            Judges::Requests | Judges::Incoming => {}
        }
        if let (Some(responses), Some(Awaited::Head(note))) = (&self.responses, kept.awaited.take()) {
            kept.awaited = responses.on_head(&note, envoy);
        }
        if let Some(metrics) = &self.metrics {
            for counted in OWED.with(RefCell::take) {
                metrics.count(envoy, &counted);
            }
        }
    }

    /// A part of a response's body.
    pub(crate) fn on_response_body(&self, envoy: &mut Host<'_>, kept: &mut Kept, ends: bool) {
        if let (Some(responses), Some(Awaited::Card(card))) = (&self.responses, &mut kept.awaited) {
            responses.on_body(card, envoy, ends);
        }
    }

    /// The trailers of a response.
    pub(crate) fn on_response_trailers(&self, envoy: &mut Host<'_>, kept: &mut Kept) {
        if self.data_path.judges() == Judges::Attempts {
            host::remove_forged(envoy, Map::ResponseTrailers);
        }
        if let (Some(responses), Some(Awaited::Card(card))) = (&self.responses, &mut kept.awaited) {
            responses.on_trailers(card, envoy);
        }
    }

    fn count(&self, envoy: &Host<'_>, counted: Counted) {
        match &self.metrics {
            Some(metrics) => metrics.count(envoy, &counted),
            None => OWED.with_borrow_mut(|owed| owed.push(counted)),
        }
    }

    fn reject(&self, envoy: &mut Host<'_>, rejected: &Rejected) -> Status {
        self.count(envoy, Counted::Event(rejected.event()));
        if let Some(id) = &rejected.id {
            set_header(envoy, ID_HEADER, Some(id));
        }
        host::reject(envoy, rejected);
        Status::Stop
    }
}

/// Prepares a request for its way to a peer, and has Envoy choose its route again; `false` if Envoy does not.
fn set_out(envoy: &mut Host<'_>, hop: &Hop) -> bool {
    let is_set = hop.headers().all(|(name, value)| envoy.set_header(name, value))
        && envoy.set_typed_state(upstream::ADDRESS, hop.address.to_string().as_bytes())
        && host::leave_trail(envoy, &hop.trail)
        && host::note_hop(envoy, Direction::Out);
    envoy.choose_route_again();
    is_set
}

/// Sets a request header, or removes it.
fn set_header(envoy: &mut Host<'_>, name: &str, value: Option<&[u8]>) {
    let is_set = match value {
        Some(value) => envoy.set_header(name, value),
        None => envoy.remove_from(Map::Request, name.as_bytes()),
    };
    if !is_set {
        host::error(&format!("the request header {name} could not be set"));
    }
}
