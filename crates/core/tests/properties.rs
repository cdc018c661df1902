//! Properties of the core that hold for any input, checked against simple models.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use pixell_core::admin::body;
use pixell_core::decision::deployment_id;
use pixell_core::deployment_id::DeploymentId;
use pixell_core::endpoint::EndpointName;
use pixell_core::json::Json;
use pixell_core::route::{Route, RouteState};
use pixell_core::routes::change::{Change, Edit, Merge, MergeEndpoints};
use pixell_core::routes::limits::Limits;
use pixell_core::routes::{RouteCache, RouteMap, edition};
use pixell_core::store::memory::{MemoryData, MemorySignal};
use pixell_core::store::{Backend, PublishError, ROUTE_MAP, Stop, Stored, Update, prepare, publish};
use pixell_core::table::{Table, edit};
use pixell_core::timestamp::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

fn ids() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", "[A-Za-z0-9._-]{1,128}", "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"]
}

fn states() -> impl Strategy<Value = RouteState> {
    prop_oneof![Just(RouteState::Active), Just(RouteState::Draining)]
}

fn id(text: &str) -> DeploymentId<'_> {
    DeploymentId::parse(text.as_bytes()).unwrap()
}

fn name(text: &str) -> EndpointName {
    EndpointName::parse(text.as_bytes()).unwrap()
}

/// Few ports, so that routes meet.
fn ports() -> impl Strategy<Value = u16> {
    2000_u16..2030
}

/// Edits of few ids.
fn edits() -> impl Strategy<Value = BTreeMap<String, Edit>> {
    let names = || prop_oneof![Just(name("rest")), Just(name("ui")), Just(name("x"))];
    let route = (ports(), states(), btree_map(names(), ports(), 0..3));
    let each = btree_map(names(), prop::option::of(ports()), 0..3).prop_map(MergeEndpoints::Each);
    let endpoints = prop_oneof![4 => each, 1 => Just(MergeEndpoints::Clear)];
    let merge = (prop::option::of(ports()), prop::option::of(states()), endpoints);
    let edit = prop_oneof![
        4 => route.prop_map(|(port, state, endpoints)| Edit::Set(Route { port, state, endpoints })),
        2 => merge.prop_map(|(port, state, endpoints)| Edit::Merge(Merge { port, state, endpoints })),
        1 => Just(Edit::Remove),
    ];
    btree_map("[a-d][0-9]", edit, 0..8)
}

/// What the edits make of a plain map; `None` if they are not valid.
fn model_of(
    before: &BTreeMap<String, Route>,
    replace: bool,
    edits: &BTreeMap<String, Edit>,
) -> Option<BTreeMap<String, Route>> {
    let mut after = if replace { BTreeMap::new() } else { before.clone() };
    let mut owners = BTreeMap::new();
    for (id, edit) in edits {
        let route = match edit {
            Edit::Set(route) => Some(route.clone()),
            Edit::Remove => None,
            Edit::Merge(merge) => {
                let mut route = before.get(id).cloned().or(merge.port.map(Route::active))?;
                route.port = merge.port.unwrap_or(route.port);
                route.state = merge.state.unwrap_or(route.state);
                match &merge.endpoints {
                    MergeEndpoints::Clear => route.endpoints.clear(),
                    MergeEndpoints::Each(each) => {
                        for (name, port) in each {
                            match port {
                                Some(port) => route.endpoints.insert(*name, *port),
                                None => route.endpoints.remove(name),
                            };
                        }
                    }
                }
                Some(route)
            }
        };
        after.remove(id);
        if let Some(route) = route {
            for port in route.ports() {
                if owners.insert(port, id).is_some_and(|owner| owner != id) {
                    return None;
                }
            }
            after.insert(id.clone(), route);
        }
    }
    after.retain(|id, route| route.ports().all(|port| owners.get(&port).is_none_or(|owner| *owner == id)));
    (after.len() <= 20).then_some(after)
}

fn table(map: &BTreeMap<String, Vec<u8>>) -> Option<Vec<u8>> {
    let entries: Vec<_> = map.iter().map(|(text, value)| (id(text), Some(value.as_slice()))).collect();
    edit(None::<&Table<Vec<u8>>>, b"", entries.into_iter()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_table_finds_what_a_hash_map_finds(map in btree_map(ids(), vec(any::<u8>(), 0..255), 1..400), asked in vec(ids(), 0..50)) {
        let model: HashMap<&String, &Vec<u8>> = map.iter().collect();
        let table = Table::parse(table(&map).unwrap(), 0).unwrap();
        for text in map.keys().chain(&asked) {
            prop_assert_eq!(table.find(id(text)), model.get(text).map(|value| value.as_slice()));
        }
        let listed: BTreeMap<_, _> = table.iter().map(|(id, value)| (id.as_str().to_owned(), value.to_vec())).collect();
        prop_assert_eq!(listed, map);
    }

    #[test]
    fn any_bytes_are_an_id_or_rejected(bytes in vec(any::<u8>(), 0..200)) {
        let valid = (1..=128).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        prop_assert_eq!(DeploymentId::parse(&bytes).map(|id| id.as_str().as_bytes() == bytes).ok(), valid.then_some(true));
    }

    #[test]
    fn any_header_is_one_id_or_rejected(values in vec(vec(any::<u8>(), 0..8), 1..4), good in "[a-z]{1,3}", copies in 1_usize..4) {
        let _ = deployment_id(Some(&values.join(&b','))).map(DeploymentId::as_str);
        let equal = vec![good.as_bytes(); copies].join(&b", "[..]);
        prop_assert_eq!(deployment_id(Some(&equal)).map(DeploymentId::as_str), Ok(good.as_str()));
    }

    #[test]
    fn any_bytes_are_a_table_or_rejected(map in btree_map(ids(), vec(any::<u8>(), 0..9), 1..60), cut in any::<prop::sample::Index>(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
        let mut bytes = table(&map).unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(table) = Table::parse(bytes.as_slice(), 0) {
            let _ = table.find(id("a"));
            prop_assert!(table.iter().count() <= bytes.len());
        }
    }

    /// A stored map behaves like a plain one in which a port has one owner: each change is compared with the model.
    #[test]
    fn a_stored_map_is_a_map_with_one_owner_a_port(changes in vec((any::<bool>(), edits()), 1..12)) {
        let (data, signal) = (MemoryData::default(), MemorySignal::default());
        prepare(&data, &ROUTE_MAP);
        let backend = Backend { data: &data, signal: &signal, new_epoch: || 5, now: Timestamp::default };
        let mut model: BTreeMap<String, Route> = BTreeMap::new();
        let mut cache = RouteCache::default();
        for (replace, edits) in &changes {
            let change = Change { replace: *replace, edits: edits.iter().map(|(text, edit)| (id(text), edit.clone())).collect() };
            let published = publish(&backend, &ROUTE_MAP, |stored| {
                let map = RouteMap::new(stored);
                let applied = change.apply(&map, 20)?;
                Ok::<_, Stop<_>>(Update::Store(edition(&map, &applied).unwrap(), applied))
            });
            match (published, model_of(&model, *replace, edits)) {
                (Ok(published), Some(after)) => {
                    let gone: Vec<_> = model.keys().filter(|id| !after.contains_key(*id)).collect();
                    let removed: Vec<_> = published.outcome.removed.iter().map(|id| id.as_id().as_str()).collect();
                    prop_assert_eq!(removed, gone);
                    prop_assert_eq!(published.outcome.added, after.keys().filter(|id| !model.contains_key(*id)).count());
                    let changed = after.iter().filter(|(id, route)| model.get(*id).is_some_and(|before| before != *route));
                    prop_assert_eq!(published.outcome.changed, changed.count());
                    model = after;
                }
                (Err(PublishError::Rejected(_)), None) => {}
                (published, model) => prop_assert!(false, "{published:?} but {model:?}"),
            }
            let stored = Stored::now(&data, &ROUTE_MAP);
            let map = RouteMap::new(&stored);
            let found: BTreeMap<_, _> = map.routes().unwrap().into_iter().map(|(id, route)| (id.as_str().to_owned(), route)).collect();
            prop_assert_eq!(&found, &model);
            prop_assert_eq!(map.len(), model.len());
            cache.refresh(&data, &signal);
            let mut owners: HashMap<u16, &String> = HashMap::new();
            for (text, route) in &model {
                prop_assert_eq!(cache.find(text.as_bytes()).map(|route| route.to_route()), Some(route.clone()));
                owners.extend(route.ports().map(|port| (port, text)));
            }
            for port in 1999..2031 {
                prop_assert_eq!(map.owner(port), Ok(owners.get(&port).map(|text| id(text))));
            }
        }
    }

    #[test]
    fn any_body_is_a_change_or_rejected(text in ".{0,80}", noise in vec(any::<u8>(), 0..80)) {
        for bytes in [text.as_bytes(), &noise] {
            if let Ok(json) = Json::parse(bytes) {
                for outcome in [body::replacement(&json, &Limits::default()), body::patch(&json, &Limits::default())] {
                    prop_assert!(outcome.map_or_else(|errors| !errors.is_empty(), |_| true));
                }
            }
        }
    }
}
