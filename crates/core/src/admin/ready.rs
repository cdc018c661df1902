//! `GET /ready/traffic`: whether every configured map has been pushed, for load balancers. (`/ready`, Envoy's own, tells whether Envoy runs,
//! and PAR waits for it before it pushes.)

use super::code::Code;
use super::response::{Outcome, Response};
use crate::config::AdminConfig;
use crate::store::{FLEET_MAP, Layout, ROUTE_MAP, SharedData, Stored};

/// Whether a request is for this.
#[must_use]
pub(super) fn owns_path(target: &[u8]) -> bool {
    target == b"/ready/traffic" || target.starts_with(b"/ready/traffic?")
}

/// Responds 200 if all maps are there, else 503.
pub(super) fn response(method: &[u8], config: &AdminConfig, data: &impl SharedData) -> Response {
    if !matches!(method, b"GET" | b"HEAD") {
        let problem = Code::MethodNotAllowed.problem("readiness is read with GET");
        return Response::problem(&problem.with_header("allow", "GET, HEAD"));
    }
    let waits = |layout: &'static Layout| !Stored::now(data, layout).is_loaded();
    let missing = [("no route map", waits(&ROUTE_MAP)), ("no fleet map", config.fleet.is_some() && waits(&FLEET_MAP))];
    let missing: Vec<_> = missing.iter().filter(|(_, missing)| *missing).map(|(words, _)| *words).collect();
    let (status, body) = match missing.as_slice() {
        [] => (200, "READY\n".to_owned()),
        missing => (503, format!("NOT READY: {} has been pushed\n", missing.join(" and "))),
    };
    let headers = [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")];
    Response { status, headers: headers.map(|(name, value)| (name, value.to_owned())).to_vec(), body, outcome: Outcome::Read }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::{MemoryData, MemorySignal};
    use crate::store::prepare;
    use crate::{fleet, routes};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_configured_map_must_be_there() {
        let off = AdminConfig::parse(br#"{"role":"admin"}"#).expect("valid");
        let on = AdminConfig::parse(br#"{"role":"admin","fleet":{"peer_cidrs":["10.0.0.0/8"]}}"#).expect("valid");
        let data = MemoryData::default();
        let of = |config| {
            let response = response(b"GET", config, &data);
            (response.status, response.body)
        };
        let not = |words: &str| (503, format!("NOT READY: {words} has been pushed\n"));
        let ready = || (200, "READY\n".to_owned());
        prepare(&data, &ROUTE_MAP);
        prepare(&data, &FLEET_MAP);
        assert_eq!((of(&off), of(&on)), (not("no route map"), not("no route map and no fleet map")));
        routes::tests::publish_change(&data, &routes::change::Change { replace: true, edits: vec![] });
        assert_eq!((of(&off), of(&on)), (ready(), not("no fleet map")));
        fleet::tests::publish_change(&data, &MemorySignal::default(), &fleet::tests::setting(true, &[], &[]));
        assert_eq!((of(&off), of(&on)), (ready(), ready()));
        assert_eq!(response(b"POST", &on, &data).status, 405);
        assert!(
            owns_path(b"/ready/traffic")
                && owns_path(b"/ready/traffic?x")
                && !owns_path(b"/ready/traffic/")
                && !owns_path(b"/ready")
        );
    }
}
