//! The decision on one request: header and route map to forward or reject.

use crate::deployment_id::DeploymentId;
use crate::rejection::Rejection;
use crate::route::RouteState;
use crate::snapshot::Snapshot;

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

/// Decides on a request for `id`.
///
/// `map` is `None` until the first map has been pushed. With a `fallback_port`, ids that the map does not hold go there.
#[must_use]
pub fn decide<'a, B: AsRef<[u8]>>(id: DeploymentId<'a>, map: Option<&Snapshot<B>>, fallback_port: Option<u16>) -> Decision<'a> {
    let route = map.and_then(|map| map.find(id));
    match (route, fallback_port) {
        (Some(route), _) if route.state == RouteState::Active => Decision::Forward { port: route.port },
        (Some(_), _) => Decision::Reject(Rejection::DeploymentDraining(id)),
        (None, Some(port)) => Decision::Forward { port },
        (None, None) if map.is_none() => Decision::Reject(Rejection::RouteMapNotLoaded),
        (None, None) => Decision::Reject(Rejection::UnknownDeployment(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Route;
    use crate::snapshot::encode;
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
    fn decides_by_the_map() {
        let id = |text: &'static str| DeploymentId::parse(text.as_bytes()).expect("valid");
        let routes = [
            (id("down"), Route { port: 1025, state: RouteState::Draining }),
            (id("up"), Route { port: 1024, state: RouteState::Active }),
        ];
        let bytes = encode(1, 1, routes.into_iter()).expect("fits");
        let map = Snapshot::parse(bytes).expect("parses");
        let check = |name, map: Option<&Snapshot<Vec<u8>>>, fallback, expected| {
            assert_eq!(decide(id(name), map, fallback), expected, "{name} {fallback:?}");
        };
        check("up", Some(&map), None, Decision::Forward { port: 1024 });
        check("up", Some(&map), Some(9), Decision::Forward { port: 1024 });
        check("down", Some(&map), None, Decision::Reject(Rejection::DeploymentDraining(id("down"))));
        check("down", Some(&map), Some(9), Decision::Reject(Rejection::DeploymentDraining(id("down"))));
        check("other", Some(&map), None, Decision::Reject(Rejection::UnknownDeployment(id("other"))));
        check("other", Some(&map), Some(9), Decision::Forward { port: 9 });
        check("up", None, None, Decision::Reject(Rejection::RouteMapNotLoaded));
        check("up", None, Some(9), Decision::Forward { port: 9 });
    }
}
