//! A property of the fleet map: it behaves as two plain maps do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use pixell_core::deployment_id::DeploymentId;
use pixell_core::fleet::change::{Change, Most, PeerEdit, PeerNames, RouteEdit};
use pixell_core::fleet::{FleetCache, FleetMap, Peer, PeerState, edition};
use pixell_core::store::memory::{MemoryData, MemorySignal};
use pixell_core::store::{Backend, FLEET_MAP, PublishError, Stop, Stored, Update, prepare, publish};
use pixell_core::timestamp::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;

const MOST: Most = Most { peers: 5, routes: 12 };

/// Peers by name, each with the second since which it is so, and the names of each route's peers.
type Model = (BTreeMap<String, (Peer, u64)>, BTreeMap<String, Vec<String>>);
/// A change of it: what a route gets, or that it goes.
type Edits = (bool, BTreeMap<String, PeerEdit>, BTreeMap<String, Option<Vec<String>>>);

fn id(text: &str) -> DeploymentId<'_> {
    DeploymentId::parse(text.as_bytes()).unwrap()
}

fn names() -> impl Strategy<Value = String> {
    "[p-v]"
}

/// Changes of few peers and ids, so that they meet.
fn edits() -> impl Strategy<Value = Edits> {
    let host = (any::<bool>(), 1_u8..4).prop_map(|(old, last)| match old {
        true => [10, 0, 0, last].into(),
        false => [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
    });
    let states = || prop_oneof![Just(PeerState::Active), Just(PeerState::Draining)];
    let peer = prop_oneof![
        4 => (host.clone(), states()).prop_map(|(host, state)| PeerEdit::Set(Peer { host, state })),
        1 => (prop::option::of(host), prop::option::of(states())).prop_map(|(host, state)| PeerEdit::Merge { host, state }),
        1 => Just(PeerEdit::Remove),
    ];
    let different = |names: Vec<String>| if names.first() == names.get(1) { names[..1].to_vec() } else { names };
    let route = prop_oneof![6 => vec(names(), 1..3).prop_map(move |names| Some(different(names))), 2 => Just(None)];
    (prop::bool::weighted(0.2), btree_map(names(), peer, 0..6), btree_map("[a-d][0-3]", route, 0..6))
}

/// What the change makes of plain maps at the second `now`; `None` if it may not.
fn changed((peers, routes): &Model, (replace, peer_edits, route_edits): &Edits, now: u64) -> Option<Model> {
    let (mut after, mut served) = if *replace { (BTreeMap::new(), BTreeMap::new()) } else { (peers.clone(), routes.clone()) };
    for (name, edit) in peer_edits {
        after.remove(name);
        let before = peers.get(name);
        let peer = match edit {
            PeerEdit::Remove => continue,
            PeerEdit::Set(peer) => *peer,
            PeerEdit::Merge { host, state } => Peer {
                host: host.or(before.map(|(peer, _)| peer.host))?,
                state: state.or(before.map(|(peer, _)| peer.state)).unwrap_or(PeerState::Active),
            },
        };
        let since = before.filter(|(before, _)| *before == peer).map_or(now, |(_, since)| *since);
        after.insert(name.clone(), (peer, since));
    }
    for (id, names) in route_edits {
        served.remove(id);
        served.extend(names.clone().map(|names| (id.clone(), names)));
    }
    let valid = |names: &Vec<String>| names.iter().all(|name| after.contains_key(name));
    (served.values().all(valid) && after.len() <= MOST.peers && served.len() <= MOST.routes).then_some((after, served))
}

fn change_of<'a>((replace, peers, routes): &'a Edits) -> Change<'a> {
    let route = |names: &'a Option<Vec<String>>| match names {
        Some(names) => RouteEdit::Set(PeerNames::new(names.iter().map(|name| id(name)).collect()).unwrap()),
        None => RouteEdit::Remove,
    };
    Change {
        replace: *replace,
        peers: peers.iter().map(|(name, edit)| (id(name), *edit)).collect(),
        routes: routes.iter().map(|(text, names)| (id(text), route(names))).collect(),
    }
}

fn stored(data: &MemoryData) -> Model {
    let stored = Stored::now(data, &FLEET_MAP);
    let map = FleetMap::new(&stored);
    let (peers, routes) = (map.peers().unwrap(), map.routes().unwrap());
    assert_eq!((map.len(), map.peer_count().unwrap()), (routes.len(), peers.len()));
    let names = |route| peers.names_of(route).map(|name| name.as_str().to_owned()).collect();
    let routes: BTreeMap<_, Vec<String>> = routes.iter().map(|(id, route)| (id.as_str().to_owned(), names(route))).collect();
    let reports = map.reports().unwrap();
    assert!(reports.iter().map(|report| (report.name, report.peer)).eq(peers.iter()));
    for report in &reports {
        let serves = |names: &&Vec<String>| names.iter().any(|name| name == report.name.as_str());
        assert_eq!(report.routes, routes.values().filter(serves).count());
    }
    let dated = reports.iter().map(|report| (report.name.as_str().to_owned(), (report.peer, report.since.as_unix())));
    (dated.collect(), routes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_stored_fleet_is_two_plain_maps(changes in vec(edits(), 1..12)) {
        let (data, signal) = (MemoryData::default(), MemorySignal::default());
        prepare(&data, &FLEET_MAP);
        let backend = Backend { data: &data, signal: &signal, new_epoch: || 5, now: Timestamp::default };
        let mut model = Model::default();
        let mut cache = FleetCache::default();
        for (now, edits) in (1..).zip(&changes) {
            let change = change_of(edits);
            let published = publish(&backend, &FLEET_MAP, |stored| {
                let map = FleetMap::new(stored);
                let applied = change.apply(&map, MOST, Timestamp::from_unix(now))?;
                if applied.is_empty() {
                    return Ok(Update::Keep(applied.counts));
                }
                Ok::<_, Stop<_>>(Update::Store(edition(&map, &applied).unwrap(), applied.counts))
            });
            match (published, changed(&model, edits, now)) {
                (Ok(published), Some(after)) => {
                    let counts = published.outcome;
                    let kept = |(id, _): &(&String, &Vec<String>)| model.1.contains_key(*id);
                    prop_assert_eq!(counts.added, after.1.iter().filter(|route| !kept(route)).count());
                    prop_assert_eq!(counts.changed, after.1.iter().filter(|route| kept(route) && model.1[route.0] != *route.1).count());
                    prop_assert_eq!(counts.removed, model.1.keys().filter(|id| !after.1.contains_key(*id)).count());
                    prop_assert_eq!(published.stored, model != after);
                    model = after;
                }
                (Err(PublishError::Rejected(errors)), None) => prop_assert!(!errors.is_empty()),
                (published, model) => prop_assert!(false, "{published:?} but {model:?}"),
            }
            prop_assert_eq!(&stored(&data), &model);
            cache.refresh(&data, &signal);
            for (text, names) in &model.1 {
                let found: Vec<_> = cache.find(text.as_bytes()).unwrap().peers().collect();
                let expected: Vec<_> = names.iter().map(|name| (name.as_bytes(), model.0[name].0)).collect();
                let found: Vec<_> = found.iter().map(|found| (found.name, Peer { host: found.host, state: found.state })).collect();
                prop_assert_eq!(found, expected);
            }
            prop_assert!(cache.find(b"z9").is_none());
        }
    }
}
