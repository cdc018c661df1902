//! The properties that `crates/fuzz` has libFuzzer attack, here with its corpus and with generated inputs, as a plain test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]
#![allow(unreachable_pub, reason = "the properties are the library of another package, too")]

#[path = "../../fuzz/src/lib.rs"]
mod properties;

use std::path::Path;

use properties::{api, card, id, patch, table};
use proptest::prelude::*;

fn corpus(name: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut files = 0;
    for entry in directory.read_dir().unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "{} is empty", directory.display());
}

#[test]
fn the_corpus_holds() {
    corpus("id", id::check);
    corpus("table", table::check);
    corpus("patch", patch::check);
    corpus("card", card::check);
    corpus("api", api::check);
}

/// A route of a patch, right or wrong.
fn route() -> impl Strategy<Value = String> {
    let port = prop_oneof![4 => (5000..5006_u32).prop_map(|port| port.to_string()), 1 => any::<i32>().prop_map(|port| port.to_string())];
    let state = prop_oneof![Just("\"active\""), Just("\"draining\""), Just("null"), Just("\"up\"")];
    prop_oneof![
        Just("null".to_owned()),
        port.clone(),
        (port, state.clone()).prop_map(|(port, state)| format!(r#"{{"port":{port},"state":{state}}}"#)),
        state.prop_map(|state| format!(r#"{{"state":{state}}}"#)),
    ]
}

fn body() -> impl Strategy<Value = String> {
    let member = ("[a-e]|[a-z. ]{0,3}", route()).prop_map(|(id, route)| format!("{id:?}:{route}"));
    prop::collection::vec(member, 0..6).prop_map(|members| format!(r#"{{"routes":{{{}}}}}"#, members.join(",")))
}

/// Part of a URL, right or wrong.
fn url() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![4 => Just("http://"), 1 => Just("HTTPS://"), 1 => Just(""), 1 => Just("//"), 1 => Just("ftp://")];
    let user = prop_oneof![8 => Just(""), 1 => Just("u@"), 1 => Just("localhost@")];
    let host = prop_oneof![
        "localhost|127[.]0[.]0[.]1|0[.]0[.]0[.]0|\\[::1\\]|c[.]test|other[.]test",
        "[a-zA-Z0-9.%\\\\@:\\[\\]-]{0,12}"
    ];
    let port = prop_oneof![Just(""), Just(":1001"), Just(":1002"), Just(":8443"), Just(":443"), Just(":"), Just(":x")];
    let path = prop_oneof!["(/(agents|x|a2a|api|-|rest|[.]{1,3}|%2e|[a-z?#\\\\]{0,3})){0,6}", "[ -~]{0,12}"];
    (scheme, user, host, port, path).prop_map(|(scheme, user, host, port, path)| format!("{scheme}{user}{host}{port}{path}"))
}

fn interface() -> impl Strategy<Value = String> {
    let transport = prop_oneof![Just(""), Just(r#","transport":"GRPC""#), Just(r#","protocolBinding":"JSONRPC""#)];
    (url(), transport).prop_map(|(url, transport)| format!("{{\"url\":{}{transport}}}", serde_json::Value::from(url)))
}

fn agent_card() -> impl Strategy<Value = String> {
    let list = || prop::collection::vec(prop_oneof![4 => interface(), 1 => Just("[null]".to_owned())], 0..4);
    let rest = prop_oneof![4 => Just(r#","n":1e99"#), 1 => Just(r#","signatures":[1]"#), 1 => Just(r#","signatures":null"#), 1 => Just(",")];
    (url(), list(), list(), rest).prop_map(|(url, additional, supported, rest)| {
        let (url, additional, supported) = (serde_json::Value::from(url), additional.join(","), supported.join(" , "));
        format!(r#" {{"url": {url},"additionalInterfaces":[{additional}],"supportedInterfaces" : [{supported}]{rest}}}"#)
    })
}

fn request() -> impl Strategy<Value = String> {
    let head = prop_oneof![
        Just("PUT /v1/routes".to_owned()),
        Just("PATCH /v1/routes".to_owned()),
        Just("PATCH /v1/routes?dry_run=true".to_owned()),
        Just("PATCH /v1/routes \"0000000000000001-1\"".to_owned()),
        "(PUT|DELETE|GET) /v1/routes/[a-e%]",
        "[A-Z]{1,4} /v1/[a-z/?=%]{0,12}",
    ];
    (head, prop_oneof![3 => body(), 2 => route(), 1 => "[ -~]{0,20}"]).prop_map(|(head, body)| format!("{head}\n{body}\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn ids(bytes in prop_oneof![any::<Vec<u8>>(), "[a-zA-Z0-9._, \t-]{0,140}".prop_map(String::into_bytes)]) {
        id::check(&bytes);
    }

    #[test]
    fn tables(bytes in any::<Vec<u8>>()) {
        table::check(&bytes);
    }

    #[test]
    fn patches(text in body()) {
        patch::check(text.as_bytes());
    }

    #[test]
    fn cards(text in prop_oneof![8 => agent_card().prop_map(String::into_bytes), 1 => any::<Vec<u8>>()]) {
        card::check(&text);
    }

    #[test]
    fn requests(texts in prop::collection::vec(request(), 1..8)) {
        api::check(texts.concat().as_bytes());
    }
}
