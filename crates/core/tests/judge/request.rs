//! Requests, as a host shows them: near those that name an agent, and far from them.

use pixell_core::data_path::{Header, RequestHost};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// A request, its fields of one name joined by commas.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: Vec<u8>,
    pub(crate) authority: Vec<u8>,
    pub(crate) headers: BTreeMap<&'static str, Vec<u8>>,
}

impl RequestHost for Request {
    fn header(&self, header: &Header) -> Option<Cow<'_, [u8]>> {
        self.headers.get(header.name.as_str()).filter(|value| !value.is_empty()).map(Cow::from)
    }

    fn has(&self, header: &Header) -> bool {
        self.headers.contains_key(header.name.as_str())
    }

    fn path(&self) -> Cow<'_, [u8]> {
        (&self.path).into()
    }

    fn authority(&self) -> Cow<'_, [u8]> {
        (&self.authority).into()
    }

    fn method(&self) -> Cow<'_, [u8]> {
        self.method.as_bytes().into()
    }

    fn is_https(&self) -> bool {
        false
    }

    fn bound_port(&self) -> Option<u16> {
        None
    }

    fn age(&self) -> Duration {
        Duration::ZERO
    }

    fn was_connected(&self) -> bool {
        false
    }

    fn trail(&self) -> Option<Cow<'_, [u8]>> {
        None
    }

    fn is_from_peer(&self) -> bool {
        false
    }

    fn returns(&self) -> u8 {
        0
    }

    fn details(&self) -> Option<Cow<'_, [u8]>> {
        None
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

pub(crate) fn requests() -> impl Strategy<Value = Request> {
    let id = || prop_oneof![16 => select(vec!["a", "b", "c", "d"]), 4 => select(vec!["x", "A", "%61", "..", "", "a;b", "a:b"])];
    let values = prop_oneof![
        8 => id().prop_map(str::to_owned),
        1 => (id(), id()).prop_map(|(one, other)| format!("{one},{other}")),
        1 => id().prop_map(|id| format!("{id}, {id}")),
        1 => (1_usize..140).prop_map(|len| "a".repeat(len)),
    ];
    let names = select(vec!["x-deployment-id", "deployment-id", "deployment_id", "other"]);
    let id_headers = prop_oneof![2 => Just(Vec::new()), 1 => vec((names, values), 0..4)];
    let noise = vec(
        (select(vec!["x-forwarded-prefix", "x-forwarded-host", "x-envoy-original-path", "host", "x-pixell-addressed"]), id()),
        0..3,
    );
    let below = || {
        select(vec![
            "",
            "/",
            "/p.S/M",
            "/a2a",
            "/b//c",
            "/../b",
            "/agents/b",
            "/.well-known/agent-card.json",
            "/.well-known/agent.json",
        ])
    };
    let query = || select(vec!["", "?", "?q=/agents/b", "?/"]);
    let name = select(vec!["a2a", "rest", "ui", "x-1", "none", "", "UI", "%75i", "abcdefghijklmnopq"]);
    let start = (id(), name).prop_flat_map(|(id, name)| {
        select(vec![
            format!("/agents/{id}"),
            format!("/agents/{id}/a2a"),
            format!("/agents/{id}/api"),
            format!("/agents/{id}/ui"),
            format!("/agents/{id}/-/{name}"),
            format!("/ui/{id}"),
            format!("/e/{name}/{id}"),
            format!("//agents/{id}"),
            format!("/agent/{id}"),
            String::new(),
        ])
    });
    let paths = prop_oneof![
        12 => (start, below(), query()).prop_map(|(start, below, query)| format!("{start}{below}{query}").into_bytes()),
        1 => vec(any::<u8>(), 0..30).prop_map(|bytes| [b"/agents/", &bytes[..]].concat()),
        1 => select(vec!["", "*", "a", "agents/a", "http://h/agents/a"]).prop_map(|path| path.as_bytes().to_vec()),
    ];
    let host =
        (id(), select(vec![".h.test", ".H.Test", ".h.test:50051", ".h.test:", ".h.test:x", ".other.test", "", ".h.test."]));
    let content_types = prop_oneof![
        3 => Just(None),
        2 => Just(Some("application/grpc")),
        4 => select(vec!["application/grpc+proto", "application/grpc;charset=utf-8", "application/grpc ; a=b", "application/grpc-web",
            "application/grpcx", "application/json", "text/plain; application/grpc", ""]).prop_map(Some),
    ];
    let method = select(vec!["GET", "POST", "HEAD", "OPTIONS", "DELETE", "BREW"]);
    (method, paths, host, id_headers, content_types, noise).prop_map(
        |(method, path, (id, end), id_headers, content_type, noise)| {
            let mut headers: BTreeMap<_, Vec<u8>> = noise.into_iter().map(|(name, value)| (name, value.into())).collect();
            headers.extend(id_headers.into_iter().map(|(name, value)| (name, value.into_bytes())));
            headers.extend(content_type.map(|value| ("content-type", value.into())));
            Request { method, path, authority: format!("{id}{end}").into_bytes(), headers }
        },
    )
}
