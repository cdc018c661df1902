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
}
