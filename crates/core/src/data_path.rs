//! The data path for any host: the decision on a request, and the form of a rejection. A host shows the request and carries out the
//! verdict.

use crate::addressing::{Addressing, Named, Parts};
use crate::claim::{CLAIMS_HEADER, DeploymentsClaim};
use crate::config::RouterConfig;
use crate::decision::{Decision, Ports, Routes, decide, deployment_id};
use crate::deployment_id::DeploymentId;
use crate::fleet::FleetCache;
use crate::hop::{ADDRESSED_HEADER, Failed, Hops, Peers};
use crate::rejection::{Client, Rejection};
use crate::responses::is_card_path;
use crate::responses::way::Note;
use crate::route::StoredRoute;
use crate::routes::RouteCache;
use crate::store::{ChangeSignal, SharedData};
use std::borrow::Cow;
use std::time::Duration;

mod counts;
mod hops;
mod retries;
mod verdict;

pub use counts::{Counters, Event, FirstRejections};
pub use retries::LAST_RETRY_AT_AGENT;
pub use verdict::{Changes, Hop, Rejected, Response, Verdict};

/// A request header, in the forms that hosts look it up by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name, in lower case.
    pub name: String,
    /// The path of Envoy's attribute that holds the header, parts separated by NUL.
    pub attribute: String,
}

impl Header {
    /// The header with this name, in lower case.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), attribute: ["request", "headers", name].join("\0") }
    }
}

/// A request, as its host shows it.
pub trait RequestHost {
    /// The value of a header, all fields of that name joined by commas; `None` if it is absent or empty.
    fn header(&self, header: &Header) -> Option<Cow<'_, [u8]>>;

    /// Whether there is a field of that name, perhaps an empty one. Hosts can tell this at less cost than the value.
    fn has(&self, header: &Header) -> bool;

    /// `:path`, with the query.
    fn path(&self) -> Cow<'_, [u8]>;

    /// `:authority`, with the port.
    fn authority(&self) -> Cow<'_, [u8]>;

    /// `:method`.
    fn method(&self) -> Cow<'_, [u8]>;

    /// Whether the client used `https`, as Envoy tells the agent in `x-forwarded-proto`.
    fn is_https(&self) -> bool;

    /// The port of 127.0.0.1 that the request was given at an earlier attempt; `None` if that is unknown.
    fn bound_port(&self) -> Option<u16>;

    /// How long ago the request arrived.
    fn age(&self) -> Duration;

    /// Whether there is a connection for the request. If so, the agent is not down: it refused the stream.
    fn was_connected(&self) -> bool;

    /// The trail that was left with the request before it first went to a peer, or at the previous attempt; `None` if there is none.
    fn trail(&self) -> Option<Cow<'_, [u8]>>;

    /// Whether a peer has sent the request.
    fn is_from_peer(&self) -> bool;

    /// How many responses of peers to this request had [`crate::hop::MISDIRECTED_HEADER`].
    fn returns(&self) -> u8;

    /// Envoy's response code details; `None` before there are any.
    fn details(&self) -> Option<Cow<'_, [u8]>>;

    /// The time of a monotonic clock, counted from any moment.
    fn now(&self) -> Duration;
}

/// What a worker knows.
#[derive(Debug, Default)]
pub struct Maps {
    /// Its copy of the route map.
    pub routes: RouteCache,
    /// Its copy of the fleet map.
    pub fleet: FleetCache,
    /// The peers that have just failed.
    pub failed: Failed,
}

/// A change signal that was read already.
struct Seen(u64);

impl ChangeSignal for Seen {
    fn read(&self) -> u64 {
        self.0
    }

    fn raise(&self) {}
}

/// The header that agents receive the decided id in.
pub const ID_HEADER: &str = "x-deployment-id";

/// The header that agents receive the removed prefix of the path in.
pub const PREFIX_HEADER: &str = "x-forwarded-prefix";

/// The header that says, after Envoy has converted gRPC-Web to gRPC, that the client speaks gRPC-Web. Clients' own are removed.
const GRPC_WEB_HEADER: &str = "x-pixell-grpc-web";

/// One configuration of the data path.
#[derive(Debug)]
pub struct DataPath {
    id_headers: Vec<Header>,
    decided_id: Header,
    content_type: Header,
    grpc_web: Header,
    attempt: Header,
    addressing: Addressing,
    fallback_port: Option<u16>,
    allowed: Option<Allowed>,
    addressed: Header,
    hops: Option<Hops>,
    judges: Judges,
}

/// The check of what a client's token allows.
#[derive(Debug)]
struct Allowed {
    claim: DeploymentsClaim,
    payload: Header,
    origin: Header,
    preflight: Header,
}

impl Allowed {
    fn by(claim: &DeploymentsClaim) -> Self {
        let [payload, origin, preflight] = [CLAIMS_HEADER, "origin", "access-control-request-method"].map(Header::new);
        Self { claim: claim.clone(), payload, origin, preflight }
    }

    /// Rejects a request that its token does not allow. A request that names no id is rejected elsewhere, for that reason.
    fn check<'a>(&self, request: &impl RequestHost, named: Named<'a>) -> Result<(), Rejection<'a>> {
        let id = match named {
            Named::ByHeader { value } => deployment_id(Some(value)).ok(),
            Named::ByPath { id, .. } | Named::ByHost { id } => DeploymentId::parse(id).ok(),
            Named::Nothing => None,
        };
        let Some(id) = id else { return Ok(()) };
        let payload = request.header(&self.payload);
        let is_preflight = || payload.is_none() && !matches!(named, Named::ByHeader { .. }) && self.is_preflight(request);
        if self.claim.allows(payload.as_deref(), id) || is_preflight() { Ok(()) } else { Err(Rejection::NotAllowed(id)) }
    }

    /// Whether it is a CORS preflight (Fetch standard, 4.8): the only request that Envoy's filter of tokens lets in without one, by a stricter
    /// rule (see the launcher's `jwt.rs`). No header names its agent.
    fn is_preflight(&self, request: &impl RequestHost) -> bool {
        *request.method() == *b"OPTIONS" && [&self.origin, &self.preflight].iter().all(|name| request.header(name).is_some())
    }
}

/// Which attempts a filter of the data path is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judges {
    /// Requests that have no upstream yet: it stands in the listener's filter chain.
    Requests,
    /// Attempts to reach the upstream: it stands in the filter chain of the agents' clusters.
    Attempts,
    /// Requests that peers send: it stands in the filter chain of the listener for them.
    Incoming,
    /// Attempts to reach a peer: it stands in the filter chain of the peers' cluster.
    Hops,
}

impl Judges {
    /// The names of the filters in Envoy's configuration.
    pub const NAMES: [(&str, Self); 4] =
        [("router", Self::Requests), ("retry", Self::Attempts), ("incoming", Self::Incoming), ("hops", Self::Hops)];

    /// The one with this name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, judges)| *judges)
    }
}

impl DataPath {
    /// A data path with these settings.
    #[must_use]
    pub fn new(config: &RouterConfig, judges: Judges) -> Self {
        Self {
            id_headers: config.id_headers.iter().map(|name| Header::new(name)).collect(),
            decided_id: Header::new(ID_HEADER),
            content_type: Header::new("content-type"),
            grpc_web: Header::new(GRPC_WEB_HEADER),
            attempt: Header::new("x-envoy-attempt-count"),
            addressing: config.addressing.clone(),
            fallback_port: config.fallback_port,
            // The task that the client reached has checked what its token allows.
            allowed: config.deployments_claim.as_ref().filter(|_| judges == Judges::Requests).map(Allowed::by),
            addressed: Header::new(ADDRESSED_HEADER),
            hops: config.fleet,
            judges,
        }
    }

    /// Which attempts it is called for.
    #[must_use]
    pub const fn judges(&self) -> Judges {
        self.judges
    }

    /// Makes sure that whatever was published before this call is in the worker's copies; `true` if something had to be fetched.
    pub fn refresh(&self, maps: &mut Maps, data: &impl SharedData, signal: &impl ChangeSignal) -> bool {
        // One call of the host for both.
        let seen = Seen(signal.read());
        let routes = maps.routes.refresh(data, &seen);
        if self.hops.is_some() { maps.fleet.refresh(data, &seen) || routes } else { routes }
    }

    /// What happens to a request, by the maps as they are now.
    pub fn judge(&self, request: &impl RequestHost, maps: &mut Maps) -> Verdict {
        if !maps.failed.is_empty() {
            maps.failed.forget(request.now());
        }
        match self.judges {
            Judges::Requests => self.judge_request(request, &self.routes(maps)),
            Judges::Incoming => self.judge_incoming(request, &maps.routes),
            Judges::Hops => self.judge_hop(request, maps).1,
            Judges::Attempts => self.judge_attempt(request, &self.routes(maps)),
        }
    }

    fn routes<'m>(&self, Maps { routes: map, fleet, failed }: &'m Maps) -> Routes<'m> {
        Routes { map, fallback_port: self.fallback_port, peers: self.hops.map(|_| Peers { map: fleet, failed }) }
    }

    /// The value of the first id header that has one, and whether this header is [`ID_HEADER`].
    fn named<'r>(&self, request: &'r impl RequestHost) -> Option<(Cow<'r, [u8]>, bool)> {
        // A request without an id in a header nearly always has none of these headers. All other requests usually have the first one, so its value
        // is read without a check.
        let mut headers = self.id_headers.iter().enumerate().filter(|(n, header)| *n == 0 || request.has(header));
        headers.find_map(|(_, header)| Some((request.header(header)?, header.name == ID_HEADER)))
    }

    fn judge_request(&self, request: &impl RequestHost, routes: &Routes<'_>) -> Verdict {
        match self.named(request) {
            Some((value, is_id_header)) => self.judge_named(request, value, is_id_header, routes),
            None => self.judge_addressed(request, None, routes),
        }
    }

    /// Judges a request whose agent is named by the path or the host, or not at all. `decided` is the id that a peer has decided on, if one has.
    fn judge_addressed(&self, request: &impl RequestHost, decided: Option<&[u8]>, routes: &Routes<'_>) -> Verdict {
        let (path, authority) = (request.path(), request.authority());
        let named = self.addressing.find(&Parts { header: None, path: &path, authority: &authority });
        if decided.is_some_and(|decided| named.id() != Some(decided)) {
            return self.send_back(request, None);
        }
        match self.decide_if_allowed(request, named, routes) {
            Decision::Reject(Rejection::MissingDeploymentId)
                if path.starts_with(b"/v1/") && self.protocol(request) == Client::Http =>
            {
                self.reject(request, Rejection::NotTheRouteApi, None)
            }
            Decision::Reject(rejection) => {
                let id = match named {
                    Named::ByPath { id, .. } | Named::ByHost { id } => DeploymentId::parse(id).ok(),
                    Named::ByHeader { .. } | Named::Nothing => None,
                };
                self.reject(request, rejection, id)
            }
            Decision::Hop { id, host } => self.hop(host, Some(id), true),
            Decision::Forward { id, ports } => {
                let port = self.port(request, ports);
                let is_card = is_card_path(&path) && *request.method() == *b"GET";
                let route = routes.map.find(id).unwrap_or_else(|| StoredRoute::active(port));
                // In a redirect the scheme only decides which port may be left out, and reading it costs a host call.
                let matters = is_card || authority.ends_with(b":443") || authority.ends_with(b":80");
                let is_https = matters && request.is_https();
                let is_prefix_alone = matches!(named, Named::ByPath { rest, .. } if !rest.starts_with(b"/"));
                let note = Note { port, is_card, is_https, is_prefix_alone, authority: &authority, path: &path, route };
                let changes = Changes::of(named, &note);
                Verdict::Forward { port, id: id.to_vec(), changes: Some(Box::new(changes)) }
            }
        }
    }

    /// Judges a request whose agent is named by a header: [`ID_HEADER`] or another one.
    fn judge_named(
        &self,
        request: &impl RequestHost,
        value: Cow<'_, [u8]>,
        is_id_header: bool,
        routes: &Routes<'_>,
    ) -> Verdict {
        match self.decide_if_allowed(request, Named::ByHeader { value: &value }, routes) {
            Decision::Reject(rejection) if is_id_header => Verdict::Reject(self.rejected(request, rejection)),
            Decision::Reject(rejection) => self.reject(request, rejection, deployment_id(Some(&value)).ok()),
            Decision::Hop { id, host } => self.hop(host, Some(id).filter(|id| !is_id_header || **id != *value), false),
            Decision::Forward { id, ports } => {
                let (port, is_named_so) = (self.port(request, ports), is_id_header && *value == *id);
                if is_named_so {
                    Verdict::Forward { port, id: value.into_owned(), changes: None }
                } else {
                    Verdict::Forward { port, id: id.to_vec(), changes: Some(Box::default()) }
                }
            }
        }
    }

    fn port(&self, request: &impl RequestHost, Ports { grpc, other }: Ports) -> u16 {
        if grpc != other && self.protocol(request) != Client::Http { grpc } else { other }
    }

    /// The decision on a request. If its token does not allow it, it is rejected before the map is read, so that the client learns nothing of
    /// the map.
    fn decide_if_allowed<'a>(&self, request: &impl RequestHost, named: Named<'a>, routes: &Routes<'_>) -> Decision<'a> {
        match self.allowed.as_ref().map_or(Ok(()), |allowed| allowed.check(request, named)) {
            Ok(()) => decide(named, routes),
            Err(rejection) => Decision::Reject(rejection),
        }
    }

    fn protocol(&self, request: &impl RequestHost) -> Client {
        Client::of(&request.header(&self.content_type).unwrap_or_default())
    }

    /// A rejection in the protocol of the request's client.
    #[cold]
    pub fn rejected(&self, request: &impl RequestHost, rejection: Rejection<'_>) -> Rejected {
        let client = match self.protocol(request) {
            Client::Grpc if request.header(&self.grpc_web).is_some() => Client::GrpcWithParameter,
            other => other,
        };
        Rejected::new(rejection, client)
    }

    /// Rejects a request that does not name its agent in [`ID_HEADER`]. `id` is the one that it names otherwise, if any.
    #[cold]
    fn reject(&self, request: &impl RequestHost, rejection: Rejection<'_>, id: Option<DeploymentId<'_>>) -> Verdict {
        let id = id.map_or_else(|| request.header(&self.decided_id).map(|_| Vec::new()), |id| Some(id.as_str().into()));
        Verdict::Reject(Rejected { id, ..self.rejected(request, rejection) })
    }
}

#[cfg(test)]
mod tests;
