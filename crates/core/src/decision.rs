//! The decision on one request: what it names and the route map to forward or reject.

use crate::addressing::{Named, Wanted};
use crate::deployment_id::DeploymentId;
use crate::endpoint::EndpointName;
use crate::hop::{Choice, Peers};
use crate::rejection::Rejection;
use crate::route::{RouteState, StoredRoute};
use crate::routes::RouteCache;
use std::net::IpAddr;

/// What requests can be sent to.
#[derive(Clone, Copy, Debug)]
pub struct Routes<'m> {
    /// The route map.
    pub map: &'m RouteCache,
    /// Port of 127.0.0.1 for ids that the map does not hold, also before the first map.
    pub fallback_port: Option<u16>,
    /// The tasks that serve other ids; `None` without a fleet, and for requests that one of them sent.
    pub peers: Option<Peers<'m>>,
}

impl Routes<'_> {
    /// Whether every map that there may be has been pushed.
    const fn are_loaded(&self) -> bool {
        match self.peers {
            Some(Peers { map, .. }) if !map.is_loaded() => false,
            _ => self.map.is_loaded(),
        }
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It goes to an agent.
    Forward {
        /// The id of the agent: a valid one.
        id: &'a [u8],
        /// Where.
        ports: Ports,
    },
    /// It goes to a peer, which decides by its own route map.
    Hop {
        /// The id of the agent: a valid one.
        id: &'a [u8],
        /// The peer's address.
        host: IpAddr,
    },
    /// The filter responds.
    Reject(Rejection<'a>),
}

/// The endpoint that a request goes to, as a TCP port of 127.0.0.1. If the client's protocol decides, there are two ports, so that the
/// protocol is only read if it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// For gRPC.
    pub grpc: u16,
    /// For everything else.
    pub other: u16,
}

impl Ports {
    const fn one(port: u16) -> Self {
        Self { grpc: port, other: port }
    }
}

/// Reads the id out of the header's value. Several equal ids are one id: they cannot mislead anybody.
///
/// # Errors
/// [`Rejection::MissingDeploymentId`] and [`Rejection::InvalidDeploymentId`].
pub fn deployment_id(header: Option<&[u8]>) -> Result<DeploymentId<'_>, Rejection<'static>> {
    let value = header.unwrap_or_default();
    if value.trim_ascii().is_empty() {
        return Err(Rejection::MissingDeploymentId);
    }
    if let Ok(id) = DeploymentId::parse(value) {
        return Ok(id);
    }
    let mut ids = value.split(|byte| *byte == b',').map(|field| DeploymentId::parse(field.trim_ascii()));
    let Some(Ok(first)) = ids.next() else { return Err(Rejection::InvalidDeploymentId) };
    if ids.all(|id| id == Ok(first)) { Ok(first) } else { Err(Rejection::InvalidDeploymentId) }
}

/// Decides on a request that names `named`, by the present routes.
#[must_use]
pub fn decide<'a>(named: Named<'a>, routes: &Routes<'_>) -> Decision<'a> {
    // The map contains only valid ids, so bytes that are found in it are a valid id, and most requests need no check of each byte.
    if let Named::ByHeader { value } = named
        && let Some(route @ StoredRoute { state: RouteState::Active, .. }) = routes.map.find(value)
    {
        return Decision::Forward { id: value, ports: default_ports(&route) };
    }
    let (id, wanted) = match named {
        Named::Nothing => return Decision::Reject(Rejection::MissingDeploymentId),
        Named::ByHeader { value } => (deployment_id(Some(value)), Wanted::Default),
        Named::ByHost { id } => (DeploymentId::parse(id).map_err(|_| Rejection::InvalidDeploymentId), Wanted::Default),
        Named::ByPath { id, wanted, .. } => (DeploymentId::parse(id).map_err(|_| Rejection::InvalidDeploymentId), wanted),
    };
    let id = match id {
        Ok(id) => id,
        Err(rejection) => return Decision::Reject(rejection),
    };
    match routes.map.find(id.as_str().as_bytes()) {
        Some(route @ StoredRoute { state: RouteState::Active, .. }) => match wanted_ports(&route, wanted) {
            Some(ports) => Decision::Forward { id: id.as_str().as_bytes(), ports },
            None => Decision::Reject(Rejection::UnknownEndpoint(id)),
        },
        Some(StoredRoute { state: RouteState::Draining, .. }) => elsewhere(id, true, routes),
        None => elsewhere(id, false, routes),
    }
}

/// Decides on a request to an id that has no active route here.
fn elsewhere<'a>(id: DeploymentId<'a>, is_draining_here: bool, routes: &Routes<'_>) -> Decision<'a> {
    let bytes = id.as_str().as_bytes();
    let choice = routes.peers.map_or(Choice::Nothing, |peers| peers.choose(bytes, &[]));
    match (choice, routes.fallback_port) {
        (Choice::Host(host), _) => Decision::Hop { id: bytes, host },
        (Choice::Draining, _) => Decision::Reject(Rejection::DeploymentDraining(id)),
        _ if is_draining_here => Decision::Reject(Rejection::DeploymentDraining(id)),
        (Choice::Failed, _) => Decision::Reject(Rejection::PeerUnreachable),
        (Choice::Nothing, Some(port)) => Decision::Forward { id: bytes, ports: Ports::one(port) },
        (Choice::Nothing, None) if routes.are_loaded() => Decision::Reject(Rejection::UnknownDeployment(id)),
        (Choice::Nothing, None) => Decision::Reject(Rejection::RouteMapNotLoaded),
    }
}

/// The ports of the wanted endpoint; `None` if the route has none of that name.
pub(crate) fn wanted_ports(route: &StoredRoute<'_>, wanted: Wanted<'_>) -> Option<Ports> {
    match wanted {
        Wanted::Exactly(name) => route.endpoint(EndpointName::parse(name).ok()?).map(Ports::one),
        Wanted::FirstOf(names) => names.iter().find_map(|name| route.endpoint(*name)).map(Ports::one),
        Wanted::Default => Some(default_ports(route)),
    }
}

/// `a2a` for gRPC; otherwise `rest` if the route has it, else `a2a`.
fn default_ports(route: &StoredRoute<'_>) -> Ports {
    if route.has_one_endpoint() {
        return Ports::one(route.port);
    }
    Ports { grpc: route.port, other: route.endpoint(EndpointName::REST).unwrap_or(route.port) }
}

/// Decides whether a request that was given the port `bound`, and has not reached it, may go there by the present routes. A draining id
/// still leads to its ports, because the request is older than the draining.
///
/// # Errors
/// The rejection, if it may not.
pub fn decide_attempt<'a>(id: Option<&'a [u8]>, bound: Option<u16>, routes: &Routes<'_>) -> Result<(), Rejection<'a>> {
    let id = deployment_id(id)?;
    let stays = match (routes.map.find(id.as_str().as_bytes()), routes.fallback_port) {
        (Some(route), _) => route.ports().any(|port| Some(port) == bound),
        (None, Some(port)) => Some(port) == bound,
        (None, None) => {
            let peers = routes.peers.map_or(Choice::Nothing, |peers| peers.choose(id.as_str().as_bytes(), &[]));
            let is_elsewhere = peers != Choice::Nothing;
            return Err(if is_elsewhere { Rejection::DeploymentMoved } else { Rejection::UnknownDeployment(id) });
        }
    };
    if stays { Ok(()) } else { Err(Rejection::DeploymentMoved) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::tests::{at, draining};
    use crate::hop::Failed;
    use crate::hop::tests::fleet;
    use crate::route::Route;
    use crate::routes::tests::map_of;
    use crate::store::memory::MemorySignal;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn reads_one_id_out_of_the_header() {
        #[track_caller]
        fn check(header: Option<&[u8]>, expected: Result<&str, Rejection<'static>>) {
            assert_eq!(deployment_id(header).map(DeploymentId::as_str), expected);
        }
        check(None, Err(Rejection::MissingDeploymentId));
        check(Some(b""), Err(Rejection::MissingDeploymentId));
        check(Some(b" \t "), Err(Rejection::MissingDeploymentId));
        check(Some(b"a"), Ok("a"));
        check(Some(b" a "), Ok("a"));
        check(Some(b"a,a"), Ok("a"));
        check(Some(b"a, a ,a"), Ok("a"));
        check(Some(b"a,b"), Err(Rejection::InvalidDeploymentId));
        check(Some(b"a,"), Err(Rejection::InvalidDeploymentId));
        check(Some(b","), Err(Rejection::InvalidDeploymentId));
        check(Some(b"\xff"), Err(Rejection::InvalidDeploymentId));
        check(Some(b"a\0"), Err(Rejection::InvalidDeploymentId));
        check(Some(&[b'x'; 8192]), Err(Rejection::InvalidDeploymentId));
        check(Some("ä".as_bytes()), Err(Rejection::InvalidDeploymentId));
    }

    /// A map of these routes; without routes, none is loaded.
    fn map(routes: Option<&[(&str, Route)]>) -> RouteCache {
        let mut map = RouteCache::default();
        map.refresh(&routes.map(map_of).unwrap_or_default(), &MemorySignal::default());
        map
    }

    fn id(text: &str) -> DeploymentId<'_> {
        DeploymentId::parse(text.as_bytes()).expect("valid")
    }

    fn by_path<'a>(id: &'a [u8], wanted: Wanted<'a>) -> Named<'a> {
        Named::ByPath { id, wanted, prefix: b"", rest: b"", strip: true }
    }

    #[test]
    fn decides_by_the_route() {
        #[track_caller]
        fn check(routes: Option<&[(&str, Route)]>, fallback_port: Option<u16>, expected: Decision<'static>) {
            let map = map(routes);
            let decide = |named| decide(named, &Routes { map: &map, fallback_port, peers: None });
            for value in [&b"a"[..], b" a", b"a,a"] {
                assert_eq!(decide(Named::ByHeader { value }), expected, "{routes:?} {fallback_port:?}");
            }
            assert_eq!(decide(Named::ByHost { id: b"a" }), expected);
            assert_eq!(decide(by_path(b"a", Wanted::Default)), expected);
            assert_eq!(decide(by_path(b"a", Wanted::Exactly(b"a2a"))), expected);
            assert_eq!(decide(Named::Nothing), Decision::Reject(Rejection::MissingDeploymentId));
            assert_eq!(decide(Named::ByHeader { value: b" " }), Decision::Reject(Rejection::MissingDeploymentId));
            for invalid in [Named::ByHeader { value: b"a,b" }, Named::ByHost { id: b"a b" }, by_path(b"", Wanted::Default)] {
                assert_eq!(decide(invalid), Decision::Reject(Rejection::InvalidDeploymentId));
            }
        }
        let (up, down) = ([("a", Route::active(1024))], [("a", Route::draining(1025))]);
        let other = [("b", Route::active(1026))];
        let forward = |port| Decision::Forward { id: b"a", ports: Ports::one(port) };
        check(Some(&up), None, forward(1024));
        check(Some(&up), Some(9), forward(1024));
        check(Some(&down), None, Decision::Reject(Rejection::DeploymentDraining(id("a"))));
        check(Some(&down), Some(9), Decision::Reject(Rejection::DeploymentDraining(id("a"))));
        check(Some(&other), None, Decision::Reject(Rejection::UnknownDeployment(id("a"))));
        check(Some(&other), Some(9), forward(9));
        check(Some(&[]), None, Decision::Reject(Rejection::UnknownDeployment(id("a"))));
        check(None, None, Decision::Reject(Rejection::RouteMapNotLoaded));
        check(None, Some(9), forward(9));
    }

    #[test]
    fn decides_by_the_endpoint() {
        use EndpointName as E;
        let with = |endpoints: &[(E, u16)]| Route { endpoints: endpoints.iter().copied().collect(), ..Route::active(1) };
        let all = with(&[(E::REST, 2), (E::UI, 3)]);
        #[track_caller]
        fn check(route: &Route, named: Named<'_>, expected: Option<Ports>) {
            let map = map(Some(&[("a", route.clone())]));
            let expected = match expected {
                Some(ports) => Decision::Forward { id: b"a", ports },
                None => Decision::Reject(Rejection::UnknownEndpoint(id("a"))),
            };
            assert_eq!(decide(named, &Routes { map: &map, fallback_port: Some(9), peers: None }), expected, "{named:?}");
        }
        let one = |port| Some(Ports::one(port));
        for named in [Named::ByHeader { value: b"a" }, Named::ByHost { id: b"a" }, by_path(b"a", Wanted::Default)] {
            check(&all, named, Some(Ports { grpc: 1, other: 2 }));
            check(&with(&[(E::UI, 3)]), named, one(1));
        }
        for (name, ports) in
            [(&b"a2a"[..], one(1)), (b"rest", one(2)), (b"ui", one(3)), (b"x", None), (b"", None), (b"UI", None)]
        {
            check(&all, by_path(b"a", Wanted::Exactly(name)), ports);
        }
        check(&all, by_path(b"a", Wanted::FirstOf(&[E::UI, E::REST, E::A2A])), one(3));
        check(&with(&[]), by_path(b"a", Wanted::FirstOf(&[E::UI, E::REST, E::A2A])), one(1));
        check(&with(&[]), by_path(b"a", Wanted::FirstOf(&[E::UI])), None);
    }

    #[test]
    fn decides_on_attempts_by_the_port() {
        #[track_caller]
        fn check(route: Option<Route>, fallback_port: Option<u16>, expected: Result<(), Rejection<'static>>) {
            let routes: Vec<_> = route.iter().map(|route| ("a", route.clone())).collect();
            let map = map(Some(&routes));
            let routes = Routes { map: &map, fallback_port, peers: None };
            for header in [&b"a"[..], b" a", b"a,a"] {
                assert_eq!(decide_attempt(Some(header), Some(1024), &routes), expected, "{route:?} {fallback_port:?}");
            }
            // If the request's port is unknown, the request is rejected.
            assert!(decide_attempt(Some(b"a"), None, &routes).is_err());
            assert_eq!(decide_attempt(None, Some(1024), &routes), Err(Rejection::MissingDeploymentId));
        }
        let endpoints = [(EndpointName::REST, 1024)].into();
        check(Some(Route::active(1024)), None, Ok(()));
        check(Some(Route { endpoints, ..Route::active(1025) }), None, Ok(()));
        check(Some(Route::draining(1024)), None, Ok(()));
        check(Some(Route::active(1025)), None, Err(Rejection::DeploymentMoved));
        check(Some(Route::draining(1025)), Some(1024), Err(Rejection::DeploymentMoved));
        check(None, None, Err(Rejection::UnknownDeployment(id("a"))));
        // The deployment has moved to another task. It is not unknown even if that task drains it.
        let (none, failed) = (map(Some(&[])), Failed::default());
        for peer in [at(1), draining(1)] {
            let fleet = fleet(&[("p", peer)], &[("a", &["p"])]);
            let routes = Routes { map: &none, fallback_port: None, peers: Some(Peers { map: &fleet, failed: &failed }) };
            assert_eq!(decide_attempt(Some(b"a"), Some(1024), &routes), Err(Rejection::DeploymentMoved));
            assert_eq!(decide_attempt(Some(b"b"), Some(1024), &routes), Err(Rejection::UnknownDeployment(id("b"))));
        }
        check(None, Some(1024), Ok(()));
        check(None, Some(9), Err(Rejection::DeploymentMoved));
    }
}
