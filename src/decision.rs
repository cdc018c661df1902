//! The decision on one request: header and route map to forward or reject.

use crate::deployment_id::DeploymentId;
use crate::rejection::Rejection;
use crate::route::{Route, RouteState};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It goes to this port of 127.0.0.1.
    Forward {
        /// TCP port.
        port: u16,
    },
    /// It is answered here.
    Reject(Rejection<'a>),
}

/// Reads the id out of the header's value, all fields of that name joined by commas (RFC 9110, 5.3).
///
/// Several equal ids are one id: nobody could be misled by them.
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

/// Decides on a request with this `header`, by what `find` gives for the bytes of an id; `map_loaded` says whether there is a map
/// at all.
///
/// With a `fallback_port`, ids that the map does not hold go there, also before the first map was pushed.
#[must_use]
pub fn decide(
    header: Option<&[u8]>,
    find: impl Fn(&[u8]) -> Option<Route>,
    map_loaded: bool,
    fallback_port: Option<u16>,
) -> Decision<'_> {
    // The map holds ids alone, so bytes that are in it are one, and most requests need no look at each byte.
    if let Some(Route { port, state: RouteState::Active }) =
        header.filter(|header| header.len() <= DeploymentId::MAX_LEN).and_then(&find)
    {
        return Decision::Forward { port };
    }
    let id = match deployment_id(header) {
        Ok(id) => id,
        Err(rejection) => return Decision::Reject(rejection),
    };
    match (find(id.as_str().as_bytes()), fallback_port) {
        (Some(Route { port, state: RouteState::Active }), _) | (None, Some(port)) => Decision::Forward { port },
        (Some(_), _) => Decision::Reject(Rejection::DeploymentDraining(id)),
        (None, None) if map_loaded => Decision::Reject(Rejection::UnknownDeployment(id)),
        (None, None) => Decision::Reject(Rejection::RouteMapNotLoaded),
    }
}

/// Whether a request that was sent to `bound`, and could not have been seen there, may be sent there again: by the map as it is now.
///
/// A route that is draining meanwhile still leads there, since the request is older than that.
///
/// # Errors
/// [`Rejection::UnknownDeployment`] where the map holds the id no more, [`Rejection::DeploymentMoved`] where it has another port.
pub fn decide_again<'a>(
    header: Option<&'a [u8]>,
    bound: Option<u16>,
    find: impl Fn(&[u8]) -> Option<Route>,
    fallback_port: Option<u16>,
) -> Result<(), Rejection<'a>> {
    let id = deployment_id(header)?;
    let port = find(id.as_str().as_bytes()).map(|route| route.port).or(fallback_port);
    match port {
        None => Err(Rejection::UnknownDeployment(id)),
        Some(port) if bound == Some(port) => Ok(()),
        Some(_) => Err(Rejection::DeploymentMoved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn decides_by_the_route() {
        let id = DeploymentId::parse(b"a").expect("valid");
        let up = Some(Route { port: 1024, state: RouteState::Active });
        let down = Some(Route { port: 1025, state: RouteState::Draining });
        let check = |route: Option<Route>, loaded, fallback, expected| {
            let find = |bytes: &[u8]| if bytes == b"a" { route } else { None };
            for header in [&b"a"[..], b" a", b"a,a"] {
                assert_eq!(decide(Some(header), find, loaded, fallback), expected, "{route:?} {loaded} {fallback:?}");
            }
            for (header, rejection) in
                [(None, Rejection::MissingDeploymentId), (Some(&b"a,b"[..]), Rejection::InvalidDeploymentId)]
            {
                assert_eq!(decide(header, find, loaded, fallback), Decision::Reject(rejection));
            }
        };
        check(up, true, None, Decision::Forward { port: 1024 });
        check(up, true, Some(9), Decision::Forward { port: 1024 });
        check(down, true, None, Decision::Reject(Rejection::DeploymentDraining(id)));
        check(down, true, Some(9), Decision::Reject(Rejection::DeploymentDraining(id)));
        check(None, true, None, Decision::Reject(Rejection::UnknownDeployment(id)));
        check(None, true, Some(9), Decision::Forward { port: 9 });
        check(None, false, None, Decision::Reject(Rejection::RouteMapNotLoaded));
        check(None, false, Some(9), Decision::Forward { port: 9 });
    }

    #[test]
    fn decides_again_by_the_port() {
        let id = DeploymentId::parse(b"a").expect("valid");
        let at = |port, state| Some(Route { port, state });
        let check = |route: Option<Route>, fallback, expected: Result<(), Rejection<'static>>| {
            let find = |bytes: &[u8]| if bytes == b"a" { route } else { None };
            for header in [&b"a"[..], b" a", b"a,a"] {
                assert_eq!(decide_again(Some(header), Some(1024), find, fallback), expected, "{route:?} {fallback:?}");
            }
            // Where it cannot be told what the request was bound to, it goes nowhere.
            assert!(decide_again(Some(b"a"), None, find, fallback).is_err());
            assert_eq!(decide_again(None, Some(1024), find, fallback), Err(Rejection::MissingDeploymentId));
        };
        check(at(1024, RouteState::Active), None, Ok(()));
        check(at(1024, RouteState::Draining), None, Ok(()));
        check(at(1025, RouteState::Active), None, Err(Rejection::DeploymentMoved));
        check(at(1025, RouteState::Draining), Some(1024), Err(Rejection::DeploymentMoved));
        check(None, None, Err(Rejection::UnknownDeployment(id)));
        check(None, Some(1024), Ok(()));
        check(None, Some(9), Err(Rejection::DeploymentMoved));
    }
}
