//! What is written into a card, and what never is.

use super::*;
use crate::addressing::prefix::PathPrefix;
use crate::endpoint::EndpointName;
use crate::responses::origins::ExternalOrigins;
use crate::responses::way::Note;
use crate::route::{Route, StoredRoute};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A client of `https://c.test:8443` that reached `rest` of the agent `x` (`a2a` 1001, `rest` 1002) by `/agents/x`.
fn reached(addressing: &Addressing, origins: &ExternalOrigins) -> Reached {
    let route = Route { endpoints: [(EndpointName::REST, 1002)].into(), ..Route::active(1001) }.to_bytes();
    let (route, path) = (StoredRoute::parse(&route).unwrap(), b"/agents/x/.well-known/agent-card.json");
    let note =
        Note { port: 1002, is_card: true, is_https: true, is_prefix_alone: false, authority: b"c.test:8443", path, route };
    Reached::of(&note, addressing, origins).unwrap()
}

fn addressing(suffix: Option<&str>) -> Addressing {
    Addressing { prefixes: PathPrefix::defaults(), host_suffix: suffix.map(str::to_owned) }
}

#[track_caller]
fn check(text: &str, expected: Result<Option<&str>, Unchanged>) {
    let addressing = addressing(None);
    let found = rewritten(text.as_bytes(), &reached(&addressing, &ExternalOrigins::default()), &addressing);
    let found = found.map(|new| new.map(|new| String::from_utf8(new).unwrap()));
    assert_eq!(found.as_ref().map(Option::as_deref).map_err(|unchanged| *unchanged), expected, "{text}");
}

#[track_caller]
fn becomes(url: &str, new: Option<&str>) {
    let card = |url: &str| format!(r#"{{"name":"x", "url" : {} }}"#, crate::json::quote(url));
    check(&card(url), Ok(new.map(card).as_deref()));
}

#[test]
fn urls_of_the_agent_lead_back() {
    becomes("http://localhost:1002/", Some("https://c.test:8443/agents/x/"));
    becomes("http://localhost:1002", Some("https://c.test:8443/agents/x"));
    becomes("http://127.0.0.1:1002/y?z=1", Some("https://c.test:8443/agents/x/y?z=1"));
    becomes("https://0.0.0.0:1001/", Some("https://c.test:8443/agents/x/-/a2a/"));
    becomes("http://[::1]:1001/a2a", Some("https://c.test:8443/agents/x/-/a2a/a2a"));
    becomes("http://localhost:1002/a2a", Some("https://c.test:8443/agents/x/-/rest/a2a"));
    // A port that is no endpoint's, and none at all.
    becomes("http://localhost:9999/y", Some("https://c.test:8443/agents/x/y"));
    becomes("http://localhost/y", Some("https://c.test:8443/agents/x/y"));
    // The origin that the client used, with either scheme.
    becomes("http://C.test:8443/y", Some("https://c.test:8443/agents/x/y"));
    becomes("https://c.test:8443/agents/x/y", None);
    becomes("http://c.test:8443/agents/x/a2a", Some("https://c.test:8443/agents/x/a2a"));
    becomes("http://localhost:1/agents/x/a2a", Some("https://c.test:8443/agents/x/a2a"));
}

#[test]
fn other_urls_stay() {
    for url in [
        "https://other.test/",
        "http://c.test/",
        "https://c.test:8443@other.test/",
        "https://localhost@other.test/",
        "//localhost:1002/",
        "/\\localhost:1002/",
        "/y",
        "y",
        "",
        "ftp://localhost:1002/",
        "http://10.0.0.1:1002/",
        "localhost:1002",
        "http://localhost:1002\\@other.test/",
        " http://localhost:1002/",
    ] {
        becomes(url, None);
    }
}

#[test]
fn every_interface_of_either_version() {
    check(
        r#"{"protocolVersion":"0.3.0","preferredTransport":"JSONRPC","url":"http://localhost:1001/",
            "additionalInterfaces":[{"url":"http://localhost:1002/v1","transport":"HTTP+JSON"},
            {"transport":"GRPC","url":"localhost:1001"},{"url":"http://localhost:1001/","transport":"GRPC"}],
            "supportedInterfaces":[{"url":"http://127.0.0.1:1001/rpc","protocolBinding":"JSONRPC","protocolVersion":"1.0","tenant":"t"},
            {"url":"0.0.0.0:1001","protocolBinding":"GRPC"}, 5, null]}"#,
        Ok(Some(
            r#"{"protocolVersion":"0.3.0","preferredTransport":"JSONRPC","url":"https://c.test:8443/agents/x/-/a2a/",
            "additionalInterfaces":[{"url":"https://c.test:8443/agents/x/v1","transport":"HTTP+JSON"},
            {"transport":"GRPC","url":"c.test:8443"},{"url":"https://c.test:8443","transport":"GRPC"}],
            "supportedInterfaces":[{"url":"https://c.test:8443/agents/x/-/a2a/rpc","protocolBinding":"JSONRPC","protocolVersion":"1.0","tenant":"t"},
            {"url":"c.test:8443","protocolBinding":"GRPC"}, 5, null]}"#,
        )),
    );
    check(
        r#"{"preferredTransport":"grpc","url":"localhost:1001","provider":{"url":"http://localhost:1001/"}}"#,
        Ok(Some(r#"{"preferredTransport":"grpc","url":"c.test:8443","provider":{"url":"http://localhost:1001/"}}"#)),
    );
    check(r#"{"preferredTransport":"GRPC","url":"other.test:443"}"#, Ok(None));
    check(r#"{"preferredTransport":"GRPC","url":"dns://localhost:1001"}"#, Ok(None));
}

#[test]
fn a_host_of_its_own_is_grpc_s_target() {
    let addressing = addressing(Some(".h.test"));
    let card = br#"{"url":"localhost:1001","preferredTransport":"GRPC"}"#;
    let new = rewritten(card, &reached(&addressing, &ExternalOrigins::default()), &addressing).unwrap().unwrap();
    assert_eq!(String::from_utf8(new).unwrap(), r#"{"url":"x.h.test:8443","preferredTransport":"GRPC"}"#);
}

#[test]
fn all_else_stays_as_it_is_written() {
    check(
        "{\n\t\"big\": 1e+400, \"n\": -0.10, \"z\":1, \"a\": 123456789012345678901234567890,\r\n \"\\u0075rl\":\"http:\\/\\/localhost:1002\\u002fy\",\
         \"url\":\"http://localhost:1002/\", \"s\": \"\\ud800\", \"url\": 7, \"url\": null , \"\": {\"url\":\"http://localhost:1\"}}",
        Ok(Some(
            "{\n\t\"big\": 1e+400, \"n\": -0.10, \"z\":1, \"a\": 123456789012345678901234567890,\r\n \"\\u0075rl\":\"https://c.test:8443/agents/x/y\",\
             \"url\":\"https://c.test:8443/agents/x/\", \"s\": \"\\ud800\", \"url\": 7, \"url\": null , \"\": {\"url\":\"http://localhost:1\"}}",
        )),
    );
}

#[test]
fn signed_cards_and_what_is_no_card_stay() {
    let card = |signatures| format!(r#"{{"url":"http://localhost:1002/","signatures":{signatures}}}"#);
    for signatures in [r#"[{"protected":"e30","signature":"x"}]"#, "{}", "\"x\"", "[ null ]"] {
        check(&card(signatures), Err(Unchanged::Signed));
    }
    for signatures in ["[]", "[ \n]", "null"] {
        let new = card(signatures).replace("http://localhost:1002", "https://c.test:8443/agents/x");
        check(&card(signatures), Ok(Some(&new)));
    }
    for text in ["", "[]", "\"x\"", "null", "{", "{}x", "{\"url\":}", "\u{feff}{}", "{\"a\":1,}", "{'a':1}", "{\"\\ud800\":1}"]
    {
        check(text, Err(Unchanged::Invalid));
    }
    let addressing = addressing(None);
    let of = |text: &[u8]| rewritten(text, &reached(&addressing, &ExternalOrigins::default()), &addressing);
    assert_eq!(of(b"{\"url\":\"http://localhost:1002/\xff\"}"), Err(Unchanged::Invalid));
    let others = ExternalOrigins::default().with("https://d.test").unwrap();
    assert_eq!(rewritten(b"{}", &reached(&addressing, &others), &addressing), Err(Unchanged::OriginNotAllowed));
}

#[test]
fn hostile_cards_take_little() {
    let deep = format!(r#"{{"x":{}{},"url":"http://localhost:1002/"}}"#, "[".repeat(400_000), "]".repeat(400_000));
    check(&deep, Ok(Some(&deep.replace("http://localhost:1002", "https://c.test:8443/agents/x"))));
    let many = |count| format!(r#"{{"additionalInterfaces":[{}]}}"#, vec![r#"{"url":"http://[::]"}"#; count].join(","));
    let new = many(999).replace("http://[::]", "https://c.test:8443/agents/x");
    check(&many(999), Ok(Some(&new)));
    check(&many(1_000), Err(Unchanged::TooLarge));
    check(&format!("{{{}}}", vec![r#""url":"http://[::]""#; 1_001].join(",")), Err(Unchanged::TooLarge));
    becomes(&format!("http://localhost:1002{}", "/..".repeat(300_000)), Some("https://c.test:8443/agents/x/"));
}
