//! A fleet map in memory, and what its readers see.

use super::change::{Change, Counts, Most, PeerEdit, PeerNames, RouteEdit};
use super::*;
use crate::problem::FieldErrors;
use crate::store::memory::{MemoryData, MemorySignal};
use crate::store::tests::Hooked;
use crate::store::{Backend, FLEET_MAP, NoEdition, PublishError, Published, ROUTE_MAP, Stop, Update, prepare, publish};
use crate::timestamp::Timestamp;
use std::collections::BTreeMap;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

pub(crate) fn id(text: &str) -> DeploymentId<'_> {
    DeploymentId::parse(text.as_bytes()).expect("valid")
}

/// An active peer at 10.0.1.`last`.
pub(crate) fn at(last: u8) -> Peer {
    Peer { host: [10, 0, 1, last].into(), state: PeerState::Active }
}

pub(crate) fn draining(last: u8) -> Peer {
    Peer { state: PeerState::Draining, ..at(last) }
}

/// A change that sets these peers and routes.
pub(crate) fn setting<'a>(replace: bool, peers: &[(&'a str, Peer)], routes: &[(&'a str, &[&'a str])]) -> Change<'a> {
    let names = |names: &[&'a str]| RouteEdit::Set(PeerNames::new(names.iter().map(|name| id(name)).collect()).expect("valid"));
    Change {
        replace,
        peers: peers.iter().map(|(name, peer)| (id(name), PeerEdit::Set(*peer))).collect(),
        routes: routes.iter().map(|(text, peers)| (id(text), names(peers))).collect(),
    }
}

pub(crate) fn prepared() -> MemoryData {
    let data = MemoryData::default();
    prepare(&data, &FLEET_MAP);
    data
}

/// Publishes a change through `signal`.
pub(crate) fn publish_with(
    data: &impl SharedData,
    signal: &MemorySignal,
    change: &Change<'_>,
    most: Most,
) -> Result<Published<Counts>, PublishError<FieldErrors>> {
    publish_at(data, signal, change, most, Timestamp::default())
}

/// The same at this time.
pub(crate) fn publish_at(
    data: &impl SharedData,
    signal: &MemorySignal,
    change: &Change<'_>,
    most: Most,
    now: Timestamp,
) -> Result<Published<Counts>, PublishError<FieldErrors>> {
    publish(&Backend { data, signal, new_epoch: || 7, now: Timestamp::default }, &FLEET_MAP, |stored| {
        let map = FleetMap::new(stored);
        let applied = change.apply(&map, most, now)?;
        match edition(&map, &applied) {
            Ok(edition) => Ok(Update::Store(edition, applied.counts)),
            Err(NoEdition::Moved) => Err(Stop::Moved),
            Err(NoEdition::TooLarge) => panic!("the map is small"),
        }
    })
}

pub(crate) const PLENTY: Most = Most { peers: 1000, routes: 100_000 };

/// Publishes a change that is known to be valid.
pub(crate) fn publish_change(data: &impl SharedData, signal: &MemorySignal, change: &Change<'_>) -> Published<Counts> {
    publish_with(data, signal, change, PLENTY).expect("published")
}

/// Peers by name, and the names of each route's peers.
pub(crate) type Plain = (BTreeMap<String, Peer>, BTreeMap<String, Vec<String>>);

/// The whole map.
pub(crate) fn plain(data: &impl SharedData) -> Plain {
    let stored = Stored::now(data, &FLEET_MAP);
    let map = FleetMap::new(&stored);
    read(&map).expect("nobody else writes")
}

fn read(map: &FleetMap<'_, impl SharedData>) -> Result<Plain, Moved> {
    let (peers, routes) = (map.peers()?, map.routes()?);
    assert_eq!((routes.len(), peers.len()), (map.len(), map.peer_count()?));
    let names = |route| peers.names_of(route).map(|name| name.as_str().to_owned()).collect();
    Ok((
        peers.iter().map(|(name, peer)| (name.as_str().to_owned(), peer)).collect(),
        routes.iter().map(|(id, route)| (id.as_str().to_owned(), names(route))).collect(),
    ))
}

/// What a worker's copy has for an id: the last byte of each peer's address.
fn hosts(cache: &FleetCache, id: &str) -> Option<Vec<(String, u8, PeerState)>> {
    let last = |peer: FleetPeer<'_>| match peer.host {
        std::net::IpAddr::V4(host) => (String::from_utf8_lossy(peer.name).into_owned(), host.octets()[3], peer.state),
        std::net::IpAddr::V6(_) => panic!("there are none"),
    };
    Some(cache.find(id.as_bytes())?.peers().map(last).collect())
}

#[test]
fn nothing_is_loaded_before_the_first_publish() {
    let (data, signal) = (prepared(), MemorySignal::default());
    let mut cache = FleetCache::default();
    assert!(cache.refresh(&data, &signal));
    assert!(!cache.is_loaded() && cache.find(b"x").is_none());
    assert_eq!(publish_change(&data, &signal, &setting(true, &[], &[])).version, Version { epoch: 7, generation: 1 });
    assert!(cache.refresh(&data, &signal));
    assert!(cache.is_loaded() && cache.find(b"x").is_none());
}

#[test]
fn a_reader_finds_peers_in_order_of_preference_as_they_are_now() {
    let (data, signal) = (prepared(), MemorySignal::default());
    let mut cache = FleetCache::default();
    let active = |name: &str, last| (name.to_owned(), last, PeerState::Active);
    let peers = [("b", at(2)), ("c", at(3)), ("d", draining(4))];
    publish_change(&data, &signal, &setting(true, &peers, &[("x", &["c", "b"]), ("y", &["d"])]));
    cache.refresh(&data, &signal);
    assert_eq!(hosts(&cache, "x"), Some(vec![active("c", 3), active("b", 2)]));
    assert_eq!(hosts(&cache, "y"), Some(vec![("d".to_owned(), 4, PeerState::Draining)]));
    assert_eq!((hosts(&cache, "z"), hosts(&cache, "")), (None, None));
    // A peer moves: its routes lead to its new address without being written.
    publish_change(&data, &signal, &setting(false, &[("c", at(9))], &[]));
    assert!(cache.refresh(&data, &signal) && !cache.refresh(&data, &signal));
    assert_eq!(hosts(&cache, "x"), Some(vec![active("c", 9), active("b", 2)]));
}

#[test]
fn it_shares_nothing_with_the_route_map() {
    let data = prepared();
    prepare(&data, &ROUTE_MAP);
    let signal = MemorySignal::default();
    publish_change(&data, &signal, &setting(true, &[("b", at(2))], &[("x", &["b"])]));
    assert_eq!(Stored::now(&data, &ROUTE_MAP).version(), Version::default());
    crate::routes::tests::publish_change(&data, &crate::routes::change::Change { replace: true, edits: vec![] });
    assert_eq!(plain(&data).1.len(), 1);
}

#[test]
fn a_new_peer_never_gets_the_number_of_one_that_goes_with_the_same_write() {
    let (data, signal) = (prepared(), MemorySignal::default());
    for round in 0..100_u8 {
        let name = format!("task-{round}");
        let before = FleetMap::new(&Stored::now(&data, &FLEET_MAP)).peers().map(|peers| peers.iter().count());
        assert_eq!(before, Ok(usize::from(round > 0)));
        let numbers = |data: &MemoryData| {
            let stored = Stored::now(data, &FLEET_MAP);
            let map = FleetMap::new(&stored);
            map.find(id("x")).expect("nobody else writes").map(|route| route.numbers().collect::<Vec<_>>())
        };
        let old = numbers(&data);
        publish_change(&data, &signal, &setting(true, &[(&name, at(round))], &[("x", &[&name])]));
        assert_ne!(numbers(&data), old);
        assert_eq!(plain(&data).1, [("x".to_owned(), vec![name])].into());
    }
}

/// Whatever comes between two steps of a write: both land, and nobody reads half of one.
#[test]
fn rivals_may_come_at_any_step() {
    let signal = MemorySignal::default();
    for rivals in 1..4_u8 {
        for step in 0.. {
            let data = prepared();
            publish_change(&data, &signal, &setting(true, &[("b", at(2)), ("c", at(3))], &[("x", &["b"]), ("y", &["c"])]));
            let mut come = false;
            let mut cache = FleetCache::default();
            let hooked = Hooked::new(&data, |number| {
                if number == step {
                    for n in 0..rivals {
                        let name = format!("rival-{n}");
                        publish_change(&data, &signal, &setting(false, &[(&name, at(100 + n))], &[(&name, &[&name, "c"])]));
                    }
                    come = true;
                }
                cache.refresh(&data, &signal);
                let (peers, routes) = plain(&data);
                // "x" goes over to a new peer in one write: never to one that is not there.
                assert_eq!(routes["x"].len(), 1);
                assert!(routes.values().flatten().all(|name| peers.contains_key(name)), "{peers:?} {routes:?}");
                let found = hosts(&cache, "x").expect("always there");
                assert!(matches!(found.as_slice(), [(name, 2 | 9, _)] if name == "b" || name == "new"), "{found:?}");
            });
            let mut change = setting(false, &[("new", at(9))], &[("x", &["new"])]);
            change.peers.push((id("b"), PeerEdit::Remove));
            publish_change(&hooked, &signal, &change);
            let (peers, routes) = plain(&data);
            assert_eq!(routes["x"], ["new"]);
            if !come {
                assert!(step >= 8, "{step}");
                break;
            }
            assert_eq!((peers.len(), routes.len()), (2 + usize::from(rivals), 2 + usize::from(rivals)));
        }
    }
}

#[test]
fn keys_are_bounded_as_peers_and_ids_come_and_go() {
    let (data, signal) = (prepared(), MemorySignal::default());
    let keys = data.keys();
    for n in 0..300 {
        let name = format!("task-{n}");
        publish_change(&data, &signal, &setting(true, &[(&name, at(1))], &[(&format!("id-{n}"), &[&name])]));
    }
    assert_eq!((plain(&data).1.len(), data.keys()), (1, keys));
}

/// The largest map: a change of one route or of one peer stores no more than the tables that it concerns.
#[test]
fn a_change_in_the_largest_map_stores_what_it_concerns() {
    let (data, signal) = (prepared(), MemorySignal::default());
    let peers: Vec<(String, Peer)> = (0..1000_u16).map(|n| (format!("task-{n}"), at((n % 200).to_le_bytes()[0]))).collect();
    let ids: Vec<String> = (0..100_000).map(|n| format!("deployment-{n}")).collect();
    let change = Change {
        replace: true,
        peers: peers.iter().map(|(name, peer)| (id(name), PeerEdit::Set(*peer))).collect(),
        routes: ids
            .iter()
            .zip((0..1000).cycle())
            .map(|(text, n)| (id(text), RouteEdit::Set(PeerNames::new(vec![id(&peers[n].0)]).expect("valid"))))
            .collect(),
    };
    assert_eq!(publish_change(&data, &signal, &change).outcome, Counts { added: 100_000, ..Counts::default() });
    let mut cache = FleetCache::default();
    cache.refresh(&data, &signal);
    assert_eq!(hosts(&cache, "deployment-54321").map(|found| found[0].0.clone()), Some("task-321".to_owned()));
    let shards = |change: &Change<'_>| {
        let stored = Stored::now(&data, &FLEET_MAP);
        let map = FleetMap::new(&stored);
        let applied = change.apply(&map, PLENTY, Timestamp::default()).expect("valid");
        let edition = edition(&map, &applied).expect("it fits");
        edition.shards.iter().map(|(number, bytes)| (*number, bytes.as_ref().map_or(0, Vec::len))).collect::<Vec<_>>()
    };
    let [(table, bytes)] = shards(&setting(false, &[], &[("deployment-5", &["task-1", "task-2"])]))[..] else { panic!() };
    assert!(table < ID_SHARDS && bytes < 20_000, "{bytes}");
    let [(PEER_SHARD, bytes)] = shards(&setting(false, &[("task-7", draining(7))], &[]))[..] else { panic!() };
    assert!(bytes < 40_000, "{bytes}");
    assert!(shards(&Change { replace: true, ..change.clone() }).is_empty(), "the same map again");
    // Nobody finds half of it.
    let removal = Change { peers: vec![(id("task-7"), PeerEdit::Remove)], ..Change::default() };
    assert!(matches!(publish_with(&data, &signal, &removal, PLENTY), Err(PublishError::Rejected(_))));
}
