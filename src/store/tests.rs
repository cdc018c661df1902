//! The store under writers that get in each other's way.

use super::fake::{FakeData, FakeSignal};
use super::*;
use crate::change::{Change, Edit};
use crate::deployment_id::DeploymentId;
use crate::route::{Route, RouteState};
use std::convert::Infallible;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const fn active(port: u16) -> Route {
    Route { port, state: RouteState::Active }
}

fn id(text: &str) -> DeploymentId<'_> {
    DeploymentId::parse(text.as_bytes()).expect("valid")
}

/// Publishes one route and gives the generation.
fn put(data: &FakeData<'_>, signal: &FakeSignal, name: &str, port: u16) -> Result<u64, PublishError<crate::change::Refusal>> {
    let change = Change { replace: false, edits: vec![(id(name), Edit::Set(active(port)))] };
    publish(data, signal, || 7, |map| change.apply(map, usize::MAX).map(Update::Store)).map(|done| done.generation)
}

fn prepared() -> FakeData<'static> {
    let data = FakeData::default();
    prepare(&data);
    data
}

#[test]
fn nothing_is_loaded_before_the_first_publish() {
    let (data, signal) = (prepared(), FakeSignal::default());
    let mut cache = RouteCache::default();
    cache.refresh(&data, &signal);
    assert!(!cache.is_loaded() && !StoredMap::now(&data).is_loaded());
    assert_eq!(StoredMap::now(&data).version(), (0, 0));
    assert_eq!(cache.find(b"a"), None);
}

#[test]
fn preparing_again_keeps_the_map() {
    let (data, signal) = (prepared(), FakeSignal::default());
    assert_eq!(put(&data, &signal, "a", 1), Ok(1));
    prepare(&data);
    assert_eq!(StoredMap::now(&data).version(), (7, 1));
    assert_eq!(StoredMap::now(&data).find(id("a")), Ok(Some(active(1))));
}

#[test]
fn a_writer_that_loses_every_race_once_still_lands() {
    let signal = FakeSignal::default();
    let data = FakeData::default();
    prepare(&data);
    for n in 1..=50_u16 {
        let (rival, mine) = (format!("rival-{n}"), format!("mine-{n}"));
        let signal = &signal;
        // The rival lands between this writer's read and its swap.
        data.interleave(move |data| assert!(put(data, signal, &rival, 1000 + n).is_ok()));
        assert_eq!(put(&data, signal, &mine, 2000 + n), Ok(u64::from(n) * 2));
    }
    let routes = data.routes();
    assert_eq!(routes.len(), 100);
    for n in 1..=50 {
        assert_eq!(routes[&format!("rival-{n}")], active(1000 + n));
        assert_eq!(routes[&format!("mine-{n}")], active(2000 + n));
    }
    assert_eq!(signal.read(), 100);
}

/// Wherever in a write another one comes in between, both land, and neither reads what the other has half written.
#[test]
fn a_rival_may_come_at_any_moment() {
    let signal = FakeSignal::default();
    for rounds in 1..4 {
        for operations in 0.. {
            let data = FakeData::with([("a", active(1)), ("b", active(2))]);
            let rival_signal = &signal;
            data.interleave_after(operations, move |data| {
                for n in 0..rounds {
                    assert!(put(data, rival_signal, "a", 10 + n).is_ok());
                }
            });
            // Moves to the port of b, so that two shards and the owners change.
            assert!(put(&data, &signal, "mine", 2).is_ok());
            let done = !data.interloper_came();
            if !done {
                let routes = data.routes();
                let expected = [("a".to_owned(), active(9 + rounds)), ("mine".to_owned(), active(2))];
                assert_eq!(routes.into_iter().collect::<Vec<_>>(), expected, "after {operations} operations");
                let map = StoredMap::now(&data);
                assert_eq!((map.owner(9 + rounds), map.owner(2)), (Ok(Some(id("a"))), Ok(Some(id("mine")))));
                assert_eq!((map.owner(1), map.version()), (Ok(None), (1, u64::from(rounds) + 2)));
            } else {
                assert!(operations > 10, "{operations}");
                break;
            }
        }
    }
}

/// The rival's shards lie in other slots, so they are whole also when both change the same shard.
#[test]
fn rivals_for_one_id_and_one_port_do_not_mix() {
    let signal = FakeSignal::default();
    let data = FakeData::default();
    prepare(&data);
    for _ in 0..10 {
        let signal = &signal;
        data.interleave(move |data| assert!(put(data, signal, "a", 1).is_ok()));
        assert!(put(&data, signal, "a", 2).is_ok());
        data.interleave(move |data| assert!(put(data, signal, "b", 2).is_ok()));
        assert!(put(&data, signal, "c", 2).is_ok());
        assert_eq!(data.routes().into_iter().collect::<Vec<_>>(), [("c".to_owned(), active(2))]);
        let map = StoredMap::now(&data);
        assert_eq!((map.owner(2), map.owner(1)), (Ok(Some(id("c"))), Ok(None)));
    }
}

#[test]
fn gives_up_after_losing_too_often() {
    let (data, signal) = (prepared(), FakeSignal::default());
    data.always_mismatch();
    assert_eq!(put(&data, &signal, "a", 1), Err(PublishError::RetriesExhausted));
    assert!(!StoredMap::now(&data).is_loaded());
    assert_eq!(signal.read(), 0);
}

#[test]
fn a_refused_or_empty_update_moves_nothing() {
    let (data, signal) = (prepared(), FakeSignal::default());
    assert_eq!(publish(&data, &signal, || 7, |_| Err(Stop::Refused("no"))), Err(PublishError::Refused("no")));
    let kept = publish(&data, &signal, || 7, |_| Ok::<_, Stop<Infallible>>(Update::Keep(Default::default()))).expect("kept");
    assert_eq!((kept.epoch, kept.generation), (0, 0));
    assert!(!StoredMap::now(&data).is_loaded());
    assert_eq!(signal.read(), 0);
}

#[test]
fn a_reader_fetches_the_head_and_what_changed() {
    let (data, signal) = (prepared(), FakeSignal::default());
    let mut cache = RouteCache::default();
    for n in 1..200 {
        assert!(put(&data, &signal, &format!("id-{n}"), n).is_ok());
        let before = data.reads();
        for _ in 0..10 {
            cache.refresh(&data, &signal);
            assert_eq!(cache.find(format!("id-{n}").as_bytes()), Some(active(n)));
            assert_eq!(cache.find(b"id-1"), Some(active(1)));
        }
        assert_eq!(data.reads() - before, 2, "the head and one shard");
    }
}

#[test]
fn a_reader_that_overlaps_a_writer_is_not_left_behind() {
    let signal = FakeSignal::default();
    let cache = std::cell::RefCell::new(RouteCache::default());
    let data = FakeData::default();
    prepare(&data);
    assert!(put(&data, &signal, "a", 1).is_ok());
    // The shards are written, the head is not yet swapped: the reader sees the old map ...
    let (signal, reader) = (&signal, &cache);
    data.interleave(move |data| {
        reader.borrow_mut().refresh(data, signal);
        assert_eq!(reader.borrow().find(b"a"), Some(active(1)));
    });
    assert!(put(&data, signal, "a", 2).is_ok());
    // ... but once the write is answered, only the new one.
    cache.borrow_mut().refresh(&data, signal);
    assert_eq!(cache.borrow().find(b"a"), Some(active(2)));
}

#[test]
fn keys_are_bounded_as_ids_come_and_go() {
    let (data, signal) = (prepared(), FakeSignal::default());
    for n in 0..4000 {
        // Two ids at a time on two ports: the one before the last is displaced.
        assert!(put(&data, &signal, &format!("id-{n}"), 1 + n % 2).is_ok());
    }
    assert_eq!(data.routes().len(), 2);
    // One writer: two slots for each of the 256 id shards and the one port shard, the head and the claims.
    assert!(data.keys() <= 2 * 257 + 2, "{}", data.keys());
}

#[test]
fn a_writer_that_died_leaves_the_map_usable() {
    let (data, signal) = (prepared(), FakeSignal::default());
    assert!(put(&data, &signal, "a", 1).is_ok());
    // It claimed, wrote its shards, and never swapped the head.
    assert!(claim::Claim::take(&data).is_some());
    assert_eq!(put(&data, &signal, "b", 2), Ok(2));
    assert_eq!(data.routes().len(), 2);
}
