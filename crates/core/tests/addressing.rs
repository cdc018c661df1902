//! Properties of addressing: whatever a client sends reaches an endpoint of the id that it names, and of no other.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use pixell_core::addressing::prefix::PathPrefix;
use pixell_core::addressing::{Addressing, Named, Parts, stripped};
use pixell_core::decision::{Decision, Routes, decide};
use pixell_core::deployment_id::DeploymentId;
use pixell_core::endpoint::EndpointName;
use pixell_core::route::Route;
use pixell_core::routes::change::{Change, Edit};
use pixell_core::routes::{RouteCache, RouteMap, edition};
use pixell_core::store::memory::{MemoryData, MemorySignal};
use pixell_core::store::{Backend, ROUTE_MAP, Stop, Update, prepare, publish};
use pixell_core::timestamp::Timestamp;
use proptest::prelude::*;

/// Paths near those that name an agent: ids that exist, ids that do not, and what might be taken for one.
fn paths() -> impl Strategy<Value = Vec<u8>> {
    let segment = prop_oneof![
        6 => "agents|a|b|A|a2a|api|ui|rest|-|x",
        4 => "%61|a%2fb|[.]|[.][.]|%2e%2e|a;x|b[?]|a[?]/agents/b||%00|a\u{e9}|agents%2fb",
    ];
    let built = proptest::collection::vec(segment, 0..6).prop_map(|segments| format!("/{}", segments.join("/")).into_bytes());
    let below = "(/(a|b|x|a2a|-|[.][.]|%2e)){0,4}[?]?".prop_map(|rest| format!("/agents/a{rest}").into_bytes());
    prop_oneof![4 => built, 4 => below, 1 => proptest::collection::vec(any::<u8>(), 0..40)]
}

fn addressing() -> Addressing {
    Addressing { prefixes: PathPrefix::defaults(), host_suffix: Some(".h.test".to_owned()) }
}

/// A map in which `a` has the ports 1000 to 1002 and `b` 2000 to 2002.
fn map() -> RouteCache {
    let (data, signal) = (MemoryData::default(), MemorySignal::default());
    prepare(&data, &ROUTE_MAP);
    let backend = Backend { data: &data, signal: &signal, new_epoch: || 5, now: Timestamp::default };
    let route = |port: u16| Route {
        endpoints: [(EndpointName::REST, port + 1), (EndpointName::UI, port + 2)].into(),
        ..Route::active(port)
    };
    let id = |text: &'static str| DeploymentId::parse(text.as_bytes()).unwrap();
    let change = Change { replace: true, edits: vec![(id("a"), Edit::Set(route(1000))), (id("b"), Edit::Set(route(2000)))] };
    let published = publish(&backend, &ROUTE_MAP, |stored| {
        let map = RouteMap::new(stored);
        let applied = change.apply(&map, 20)?;
        Ok::<_, Stop<_>>(Update::Store(edition(&map, &applied).unwrap(), applied))
    });
    assert!(published.is_ok());
    let mut cache = RouteCache::default();
    cache.refresh(&data, &signal);
    cache
}

thread_local! {
    static MAP: RouteCache = map();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_prefix_is_a_part_of_the_path_and_its_id_the_second_segment(path in paths()) {
        let addressing = addressing();
        let parts = Parts { header: None, path: &path, authority: b"c.test" };
        let Named::ByPath { id, prefix, rest, .. } = addressing.find(&parts) else { return Ok(()) };
        prop_assert_eq!([prefix, rest].concat(), path.clone());
        prop_assert!(rest.is_empty() || rest.starts_with(b"/") || rest.starts_with(b"?"));
        let mut segments = path.split(|byte| matches!(byte, b'/' | b'?')).skip(1);
        prop_assert_eq!(segments.next().unwrap(), b"agents");
        prop_assert_eq!(segments.next().unwrap(), id);
        // What the agent receives begins with a slash, and with the prefix before it names the same again.
        let received = stripped(rest);
        prop_assert!(received.starts_with(b"/") && received.ends_with(rest));
        let again = [prefix, &received].concat();
        let Named::ByPath { id: same_id, rest: same_rest, .. } = addressing.find(&Parts { path: &again, ..parts }) else {
            panic!("{}", again.escape_ascii());
        };
        prop_assert_eq!((same_id, stripped(same_rest)), (id, received));
    }

    #[test]
    fn a_request_reaches_a_port_of_the_id_that_it_names(path in paths(), host in "(a|b|A|a[.]b|%61)?[.]h[.]test(:1)?|a|c[.]test") {
        let addressing = addressing();
        let named = addressing.find(&Parts { header: None, path: &path, authority: host.as_bytes() });
        let decision = MAP.with(|map| decide(named, &Routes { map, fallback_port: None, peers: None }));
        let Decision::Forward { id, ports } = decision else { return Ok(()) };
        let (Named::ByPath { id: named_id, .. } | Named::ByHost { id: named_id }) = named else { panic!("{named:?}") };
        prop_assert_eq!(id, named_id);
        for port in [ports.grpc, ports.other] {
            prop_assert!(matches!((id, port), (b"a", 1000..=1002) | (b"b", 2000..=2002)), "{} {}", id.escape_ascii(), port);
        }
    }

    #[test]
    fn nothing_but_the_header_counts_if_there_is_one(header in "a|b|x|a, a|a,b", path in paths(), host in "b[.]h[.]test|c[.]test") {
        let parts = Parts { header: Some(header.as_bytes()), path: &path, authority: host.as_bytes() };
        let addressing = addressing();
        prop_assert_eq!(addressing.find(&parts), Named::ByHeader { value: header.as_bytes() });
    }
}
