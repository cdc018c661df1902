//! Properties of the core that hold for any input, checked against simple models.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use pixell_router::admin::body;
use pixell_router::change::{Change, Edit};
use pixell_router::config::Limits;
use pixell_router::decision::deployment_id;
use pixell_router::deployment_id::DeploymentId;
use pixell_router::json::Json;
use pixell_router::route::{Route, RouteState};
use pixell_router::snapshot::{Snapshot, encode};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

fn ids() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", "[A-Za-z0-9._-]{1,128}", "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"]
}

fn routes() -> impl Strategy<Value = Route> {
    let state = prop_oneof![Just(RouteState::Active), Just(RouteState::Draining)];
    (1..=u16::MAX, state).prop_map(|(port, state)| Route { port, state })
}

fn id(text: &str) -> DeploymentId<'_> {
    DeploymentId::parse(text.as_bytes()).unwrap()
}

/// A map in which every port has one owner.
fn maps() -> impl Strategy<Value = BTreeMap<String, Route>> {
    btree_map(ids(), routes(), 0..60).prop_map(|map| {
        let mut ports = std::collections::HashSet::new();
        map.into_iter().filter(|(_, route)| ports.insert(route.port)).collect()
    })
}

fn snapshot(map: &BTreeMap<String, Route>) -> Snapshot<Vec<u8>> {
    Snapshot::parse(encode(9, 4, map.iter().map(|(text, route)| (id(text), *route))).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_finds_what_a_hash_map_finds(map in btree_map(ids(), routes(), 0..400), asked in vec(ids(), 0..50)) {
        let model: HashMap<&String, &Route> = map.iter().collect();
        let snapshot = snapshot(&map);
        for text in map.keys().chain(&asked) {
            prop_assert_eq!(snapshot.find(id(text)), model.get(text).map(|route| **route));
        }
        let listed: BTreeMap<String, Route> = snapshot.iter().map(|(id, route)| (id.as_str().to_owned(), route)).collect();
        prop_assert_eq!(listed, map);
    }

    #[test]
    fn any_bytes_are_an_id_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let valid = (1..=128).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        prop_assert_eq!(DeploymentId::parse(&bytes).map(|id| id.as_str().as_bytes() == bytes).ok(), valid.then_some(true));
    }

    #[test]
    fn any_header_is_one_id_or_refused(values in vec(vec(any::<u8>(), 0..8), 1..4), good in "[a-z]{1,3}", copies in 1_usize..4) {
        let _ = deployment_id(Some(&values.join(&b','))).map(DeploymentId::as_str);
        let equal = vec![good.as_bytes(); copies].join(&b", "[..]);
        prop_assert_eq!(deployment_id(Some(&equal)).map(DeploymentId::as_str), Ok(good.as_str()));
    }

    #[test]
    fn any_bytes_are_a_snapshot_or_refused(map in maps(), cut in any::<prop::sample::Index>(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
        let mut bytes = encode(9, 4, map.iter().map(|(text, route)| (id(text), *route))).unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(snapshot) = Snapshot::parse(bytes.as_slice()) {
            let _ = snapshot.find(id("a"));
            prop_assert!(snapshot.iter().count() <= bytes.len());
        }
    }

    /// A merge patch leads to the same map as replacing the whole by the patched document.
    #[test]
    fn a_patch_is_a_replacement_by_the_patched_map(before in maps(), patch in btree_map(ids(), prop::option::of(routes()), 0..20)) {
        let current: BTreeMap<_, _> = before.iter().map(|(text, route)| (id(text), *route)).collect();
        let edits = patch.iter().map(|(text, route)| (id(text), route.map_or(Edit::Remove, Edit::Set))).collect();
        let Ok(patched) = (Change { replace: false, edits }).apply(&current, usize::MAX) else {
            // Only two ids of the patch with one port are refused.
            let mut ports: Vec<u16> = patch.values().flatten().map(|route| route.port).collect();
            ports.sort_unstable();
            prop_assert!(ports.windows(2).any(|pair| pair[0] == pair[1]));
            return Ok(());
        };
        let edits = patched.routes.iter().map(|(id, route)| (*id, Edit::Set(*route))).collect();
        let replaced = Change { replace: true, edits }.apply(&current, usize::MAX).unwrap();
        prop_assert_eq!(&replaced, &patched);
        let mut owners = std::collections::HashSet::new();
        prop_assert!(patched.routes.values().all(|route| owners.insert(route.port)), "one port one id");
        prop_assert_eq!(patched.routes.len() + patched.removed, current.len() + patched.added);
    }

    #[test]
    fn any_body_is_a_change_or_refused(text in ".{0,80}", noise in vec(any::<u8>(), 0..80)) {
        for bytes in [text.as_bytes(), &noise] {
            if let Ok(json) = Json::parse(bytes) {
                for outcome in [body::replacement(&json, &Limits::default()), body::patch(&json, &Limits::default())] {
                    prop_assert!(outcome.map_or_else(|faults| !faults.is_empty(), |_| true));
                }
            }
        }
    }
}
