//! Heads of responses, and cards that arrive in parts.

use super::*;
use crate::config::RouterConfig;
use crate::endpoint::EndpointName;
use crate::route::{Route, StoredRoute};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A response to a request of `http://c.test`.
#[derive(Clone, Debug)]
struct Shown {
    note: Option<Vec<u8>>,
    response: Vec<(&'static str, String)>,
}

impl Shown {
    fn new(path: &str, authority: &str, response: &[(&'static str, &str)]) -> Self {
        Self::over(false, path, authority, response)
    }

    /// The same, perhaps by `https`.
    fn over(is_https: bool, path: &str, authority: &str, response: &[(&'static str, &str)]) -> Self {
        let (path, authority) = (path.as_bytes(), authority.as_bytes());
        let is_card = is_card_path(path);
        let note =
            Note { port: 1001, is_card, is_https, is_prefix_alone: false, authority, path, route: StoredRoute::active(1001) };
        let response = response.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { note: Some(note.to_bytes()), response }
    }
}

impl ResponseHost for Shown {
    fn note(&self) -> Option<Cow<'_, [u8]>> {
        self.note.as_deref().map(Cow::Borrowed)
    }

    fn response(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        self.response.iter().filter(|(own, _)| *own == name).map(|(_, value)| value.as_bytes().into()).collect()
    }
}

fn responses(origins: &str) -> Responses {
    let config = format!(r#"{{"role":"router","external_origins":[{origins}],"host_suffix":".h.test"}}"#);
    let config = RouterConfig::parse(config.as_bytes()).unwrap();
    Responses::new(config.addressing, config.external_origins)
}

#[track_caller]
fn location(shown: &Shown, origins: &str, url: &str, expected: Option<&str>) {
    let mut shown = shown.clone();
    shown.response = vec![("location", url.to_owned())];
    let expected: Vec<_> = expected.map(|new| Change::Set("location", new.into())).into_iter().collect();
    assert_eq!(responses(origins).head(&shown).changes, expected, "{url}");
}

#[test]
fn a_location_of_the_agent_leads_back() {
    let shown = Shown::new("/agents/x/a2a/y", "c.test", &[]);
    let check = |url, expected| location(&shown, "", url, expected);
    check("/login?next=/y#z", Some("/agents/x/a2a/login?next=/y#z"));
    check("/", Some("/agents/x/a2a/"));
    check("http://127.0.0.1:1001/login", Some("/agents/x/a2a/login"));
    check("http://localhost:1001", Some("/agents/x/a2a"));
    check("http://c.test/login", Some("http://c.test/agents/x/a2a/login"));
    check("https://C.test:443/login", Some("https://C.test:443/agents/x/a2a/login"));
    check("/../../agents/y/login", Some("/agents/x/a2a/agents/y/login"));
    for stays in [
        "/agents/x/a2a/login",
        "/agents/x/a2a",
        "/agents/x/ui/",
        "login",
        "?x",
        "",
        "//other.test/",
        "/\\other.test/",
        "https://other.test/",
        "http://c.test:81/",
        "http://c.test@other.test/",
        "http://127.0.0.1:1002/",
    ] {
        check(stays, None);
    }
}

/// The scheme decides which port may be left out.
#[test]
fn a_location_with_the_port_of_the_client_s_scheme_leads_back() {
    #[track_caller]
    fn check(is_https: bool, authority: &str, origins: &str, leads: &[&str], stays: &[&str]) {
        let shown = Shown::over(is_https, "/agents/x/y", authority, &[]);
        for origin in leads {
            location(&shown, origins, &format!("{origin}/z"), Some(&format!("{origin}/agents/x/z")));
        }
        for origin in stays {
            location(&shown, origins, &format!("{origin}/z"), None);
        }
    }
    let (http, https) = (["http://c.test", "http://c.test:80"], ["https://c.test", "https://c.test:443"]);
    let both = [http, https].concat();
    let others = ["http://c.test:443", "https://c.test:80", "https://c.test:444"];
    for authority in ["c.test", "c.test:443", "C.test:443"] {
        check(true, authority, "", &both, &others);
        // Envoy sees `http` behind a load balancer that ends TLS; the external origin says more.
        check(false, authority, r#""https://c.test""#, &both, &others);
    }
    check(false, "c.test:80", "", &both, &others);
    check(false, "c.test:443", "", &["http://c.test:443"], &["https://c.test:443", "http://c.test"]);
    check(true, "c.test:80", "", &["https://c.test:80"], &["http://c.test:80", "https://c.test"]);
}

/// The route of an agent whose endpoints know each other by their ports.
#[test]
fn a_location_of_another_endpoint_leads_there() {
    let endpoints = [(EndpointName::REST, 1002), (EndpointName::UI, 1003)].into();
    let route = Route { endpoints, ..Route::active(1001) }.to_bytes();
    let shown = |path: &str, authority: &str| {
        let (path, authority) = (path.as_bytes(), authority.as_bytes());
        let note = Note {
            port: 1002,
            is_card: false,
            is_https: false,
            is_prefix_alone: false,
            authority,
            path,
            route: StoredRoute::parse(&route).unwrap(),
        };
        Shown { note: Some(note.to_bytes()), response: Vec::new() }
    };
    let by_path = shown("/agents/x/api/y", "c.test");
    for (url, expected) in [
        ("http://127.0.0.1:1001/z?q#f", Some("/agents/x/-/a2a/z?q#f")),
        ("http://localhost:1003", Some("/agents/x/-/ui")),
        ("http://0.0.0.0:1003/../z", Some("/agents/x/-/ui/z")),
        ("https://[::1]:1003/", Some("/agents/x/-/ui/")),
        ("http://localhost:1002/z", Some("/agents/x/api/z")),
        ("http://localhost:1004/z", None),
        ("http://c.test:1003/z", None),
        ("http://other.test:1003/z", None),
    ] {
        location(&by_path, "", url, expected);
    }
    let by_host = shown("/y", "x.h.test");
    for (url, expected) in [
        ("http://127.0.0.1:1001/z", "/agents/x/-/a2a/z"),
        ("http://localhost:1003/z", "/agents/x/-/ui/z"),
        ("http://localhost:1002/z", "/z"),
    ] {
        location(&by_host, "", url, Some(expected));
    }
}

#[test]
fn only_external_origins_if_they_are_set() {
    let origins = r#""https://known.test""#;
    let stranger = Shown::new("/agents/x/a2a/y", "c.test", &[]);
    location(&stranger, origins, "http://c.test/login", None);
    location(&stranger, origins, "/login", Some("/agents/x/a2a/login"));
    location(&stranger, origins, "http://localhost:1001/login", Some("/agents/x/a2a/login"));
    let known = Shown::new("/agents/x/a2a/y", "known.test", &[]);
    location(&known, origins, "http://known.test/login", Some("http://known.test/agents/x/a2a/login"));
}

#[test]
fn a_host_needs_no_prefix() {
    let shown = Shown::new("/y", "x.h.test", &[]);
    location(&shown, "", "/login", None);
    location(&shown, "", "http://localhost:1001/login", Some("/login"));
    location(&shown, "", "http://localhost:1001", Some("/"));
    location(&shown, "", "http://x.h.test/login", None);
    // Without a prefix these would name another host: they get one.
    for (url, expected) in [
        ("/.//other.test/", "/agents/x/-/a2a//other.test/"),
        ("/y/..//other.test/", "/agents/x/-/a2a//other.test/"),
        ("/y/..\\/other.test/", "/agents/x/-/a2a//other.test/"),
        ("http://localhost:1001//other.test/", "/agents/x/-/a2a//other.test/"),
        ("http://localhost:1001/\\other.test/", "/agents/x/-/a2a/\\other.test/"),
    ] {
        location(&shown, "", url, Some(expected));
    }
    location(&shown, "", "/./\t/other.test/", None);
}

#[test]
fn several_locations_stay() {
    let shown = Shown::new("/agents/x/y", "c.test", &[("location", "/a"), ("location", "/b")]);
    assert_eq!(responses("").head(&shown).changes, []);
}

#[test]
fn cookies_and_service_workers_keep_to_the_prefix() {
    let response =
        [("set-cookie", "a=1; Path=/"), ("service-worker-allowed", "/"), ("set-cookie", "b=2; Domain=test"), ("etag", "\"1\"")];
    let head = responses("").head(&Shown::new("/agents/x/a2a/y/z", "c.test", &response));
    let expected = [
        Change::Set("set-cookie", b"a=1; Path=/agents/x/a2a".to_vec()),
        Change::Add("set-cookie", b"b=2; Path=/agents/x/a2a/y".to_vec()),
        Change::Remove("service-worker-allowed"),
    ];
    assert_eq!(head.changes, expected);
}

#[test]
fn what_a_header_addresses_is_left_alone() {
    let response = [("location", "/"), ("set-cookie", "a=1; Path=/"), ("service-worker-allowed", "/"), (":status", "200")];
    let mut shown = Shown::new(CARD, "c.test", &response);
    shown.note = None;
    let head = responses("").head(&shown);
    assert!(head.changes.is_empty() && head.unchanged.is_none() && head.card.is_none(), "{head:?}");
}

const CARD: &str = "/agents/x/a2a/.well-known/agent-card.json";

#[test]
fn a_card_is_asked_for_by_its_path() {
    for path in [CARD, "/.well-known/agent.json", "/tenant/.well-known/agent-card.json?x=1"] {
        assert!(is_card_path(path.as_bytes()), "{path}");
    }
    for path in
        ["/", "/agent.json", "/.well-known/agent-card.json/", "/x?/.well-known/agent.json", "/.well-known/agent-card.jsonx"]
    {
        assert!(!is_card_path(path.as_bytes()), "{path}");
    }
}

fn card_head(response: &[(&'static str, &str)]) -> Head {
    responses("").head(&Shown::new(CARD, "c.test", response))
}

#[test]
fn the_head_of_a_card_says_nothing_untrue() {
    let head =
        card_head(&[(":status", "200"), ("content-type", "application/json"), ("etag", "1"), ("content-length", "1048576")]);
    assert!(head.card.is_some());
    for name in ["content-length", "etag"] {
        assert!(head.changes.contains(&Change::Remove(name)), "{name}");
    }
    assert!(head.changes.contains(&Change::Set("cache-control", b"private, no-store".to_vec())));
    for json in ["application/json; charset=utf-8", "Application/A2A+JSON"] {
        assert!(card_head(&[(":status", "200"), ("content-type", json), ("content-encoding", "identity")]).card.is_some());
    }
}

#[test]
fn what_is_no_plain_card_is_left_alone() {
    #[track_caller]
    fn check(response: &[(&'static str, &str)], expected: Option<Unchanged>) {
        let head = card_head(response);
        assert!(head.changes.is_empty() && head.card.is_none(), "{head:?}");
        assert_eq!(head.unchanged.map(|(unchanged, _)| unchanged), expected);
    }
    let json = ("content-type", "application/json");
    check(&[(":status", "404"), json], None);
    check(&[(":status", "304"), json], None);
    check(&[(":status", "200"), ("content-type", "text/html")], None);
    check(&[(":status", "200")], None);
    check(&[(":status", "200"), json, ("content-encoding", "gzip")], Some(Unchanged::Encoded));
    check(&[(":status", "200"), json, ("content-length", "1048577")], Some(Unchanged::TooLarge));
    let shown = Shown::new(CARD, "c test", &[(":status", "200"), json]);
    assert_eq!(responses("").head(&shown).unchanged, Some((Unchanged::OriginNotAllowed, "x".to_owned())));
}

fn arriving(responses: &Responses) -> Card {
    let shown = Shown::new(CARD, "c.test", &[(":status", "200"), ("content-type", "application/json")]);
    responses.head(&shown).card.unwrap()
}

#[test]
fn a_card_may_come_in_any_parts() {
    let responses = responses("");
    let text = br#"{"url":"http://localhost:1001/"}"#;
    let new = br#"{"url":"http://c.test/agents/x/a2a/"}"#.to_vec();
    for size in 1..=text.len() {
        for last_is_empty in [false, true] {
            let mut card = arriving(&responses);
            let parts: Vec<_> = text.chunks(size).collect();
            for (number, part) in parts.iter().enumerate() {
                let ends = number + 1 == parts.len() && !last_is_empty;
                let (part, unchanged) = card.push(part, ends, &responses);
                assert_eq!((part, unchanged), (if ends { Part::Replace(new.clone()) } else { Part::Hold }, None));
            }
            if last_is_empty {
                assert!(card.holds());
                assert_eq!(card.push(b"", true, &responses), (Part::Replace(new.clone()), None));
            }
            assert!(!card.holds());
        }
    }
}

#[test]
fn one_byte_too_many_passes_all() {
    let responses = responses("");
    for (spaces, fits) in [(card::LARGEST - 2, true), (card::LARGEST - 1, false)] {
        let text = format!("{{{}}}", " ".repeat(spaces)).into_bytes();
        let mut card = arriving(&responses);
        let mut sent = Vec::new();
        let mut told = Vec::new();
        for part in text.chunks(10_000) {
            let ends = part.len() < 10_000 && part.ends_with(b"}");
            let (result, unchanged) = card.push(part, ends, &responses);
            told.extend(unchanged);
            match result {
                Part::Hold => {}
                Part::Pass => sent.extend_from_slice(part),
                Part::Replace(new) => sent.extend(new),
            }
        }
        assert!(sent == text);
        assert_eq!(told.is_empty(), fits, "{told:?}");
        assert_eq!(card.push(b"more", false, &responses), (Part::Pass, None));
    }
}

#[test]
fn all_cards_together_hold_little() {
    let responses = responses("");
    let part = vec![b' '; card::LARGEST];
    let mut cards: Vec<_> = (0..16).map(|_| arriving(&responses)).collect();
    assert!(cards.iter_mut().all(|card| card.push(&part, false, &responses).0 == Part::Hold));
    let mut one_more = arriving(&responses);
    let (sent, unchanged) = one_more.push(b"{", false, &responses);
    assert_eq!((sent, unchanged), (Part::Replace(b"{".to_vec()), Some((Unchanged::Overloaded, "x".to_owned()))));
    cards.clear();
    assert_eq!(arriving(&responses).push(b"{", false, &responses).0, Part::Hold);
}

#[test]
fn every_reason_has_a_name_and_a_line() {
    use Unchanged as U;
    let all = [U::Signed, U::Encoded, U::TooLarge, U::Invalid, U::OriginNotAllowed, U::Overloaded];
    assert_eq!(all.map(U::reason), U::REASONS);
    for unchanged in all {
        assert!(unchanged.line("x").starts_with("the agent card of x passes unchanged, and its URLs may lead nowhere: "));
    }
}
