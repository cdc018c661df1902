//! A route map in memory, and what its readers see.

use super::change::{Change, Edit, Invalid};
use super::*;
use crate::store::memory::{MemoryData, MemorySignal};
use crate::store::{Backend, NoEdition, PublishError, Published, Stop, Update, prepare, publish};
use crate::timestamp::Timestamp;
use std::collections::BTreeMap;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

pub(crate) fn id(text: &str) -> DeploymentId<'_> {
    DeploymentId::parse(text.as_bytes()).expect("valid")
}

/// A prepared store with a map of these routes.
pub(crate) fn map_of(routes: &[(&str, Route)]) -> MemoryData {
    let data = MemoryData::default();
    prepare(&data, &ROUTE_MAP);
    let edits = routes.iter().map(|(text, route)| (id(text), Edit::Set(route.clone()))).collect();
    publish_change(&data, &Change { replace: true, edits });
    data
}

/// Publishes a change through `signal`.
pub(crate) fn publish_with<D: SharedData>(
    data: &D,
    signal: &MemorySignal,
    change: &Change<'_>,
) -> Result<Published<change::Applied>, PublishError<Invalid>> {
    publish(&Backend { data, signal, new_epoch: || 7, now: Timestamp::default }, &ROUTE_MAP, |stored| {
        let map = RouteMap::new(stored);
        let applied = change.apply(&map, usize::MAX)?;
        match edition(&map, &applied) {
            Ok(edition) => Ok(Update::Store(edition, applied)),
            Err(NoEdition::Moved) => Err(Stop::Moved),
            Err(NoEdition::TooLarge) => panic!("the map is small"),
        }
    })
}

/// Publishes a change that is known to be valid.
pub(crate) fn publish_change(data: &MemoryData, change: &Change<'_>) {
    assert!(publish_with(data, &MemorySignal::default(), change).is_ok());
}

/// The whole map.
pub(crate) fn routes_of(data: &impl SharedData) -> BTreeMap<String, Route> {
    let stored = Stored::now(data, &ROUTE_MAP);
    let map = RouteMap::new(&stored);
    let routes = map.routes().expect("nobody else writes");
    assert_eq!(routes.len(), map.len());
    routes.into_iter().map(|(id, route)| (id.as_str().to_owned(), route)).collect()
}

/// Publishes one active route and gives the generation.
fn put(data: &MemoryData, signal: &MemorySignal, name: &str, port: u16) -> u64 {
    let change = Change { replace: false, edits: vec![(id(name), Edit::Set(Route::active(port)))] };
    publish_with(data, signal, &change).expect("published").version.generation
}

fn prepared() -> (MemoryData, MemorySignal) {
    let data = MemoryData::default();
    prepare(&data, &ROUTE_MAP);
    (data, MemorySignal::default())
}

#[test]
fn nothing_is_loaded_before_the_first_publish() {
    let (data, signal) = prepared();
    let mut cache = RouteCache::default();
    assert!(cache.refresh(&data, &signal));
    assert!(!cache.is_loaded() && cache.find(b"a").is_none());
    let stored = Stored::now(&data, &ROUTE_MAP);
    assert!(!RouteMap::new(&stored).is_loaded());
    assert_eq!(RouteMap::new(&stored).version(), Version::default());
    put(&data, &signal, "a", 1);
    assert!(cache.refresh(&data, &signal));
    assert!(cache.is_loaded());
}

#[test]
fn preparing_again_keeps_the_map() {
    let (data, signal) = prepared();
    assert_eq!(put(&data, &signal, "a", 1), 1);
    prepare(&data, &ROUTE_MAP);
    assert_eq!(Stored::now(&data, &ROUTE_MAP).version(), Version { epoch: 7, generation: 1 });
    assert_eq!(routes_of(&data), [("a".to_owned(), Route::active(1))].into());
}

#[test]
fn a_reader_finds_what_was_published_last() {
    let (data, signal) = prepared();
    let mut cache = RouteCache::default();
    // Enough that many tables change between two refreshes.
    for round in 0..4_u16 {
        for n in 0..300_u16 {
            put(&data, &signal, &format!("id-{n}"), 1000 + n + round);
        }
        assert!(cache.refresh(&data, &signal));
        assert!(!cache.refresh(&data, &signal));
        for n in 0..300_u16 {
            assert_eq!(cache.find(format!("id-{n}").as_bytes()).map(|route| route.port), Some(1000 + n + round));
        }
        assert_eq!(cache.find(b"id-300"), None);
        assert_eq!(cache.find(b""), None);
        assert_eq!(cache.find(&[b'x'; 300]), None);
    }
}

#[test]
fn keys_are_bounded_as_ids_come_and_go() {
    let (data, signal) = prepared();
    let keys = data.keys();
    for n in 0..4000 {
        // Two ids at a time on two ports: the one before the last is displaced.
        put(&data, &signal, &format!("id-{n}"), 1 + n % 2);
    }
    assert_eq!((routes_of(&data).len(), data.keys()), (2, keys));
}
