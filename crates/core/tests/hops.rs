//! Properties of hops: a request goes to peers that the fleet map names for its id, to each of them once, and comes to an end.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use pixell_core::addressing::Named;
use pixell_core::decision::{Decision, Routes, decide};
use pixell_core::deployment_id::DeploymentId;
use pixell_core::fleet::change::{Change, Most, PeerEdit, PeerNames, RouteEdit};
use pixell_core::fleet::{FleetCache, FleetMap, Peer, PeerState, edition};
use pixell_core::hop::{Attempt, Choice, Failed, Failure, Peers, Trail};
use pixell_core::routes::RouteCache;
use pixell_core::store::memory::{MemoryData, MemorySignal};
use pixell_core::store::{Backend, FLEET_MAP, Stop, Update, prepare, publish};
use pixell_core::timestamp::Timestamp;
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;

const ID: &str = "a";
const OTHER: &str = "b";

fn host(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

/// A fleet map in which `a` has these peers, by number and whether they are active, and `b` the next hundred.
fn fleet(peers: &[(u8, bool)]) -> FleetCache {
    let (data, signal) = (MemoryData::default(), MemorySignal::default());
    prepare(&data, &FLEET_MAP);
    let names: Vec<_> = peers.iter().map(|(number, _)| format!("p{number}")).collect();
    let id = |text: &'static str| DeploymentId::parse(text.as_bytes()).unwrap();
    let names: Vec<_> = names.iter().map(|name| DeploymentId::parse(name.as_bytes()).unwrap()).collect();
    let set = |number: u8, is_active: bool| {
        let state = if is_active { PeerState::Active } else { PeerState::Draining };
        PeerEdit::Set(Peer { host: host(number), state })
    };
    let mut edits: Vec<_> = names.iter().zip(peers).map(|(name, (number, active))| (*name, set(*number, *active))).collect();
    edits.push((id("other"), set(200, true)));
    let mut routes = vec![(id(OTHER), RouteEdit::Set(PeerNames::new(vec![id("other")]).unwrap()))];
    if !names.is_empty() {
        routes.push((id(ID), RouteEdit::Set(PeerNames::new(names).unwrap())));
    }
    let change = Change { replace: true, peers: edits, routes };
    let backend = Backend { data: &data, signal: &signal, new_epoch: || 5, now: Timestamp::default };
    let published = publish(&backend, &FLEET_MAP, |stored| {
        let map = FleetMap::new(stored);
        let applied = change.apply(&map, Most { peers: 1000, routes: 1000 }, Timestamp::default())?;
        Ok::<_, Stop<_>>(Update::Store(edition(&map, &applied).unwrap(), ()))
    });
    assert!(published.is_ok());
    let mut cache = FleetCache::default();
    cache.refresh(&data, &signal);
    cache
}

fn peers() -> impl Strategy<Value = Vec<(u8, bool)>> {
    vec((1_u8..100, any::<bool>()), 0..=16).prop_map(|mut peers| {
        peers.sort_unstable_by_key(|(number, _)| *number);
        peers.dedup_by_key(|(number, _)| *number);
        peers
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_edge_sends_a_request_to_an_active_peer_of_its_id(
        peers in peers(),
        down in hash_map(1_u8..100, any::<bool>(), 0..20),
        header in "a|b|c|a, a|a,b| a",
    ) {
        let (map, routes, mut failed) = (fleet(&peers), RouteCache::default(), Failed::default());
        for (number, is_closed) in &down {
            failed.add(host(*number), if *is_closed { Failure::Closed } else { Failure::Unreachable }, Duration::ZERO);
        }
        let routes = Routes { map: &routes, fallback_port: None, peers: Some(Peers { map: &map, failed: &failed }) };
        let decision = decide(Named::ByHeader { value: header.as_bytes() }, &routes);
        let active = || peers.iter().filter(|(_, active)| *active);
        let well = active().filter(|(number, _)| !down.contains_key(number));
        // Who ended a connection comes last.
        let up: Vec<_> = well.chain(active().filter(|(number, _)| down.get(number) == Some(&true))).collect();
        if let Decision::Hop { id, host: found } = decision {
            let expected = match id {
                b"a" => up.first().map(|(number, _)| host(*number)),
                b"b" => Some(host(200)),
                _ => None,
            };
            prop_assert_eq!(Some(found), expected);
            prop_assert!(header.split(',').all(|part| part.trim().as_bytes() == id));
        } else {
            prop_assert!(header != "a" || up.is_empty());
            prop_assert!(header != "b");
        }
    }

    /// However attempts end, and whatever the maps become meanwhile.
    #[test]
    fn a_request_comes_to_an_end_and_asks_no_peer_more_than_twice(
        maps in vec(peers(), 1..4),
        ends in vec((any::<bool>(), any::<bool>(), 0_u64..300), 40),
    ) {
        let maps: Vec<_> = maps.iter().map(|peers| fleet(peers)).collect();
        let failed = Failed::default();
        let choose = |step: usize, except: &[IpAddr]| {
            match (Peers { map: &maps[step % maps.len()], failed: &failed }).choose(ID.as_bytes(), except) {
                Choice::Host(host) => Some(host),
                _ => None,
            }
        };
        let Some(mut present) = choose(0, &[]) else { return Ok(()) };
        let (mut trail, mut returns, mut age, mut asked) = (Trail::to(present), 0, Duration::ZERO, Vec::new());
        let mut reached = false;
        for (step, (is_connected, is_returned, time)) in ends.into_iter().enumerate() {
            let attempt = Attempt { returns, is_connected, age };
            let before = trail.note(attempt).map(|(_, outcome)| outcome);
            let Ok(next) = trail.go_on(attempt, before, |hosts| choose(step, hosts)) else {
                reached = true;
                break;
            };
            asked.push(present);
            returns += u8::from(is_returned);
            age += Duration::from_millis(time);
            present = next.unwrap_or(present);
            trail = Trail::parse(&trail.to_bytes()).unwrap();
        }
        prop_assert!(reached, "it goes on forever");
        prop_assert!(returns <= 3);
        // A second time if the map had no other one when the first attempt started, and more often only after a connection was lost.
        let mut hosts = asked.clone();
        hosts.sort();
        hosts.dedup();
        prop_assert!(asked.len() <= 2 * hosts.len() + 3, "{:?}", asked);
        let mine: Vec<_> = maps.iter().flat_map(|map| map.find(ID.as_bytes())).flat_map(|route| route.peers()).collect();
        prop_assert!(hosts.iter().all(|host| mine.iter().any(|peer| peer.host == *host)));
    }
}
