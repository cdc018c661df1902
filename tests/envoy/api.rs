//! The route API as its tests see it: called through both workers in turn, with a check of what all its responses have in common.

use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{ApiResponse, Envoy, RouteApi};
use reqwest::{Body, Method};
use serde_json::Value;

/// A client for each worker, used in turn, so that one worker reads what the other one wrote.
pub(crate) struct Api {
    workers: [RouteApi; 2],
    turn: AtomicUsize,
}

impl Api {
    /// Opens connections until each of the two workers has one.
    pub(crate) async fn open(envoy: &Envoy) -> Self {
        Self::open_as(envoy, None).await
    }

    /// The same with a bearer token.
    pub(crate) async fn open_as(envoy: &Envoy, token: Option<&str>) -> Self {
        let mut found = [None, None];
        // Envoy gives a connection to the worker that has the fewest, so this takes a few and never 200.
        for _ in 0..200 {
            let before = envoy.stats().await.unwrap().worker_connections("admin").unwrap();
            let api = match token {
                Some(token) => envoy.routes().token(token),
                None => envoy.routes(),
            };
            assert_eq!(api.status().await.unwrap().status, 200);
            let after = envoy.stats().await.unwrap().worker_connections("admin").unwrap();
            let worker = after.keys().position(|worker| after[worker] > before[worker]).unwrap();
            found[worker] = Some(api);
            if let [Some(first), Some(second)] = &found {
                return Self { workers: [first.clone(), second.clone()], turn: AtomicUsize::new(0) };
            }
        }
        panic!("a worker got no connection");
    }

    /// The client of the worker whose turn it is.
    pub(crate) fn next(&self) -> &RouteApi {
        &self.workers[self.turn.fetch_add(1, Ordering::Relaxed) % 2]
    }

    /// A call with these headers. A body is JSON unless one of them is a content type.
    pub(crate) async fn call_with(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> ApiResponse {
        let body = body.into();
        let has_body = body.as_bytes() != Some(b"");
        let mut request = self.next().request(Method::from_bytes(method.as_bytes()).unwrap(), target).body(body);
        if has_body && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        RouteApi::send(request).await.unwrap()
    }

    /// A call. Its body, if it has one, is JSON.
    pub(crate) async fn call(&self, method: &str, target: &str, body: &str) -> ApiResponse {
        self.call_with(method, target, &[], body.to_owned()).await
    }

    /// Makes a call that must get this status, this JSON (null: no body), and the map's version as its entity tag.
    #[track_caller]
    pub(crate) fn check(
        &self,
        method: &str,
        target: &str,
        body: &str,
        status: u16,
        expected: Value,
    ) -> impl Future<Output = ()> {
        let called = std::panic::Location::caller();
        async move {
            let response = self.call(method, target, body).await;
            let found = without_warning(&response);
            assert_eq!((response.status.as_u16(), &found), (status, &expected), "{method} {target} {body} at {called}");
            assert!(response.body.is_empty() || response.body.ends_with(b"\n"), "{response}");
            assert_eq!(response.header("cache-control"), Some("no-store"));
            assert_eq!(response.header("content-type"), (!response.body.is_empty()).then_some("application/json"));
            let version = if target.starts_with("/v1/fleet") { self.fleet_version().await } else { self.version().await };
            assert_eq!(response.header("etag"), Some(version.as_str()), "{method} {target} at {called}");
        }
    }

    /// The map as both workers see it.
    pub(crate) async fn map(&self) -> Value {
        let [first, second] = &self.workers;
        let first = first.routes().await.unwrap();
        let second = second.routes().await.unwrap();
        assert_eq!((first.status, first.header("etag"), &first.body), (second.status, second.header("etag"), &second.body));
        let map = first.json().unwrap();
        assert_eq!(first.header("etag"), Some(etag(&map).as_str()));
        map
    }

    /// The entity tag of the map as it is now.
    pub(crate) async fn version(&self) -> String {
        etag(&self.next().status().await.unwrap().json().unwrap())
    }

    /// That of the fleet map.
    pub(crate) async fn fleet_version(&self) -> String {
        etag(&self.next().status().await.unwrap().json().unwrap()["fleet"])
    }

    /// Makes a call that must be rejected with this problem and errors at these places, and must leave map and generation as they were.
    #[track_caller]
    pub(crate) fn rejected(&self, call: Rejected<'_>) -> impl Future<Output = ApiResponse> {
        let called = std::panic::Location::caller();
        async move {
            let before = self.map().await;
            let response = self.call_with(call.method, call.target, call.headers, call.body.to_vec()).await;
            let shown = format!("{} {} at {called}: {response}", call.method, call.target);
            let problem = problem(&response);
            assert_eq!((response.status.as_u16(), &problem["code"]), (call.status, &call.code.into()), "{shown}");
            let errors = problem["errors"].as_array().into_iter().flatten();
            let places: Vec<_> = errors.map(|error| error["pointer"].as_str().unwrap()).collect();
            assert_eq!(places, call.places, "{shown}");
            assert!(response.body.ends_with(b"\n"), "{shown}");
            assert_eq!(self.map().await, before, "{shown}");
            response
        }
    }
}

/// A call that must be rejected, and how.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rejected<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
    pub(crate) status: u16,
    pub(crate) code: &'a str,
    /// JSON pointers of the errors, in their order.
    pub(crate) places: &'a [&'a str],
}

/// The body of a response (null if it has none). That of a write that displaced routes says in words which; this checks it, and takes it out.
pub(crate) fn without_warning(response: &ApiResponse) -> Value {
    let mut found = if response.body.is_empty() { Value::Null } else { response.json().unwrap() };
    let warning = found.as_object_mut().and_then(|members| members.remove("warning"));
    let displaced: Vec<&Value> = found["displaced"].as_array().into_iter().flatten().collect();
    assert_eq!(warning.is_some(), !displaced.is_empty(), "{response}");
    for id in displaced.iter().take(3) {
        let named = format!(" from {}, which loses its route", id.as_str().unwrap());
        assert!(warning.as_ref().is_some_and(|words| words.as_str().unwrap().contains(&named)), "{response}");
    }
    found
}

/// The entity tag of a response that has epoch and generation.
pub(crate) fn etag(body: &Value) -> String {
    format!("\"{}-{}\"", body["epoch"].as_str().unwrap(), body["generation"])
}

/// The problem document of a response, whose form this checks.
pub(crate) fn problem(response: &ApiResponse) -> Value {
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{response}");
    let problem = response.json().unwrap();
    assert_eq!(problem["type"], "about:blank", "{response}");
    assert_eq!(problem["status"], response.status.as_u16(), "{response}");
    for member in ["title", "detail", "code"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {response}");
    }
    let lists = matches!(response.status.as_u16(), 409 | 422) && problem["code"] != "fleet_disabled";
    assert_eq!(problem["errors"].is_array(), lists, "{response}");
    for error in problem["errors"].as_array().into_iter().flatten() {
        assert!(error["pointer"].is_string() && error["detail"].as_str().is_some_and(|text| !text.is_empty()), "{response}");
    }
    problem
}

/// Checks that no VM has crashed. Envoy counts a crash at the next request, so this calls each worker once more.
pub(crate) async fn no_vm_fell_over(envoy: &Envoy, api: &Api) {
    api.map().await;
    assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
}
