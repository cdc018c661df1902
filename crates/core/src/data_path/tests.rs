//! What happens to requests and attempts, on a host of the tests.

mod hops;

use super::*;
use crate::rejection::GrpcStatus;
use crate::route::Route;
use crate::routes::tests::map_of;
use crate::store::memory::MemorySignal;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[derive(Clone, Debug, Default)]
struct Shown {
    headers: Vec<(&'static str, &'static str)>,
    path: &'static str,
    authority: &'static str,
    bound: Option<u16>,
    age: Duration,
    was_connected: bool,
    /// Empty for GET.
    method: &'static str,
    trail: Option<Vec<u8>>,
    is_from_peer: bool,
    returns: u8,
    details: Option<&'static str>,
    now: Duration,
}

impl RequestHost for Shown {
    fn header(&self, header: &Header) -> Option<Cow<'_, [u8]>> {
        assert_eq!(header.attribute.replace('\0', "/"), format!("request/headers/{}", header.name));
        self.headers.iter().find(|(name, _)| *name == header.name).map(|(_, value)| value.as_bytes().into())
    }

    fn has(&self, header: &Header) -> bool {
        self.headers.iter().any(|(name, _)| *name == header.name)
    }

    fn is_https(&self) -> bool {
        self.headers.contains(&("x-forwarded-proto", "https"))
    }

    fn path(&self) -> Cow<'_, [u8]> {
        self.path.as_bytes().into()
    }

    fn authority(&self) -> Cow<'_, [u8]> {
        self.authority.as_bytes().into()
    }

    fn method(&self) -> Cow<'_, [u8]> {
        if self.method.is_empty() { b"GET".into() } else { self.method.as_bytes().into() }
    }

    fn bound_port(&self) -> Option<u16> {
        self.bound
    }

    fn age(&self) -> Duration {
        self.age
    }

    fn was_connected(&self) -> bool {
        self.was_connected
    }

    fn trail(&self) -> Option<Cow<'_, [u8]>> {
        self.trail.as_deref().map(Cow::Borrowed)
    }

    fn is_from_peer(&self) -> bool {
        self.is_from_peer
    }

    fn returns(&self) -> u8 {
        self.returns
    }

    fn details(&self) -> Option<Cow<'_, [u8]>> {
        self.details.map(|details| details.as_bytes().into())
    }

    fn now(&self) -> Duration {
        self.now
    }
}

/// What a worker knows, with these routes and without a fleet.
fn maps(routes: &[(&str, Route)]) -> Maps {
    let mut maps = Maps::default();
    maps.routes.refresh(&map_of(routes), &MemorySignal::default());
    maps
}

fn judge(judges: Judges, shown: &Shown) -> Verdict {
    let config = br#"{"role":"router","id_headers":["x-deployment-id","other"],"host_suffix":".h.test"}"#;
    let config = RouterConfig::parse(config).expect("valid");
    let endpoints = [(crate::endpoint::EndpointName::UI, 2001)].into();
    let a = Route { endpoints, ..Route::active(2000) };
    let mut verdict = DataPath::new(&config, judges).judge(shown, &mut maps(&[("a", a)]));
    // The notes have a test of their own.
    if let Verdict::Forward { changes: Some(changes), .. } = &mut verdict {
        let is_by_header = shown.headers.iter().any(|(name, _)| ["x-deployment-id", "other"].contains(name));
        assert_eq!(changes.note.take().is_none(), is_by_header, "{shown:?}");
    }
    verdict
}

fn forward(port: u16, changes: Option<Changes>) -> Verdict {
    Verdict::Forward { port, id: b"a".to_vec(), changes: changes.map(Box::new) }
}

fn without(prefix: &str, path: &str) -> Option<Changes> {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    Some(Changes { path: bytes(path), prefix: bytes(prefix), ..Changes::default() })
}

#[test]
fn a_request_by_header_is_forwarded_as_it_is() {
    let by =
        |headers: &[_]| judge(Judges::Requests, &Shown { headers: headers.to_vec(), path: "/agents/b/ui", ..Shown::default() });
    assert_eq!(by(&[("x-deployment-id", "a"), ("other", "b")]), forward(2000, None));
    // The agent receives the decided id in one header, however it was sent.
    assert_eq!(by(&[("other", "a")]), forward(2000, Some(Changes::default())));
    assert_eq!(by(&[("x-deployment-id", "a, a")]), forward(2000, Some(Changes::default())));
    assert!(matches!(by(&[("x-deployment-id", "b"), ("other", "a")]), Verdict::Reject(_)));
}

#[test]
fn a_request_by_path_or_host_is_changed() {
    let by = |path, authority| judge(Judges::Requests, &Shown { path, authority, ..Shown::default() });
    assert_eq!(by("/agents/a/ui/x?y", ""), forward(2001, without("/agents/a/ui", "/x?y")));
    assert_eq!(by("/agents/a", "a.h.test"), forward(2000, without("/agents/a", "/")));
    assert_eq!(by("/x?y", "a.h.test:80"), forward(2000, Some(Changes::default())));
    let rejected = by("/v1/routes", "");
    assert!(format!("{rejected:?}").contains("the route API is on port 9901"), "{rejected:?}");
    let codes = [
        ("/v1/routes", "missing_deployment_id"),
        ("/agents/a/-/rest", "unknown_endpoint"),
        ("/agents/b", "unknown_deployment"),
        ("/agents/", "invalid_deployment_id"),
        ("/", "missing_deployment_id"),
    ];
    for (path, code) in codes {
        let Verdict::Reject(rejected) = by(path, "h.test") else { panic!("{path}") };
        assert_eq!(rejected.code, code, "{path}");
    }
}

#[test]
fn a_rejection_says_which_id_the_log_must_name() {
    #[track_caller]
    fn check(headers: &[(&'static str, &'static str)], path: &'static str, authority: &'static str, id: Option<&str>) {
        let shown = Shown { headers: headers.to_vec(), path, authority, ..Shown::default() };
        let Verdict::Reject(rejected) = judge(Judges::Requests, &shown) else { panic!("{shown:?}") };
        assert_eq!(rejected.id.as_deref(), id.map(str::as_bytes), "{shown:?}");
    }
    check(&[], "/agents/b/x", "", Some("b"));
    check(&[], "/", "b.h.test", Some("b"));
    check(&[("other", "b, b")], "/", "", Some("b"));
    check(&[], "/agents/a/-/rest", "", Some("a"));
    check(&[], "/agents/%61", "", None);
    check(&[], "/", "", None);
    // The header says it itself, whatever it is worth.
    check(&[("x-deployment-id", "b")], "/", "", None);
    check(&[("x-deployment-id", "!")], "/", "", None);
}

#[test]
fn a_header_that_does_not_count_is_not_logged_as_the_id() {
    let config = RouterConfig::parse(br#"{"role":"router","id_headers":[]}"#).expect("valid");
    let mut maps = maps(&[]);
    for (path, id) in [("/agents/b", "b"), ("/agents/", ""), ("/", "")] {
        let shown = Shown { headers: vec![("x-deployment-id", "c")], path, ..Shown::default() };
        let verdict = DataPath::new(&config, Judges::Requests).judge(&shown, &mut maps);
        let Verdict::Reject(rejected) = verdict else { panic!("{path}") };
        assert_eq!(rejected.id.as_deref(), Some(id.as_bytes()), "{path}");
    }
}

#[test]
fn an_attempt_goes_on_or_is_rejected() {
    #[track_caller]
    fn check(bound: u16, age: Duration, was_connected: bool, expected: Option<&str>) {
        let (headers, bound) = (vec![("x-deployment-id", "a")], Some(bound));
        let shown = Shown { headers, bound, age, was_connected, path: "/agents/b", ..Shown::default() };
        let code = match judge(Judges::Attempts, &shown) {
            Verdict::Continue => None,
            Verdict::Reject(rejected) => Some(rejected.code),
            other => panic!("the upstream is set already: {other:?}"),
        };
        assert_eq!(code, expected);
    }
    let late = LAST_RETRY_AT_AGENT + Duration::from_millis(1);
    check(2000, LAST_RETRY_AT_AGENT, false, None);
    check(2001, Duration::ZERO, false, None);
    check(2001, late, false, Some("agent_unreachable"));
    check(2001, late, true, None);
    check(2002, Duration::ZERO, false, Some("deployment_moved"));
    check(2002, late, true, Some("deployment_moved"));
}

#[test]
fn a_request_that_waits_is_judged_by_the_map_of_now() {
    #[track_caller]
    fn check(id: &'static str, port: u16, expected: Option<&str>) {
        // It is no attempt, and its age does not matter.
        let headers = vec![("x-deployment-id", id), ("x-envoy-attempt-count", "1")];
        let shown = Shown { headers, age: LAST_RETRY_AT_AGENT * 2, ..Shown::default() };
        let maps = maps(&[("a", Route::active(2000)), ("d", Route::draining(2003))]);
        let config = RouterConfig::parse(br#"{"role":"router"}"#).expect("valid");
        let code = match DataPath::new(&config, Judges::Requests).judge_waiting(&shown, port, &maps) {
            Verdict::Continue => None,
            Verdict::Reject(rejected) => Some(rejected.code),
            other => panic!("the upstream is set already: {other:?}"),
        };
        assert_eq!(code, expected);
    }
    check("a", 2000, None);
    check("d", 2003, None);
    check("a", 2003, Some("deployment_moved"));
    check("b", 2000, Some("unknown_deployment"));
}

#[test]
fn a_first_attempt_goes_where_its_request_was_sent() {
    // The map was changed between the two.
    let attempt = |count| {
        let headers = vec![("x-deployment-id", "a"), ("x-envoy-attempt-count", count)];
        judge(Judges::Attempts, &Shown { headers, bound: Some(2002), ..Shown::default() })
    };
    assert_eq!(attempt("1"), Verdict::Continue);
    for count in ["2", "10", "1,1", "one"] {
        assert!(matches!(attempt(count), Verdict::Reject(Rejected { code: "deployment_moved", .. })), "{count}");
    }
}

#[test]
fn a_rejection_speaks_the_protocol_of_its_client() {
    let rejected = |headers: &[_]| match judge(Judges::Requests, &Shown { headers: headers.to_vec(), ..Shown::default() }) {
        Verdict::Reject(rejected) => rejected,
        other => panic!("{other:?}"),
    };
    let grpc = rejected(&[("content-type", "application/grpc+proto"), ("x-deployment-id", "b")]);
    let message = "Deployment b not found or not ready".to_owned();
    assert_eq!(grpc.response, Response::Grpc { status: GrpcStatus::NotFound, message });
    assert_eq!(grpc.headers(), [("x-pixell-error", "unknown_deployment")]);
    let with_parameter = rejected(&[("content-type", "application/grpc; charset=utf-8"), ("x-deployment-id", "b")]);
    let expected = [
        ("content-type", "application/grpc"),
        ("grpc-status", "5"),
        ("grpc-message", "Deployment b not found or not ready"),
        ("x-pixell-error", "unknown_deployment"),
    ];
    assert_eq!(with_parameter.headers(), expected);
    let made = [("content-type", "application/grpc"), ("x-pixell-grpc-web", "1"), ("x-deployment-id", "b")];
    assert_eq!(rejected(&made).headers(), expected);
    let http = rejected(&[]);
    let Response::Http { status: 400, body } = &http.response else { panic!("{http:?}") };
    assert!(body.contains(r#""code":"missing_deployment_id""#), "{body}");
    let expected = [("content-type", "application/problem+json"), ("x-pixell-error", "missing_deployment_id")];
    assert_eq!(http.headers(), expected);
}

#[test]
fn a_note_and_a_card_are_for_requests_by_path_or_host() {
    let of = |headers: &[_], path, authority| {
        let shown = Shown { headers: headers.to_vec(), path, authority, ..Shown::default() };
        let config = RouterConfig::parse(br#"{"role":"router","host_suffix":".h.test"}"#).expect("valid");
        match DataPath::new(&config, Judges::Requests).judge(&shown, &mut maps(&[("a", Route::active(2000))])) {
            Verdict::Forward { changes, .. } => changes.map(|changes| *changes).unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    };
    let card = "/agents/a/.well-known/agent-card.json?x";
    let found = of(&[("x-forwarded-proto", "https")], card, "c.test");
    let note = found.note.expect("noted");
    let note = Note::parse(&note).expect("a note");
    assert_eq!((note.port, note.path, note.authority), (2000, card.as_bytes(), &b"c.test"[..]));
    assert!(note.is_card && note.is_https && found.is_card);
    // The scheme of others is noted if it decides what the port of the authority means.
    for (authority, noted) in [("c.test", false), ("c.test:8443", false), ("c.test:443", true), ("c.test:80", true)] {
        let found = of(&[("x-forwarded-proto", "https")], "/agents/a/y", authority);
        let note = found.note.expect("noted");
        assert_eq!(Note::parse(&note).expect("a note").is_https, noted, "{authority}");
    }
    for (path, authority) in [("/agents/a/agent.json", ""), ("/y", "a.h.test")] {
        let found = of(&[], path, authority);
        assert!(found.note.is_some() && !found.is_card, "{path}");
    }
    let by_header = of(&[("deployment-id", "a")], card, "");
    assert!(by_header.note.is_none() && !by_header.is_card);
}

/// The token allows deployment `a` alone, or none. The map has another one, `b`, and neither `c` nor a malformed id.
#[test]
fn a_token_is_asked_before_the_map_however_the_request_is_addressed() {
    let config = br#"{"role":"router","host_suffix":".h.test","deployments_claim":"d","fallback_port":9}"#;
    let data_path = DataPath::new(&RouterConfig::parse(config).expect("valid"), Judges::Requests);
    let judge = |shown: Shown| data_path.judge(&shown, &mut maps(&[("a", Route::active(2000)), ("b", Route::active(2001))]));
    let by_header = |payload: &'static str, id| {
        let headers =
            [("x-deployment-id", id), ("x-pixell-claims", payload)].into_iter().filter(|(_, value)| !value.is_empty());
        judge(Shown { headers: headers.collect(), path: "/", ..Shown::default() })
    };
    let by_path = |payload, path| judge(Shown { headers: vec![("x-pixell-claims", payload)], path, ..Shown::default() });
    let by_host = |payload, authority| {
        let headers = vec![("x-pixell-claims", payload)];
        judge(Shown { headers, path: "/", authority, ..Shown::default() })
    };
    let code = |verdict: Verdict| match verdict {
        Verdict::Forward { port, .. } => Ok(port),
        Verdict::Reject(Rejected { code, .. }) => Err(code),
        other => panic!("{other:?}"),
    };
    // {"d":["a"]}, {"d":"*"} and {}
    let [a, every, none] = ["eyJkIjpbImEiXX0", "eyJkIjoiKiJ9", "e30"];
    for (verdict, expected) in [
        (by_header(a, "a"), Ok(2000)),
        (by_header(a, "a,a"), Ok(2000)),
        (by_path(a, "/agents/a/x"), Ok(2000)),
        (by_host(a, "a.h.test"), Ok(2000)),
        (by_header(every, "b"), Ok(2001)),
        // The fallback is behind the check, too.
        (by_header(every, "c"), Ok(9)),
        (by_header(a, "b"), Err("not_allowed")),
        (by_header(a, "c"), Err("not_allowed")),
        (by_header(a, "b,b"), Err("not_allowed")),
        (by_path(a, "/agents/b/x"), Err("not_allowed")),
        (by_path(a, "/agents/c"), Err("not_allowed")),
        (by_host(a, "b.h.test"), Err("not_allowed")),
        (by_header(none, "a"), Err("not_allowed")),
        (by_header("", "a"), Err("not_allowed")),
        (by_header(every, "a,b"), Err("invalid_deployment_id")),
        (by_header(a, "?"), Err("invalid_deployment_id")),
        (by_path(every, "/agents/?"), Err("invalid_deployment_id")),
        (by_path(a, "/none"), Err("missing_deployment_id")),
    ] {
        assert_eq!(code(verdict), expected);
    }
    // A preflight has no token. With a token that is what counts.
    let preflight = |path, more: Option<(&'static str, &'static str)>| {
        let headers = [("origin", "https://o"), ("access-control-request-method", "GET")].into_iter().chain(more).collect();
        code(judge(Shown { headers, path, method: "OPTIONS", ..Shown::default() }))
    };
    assert_eq!(preflight("/agents/b/x", None), Ok(2001));
    assert_eq!(preflight("/agents/b/x", Some(("x-pixell-claims", a))), Err("not_allowed"));
    assert_eq!(preflight("/agents/b/x", Some(("x-pixell-claims", every))), Ok(2001));
}
