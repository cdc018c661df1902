//! The route API as its tests see it: asked by way of both workers in turn, its answers checked for what all of them have in common.

use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{Envoy, Reply, RouteApi};
use reqwest::{Body, Method};
use serde_json::Value;

/// A client for each worker, used in turn, so that what one worker wrote the other one reads.
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
        // The kernel spreads connections by chance; that one worker gets none of 200 does not happen.
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

    /// A call with headers of its own; where none of them is a content type and there is a body, it is JSON.
    pub(crate) async fn call_with(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
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

    /// A call; its body, where it has one, is JSON.
    pub(crate) async fn call(&self, method: &str, target: &str, body: &str) -> Reply {
        self.call_with(method, target, &[], body.to_owned()).await
    }

    /// A call that must be answered with this status and this JSON (null: no body) and, as all answers about the map are, with
    /// the map's version.
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
            let reply = self.call(method, target, body).await;
            let found = if reply.body.is_empty() { Value::Null } else { reply.json().unwrap() };
            assert_eq!((reply.status.as_u16(), &found), (status, &expected), "{method} {target} {body} at {called}");
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert_eq!(reply.header("content-type"), (!reply.body.is_empty()).then_some("application/json"));
            let version = self.version().await;
            assert_eq!(reply.header("etag"), Some(version.as_str()), "{method} {target} at {called}");
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

    /// A write that must be refused with this problem, its faults at these places, and leave map and generation as they were.
    #[track_caller]
    pub(crate) fn refused(&self, call: Refused<'_>) -> impl Future<Output = Reply> {
        let called = std::panic::Location::caller();
        async move {
            let before = self.map().await;
            let reply = self.call_with(call.method, call.target, call.headers, call.body.to_vec()).await;
            let shown = format!("{} {} at {called}: {reply}", call.method, call.target);
            let problem = problem(&reply);
            assert_eq!((reply.status.as_u16(), &problem["code"]), (call.status, &call.code.into()), "{shown}");
            let faults = problem["errors"].as_array().into_iter().flatten();
            let places: Vec<_> = faults.map(|fault| fault["pointer"].as_str().unwrap()).collect();
            assert_eq!(places, call.places, "{shown}");
            assert_eq!(self.map().await, before, "{shown}");
            reply
        }
    }
}

/// A call that must be refused, and how.
#[derive(Clone, Copy, Default)]
pub(crate) struct Refused<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
    pub(crate) status: u16,
    pub(crate) code: &'a str,
    /// JSON pointers of the faults that `errors` has to name, in this order.
    pub(crate) places: &'a [&'a str],
}

/// The entity tag of an answer that has epoch and generation.
pub(crate) fn etag(answer: &Value) -> String {
    format!("\"{}-{}\"", answer["epoch"].as_str().unwrap(), answer["generation"])
}

/// The problem document of an answer, checked for the form that all of them have.
pub(crate) fn problem(reply: &Reply) -> Value {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply}");
    let problem = reply.json().unwrap();
    assert_eq!(problem["type"], "about:blank", "{reply}");
    assert_eq!(problem["status"], reply.status.as_u16(), "{reply}");
    for member in ["title", "detail", "code"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {reply}");
    }
    assert_eq!(problem["errors"].is_array(), matches!(reply.status.as_u16(), 409 | 422), "{reply}");
    for fault in problem["errors"].as_array().into_iter().flatten() {
        assert!(fault["pointer"].is_string() && fault["detail"].as_str().is_some_and(|text| !text.is_empty()), "{reply}");
    }
    problem
}

/// Makes sure that no VM has fallen over: each worker's is asked once more, since a crash is counted when the next request meets it.
pub(crate) async fn no_vm_fell_over(envoy: &Envoy, api: &Api) {
    api.map().await;
    assert_eq!(envoy.stats().await.unwrap().vm_reloads().unwrap(), 0);
}
