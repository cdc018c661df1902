//! Which peer a request goes to, and where it goes after each failure.

use super::*;
use crate::fleet::Peer;
use crate::fleet::tests::{PLENTY, at, draining, prepared, publish_with, setting};
use crate::store::memory::MemorySignal;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn host(last: u8) -> IpAddr {
    [10, 0, 1, last].into()
}

/// A worker's copy of the fleet map with these peers and routes.
pub(crate) fn fleet(peers: &[(&str, Peer)], routes: &[(&str, &[&str])]) -> FleetCache {
    let (data, signal) = (prepared(), MemorySignal::default());
    assert!(publish_with(&data, &signal, &setting(true, peers, routes), PLENTY).is_ok());
    let mut cache = FleetCache::default();
    cache.refresh(&data, &signal);
    cache
}

#[test]
fn the_first_peer_that_takes_requests_is_chosen() {
    let peers = [("p", at(1)), ("q", draining(2)), ("r", at(3))];
    let routes: [(&str, &[&str]); 4] = [("a", &["p", "r"]), ("b", &["q", "r"]), ("b2", &["r", "q"]), ("c", &["q"])];
    let map = fleet(&peers, &routes);
    let check = |id: &str, failed: &[u8], except: &[u8], expected: Choice| {
        let mut list = Failed::default();
        failed.iter().for_each(|last| list.add(host(*last), Failure::Unreachable, Duration::ZERO));
        let except: Vec<_> = except.iter().map(|last| host(*last)).collect();
        assert_eq!(Peers { map: &map, failed: &list }.choose(id.as_bytes(), &except), expected, "{id} {failed:?} {except:?}");
    };
    check("a", &[], &[], Choice::Host(host(1)));
    check("a", &[1], &[], Choice::Host(host(3)));
    check("a", &[], &[1], Choice::Host(host(3)));
    check("a", &[1], &[3], Choice::Failed);
    check("a", &[1, 3], &[], Choice::Failed);
    check("b", &[], &[], Choice::Host(host(3)));
    // One is draining, and the other one does not respond: that is not the agent's decision, whichever is listed first.
    check("b", &[3], &[], Choice::Failed);
    check("b2", &[3], &[], Choice::Failed);
    check("c", &[], &[], Choice::Draining);
    check("x", &[], &[], Choice::Nothing);
}

#[test]
fn a_peer_that_ended_a_connection_is_the_last_choice() {
    let peers = [("p", at(1)), ("q", at(2)), ("r", at(3)), ("d", draining(4))];
    let map = fleet(&peers, &[("a", &["p", "q", "r"]), ("b", &["d", "p"])]);
    let check = |id: &str, closed: &[u8], unreachable: &[u8], except: &[u8], expected: Choice| {
        let mut list = Failed::default();
        closed.iter().for_each(|last| list.add(host(*last), Failure::Closed, Duration::ZERO));
        unreachable.iter().for_each(|last| list.add(host(*last), Failure::Unreachable, Duration::ZERO));
        let except: Vec<_> = except.iter().map(|last| host(*last)).collect();
        assert_eq!(Peers { map: &map, failed: &list }.choose(id.as_bytes(), &except), expected, "{id} {closed:?} {except:?}");
    };
    check("a", &[1], &[], &[], Choice::Host(host(2)));
    check("a", &[1], &[2], &[], Choice::Host(host(3)));
    check("a", &[1, 3], &[2], &[], Choice::Host(host(1)));
    check("a", &[1, 3], &[2], &[1], Choice::Host(host(3)));
    check("a", &[1, 3], &[2], &[1, 3], Choice::Failed);
    check("b", &[1], &[], &[], Choice::Host(host(1)));
    check("b", &[], &[1], &[], Choice::Failed);
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Taken,
    Returned,
    Refused,
    /// It had a connection, which ended.
    Lost,
}

/// Follows a request from its first host on. `ends` tells how each attempt at a host ends, `listed` is what the maps have, in order.
/// Returns the hosts that were asked, and how it ended.
fn follow(
    first: u8,
    listed: &[u8],
    step: Duration,
    ends: impl Fn(usize, IpAddr) -> End,
) -> (Vec<IpAddr>, Result<(), &'static str>) {
    let mut bytes = Trail::to(host(first)).to_bytes();
    let (mut present, mut asked, mut returns, mut age) = (host(first), Vec::new(), 0, Duration::ZERO);
    for number in 0..100 {
        let end = ends(number, present);
        let mut trail = Trail::parse(&bytes).expect("a trail");
        let attempt = Attempt { returns, is_connected: end == End::Lost, age };
        let before = trail.note(attempt).map(|(_, outcome)| outcome);
        let mut all = Vec::new();
        let next = |except: &[IpAddr]| {
            all = except.to_vec();
            listed.iter().map(|last| host(*last)).find(|host| !except.contains(host))
        };
        let next = match trail.go_on(attempt, before, next) {
            Ok(next) => next,
            Err(rejection) => return (asked, Err(rejection.code())),
        };
        assert_eq!(all.get(..asked.len()), Some(asked.as_slice()), "what was asked is not asked again");
        asked.push(present);
        match end {
            End::Taken => return (asked, Ok(())),
            End::Returned => returns += 1,
            End::Refused | End::Lost => {}
        }
        present = next.unwrap_or(present);
        bytes = trail.to_bytes();
        age += step;
    }
    panic!("it never ends: {asked:?}");
}

#[test]
fn a_request_goes_from_peer_to_peer_until_one_takes_it() {
    let soon = Duration::from_millis(1);
    let hosts = |list: &[u8]| list.iter().map(|last| host(*last)).collect::<Vec<_>>();
    let of = |ends: &'static [(u8, End)]| {
        move |_: usize, asked: IpAddr| ends.iter().find(|(last, _)| host(*last) == asked).map_or(End::Taken, |(_, end)| *end)
    };
    use End::{Lost, Refused, Returned};
    assert_eq!(follow(1, &[1, 2], soon, of(&[])), (hosts(&[1]), Ok(())));
    assert_eq!(follow(1, &[1, 2], soon, of(&[(1, Returned)])), (hosts(&[1, 2]), Ok(())));
    assert_eq!(follow(1, &[1, 2, 3], soon, of(&[(1, Refused), (2, Refused)])), (hosts(&[1, 2, 3]), Ok(())));
    assert_eq!(follow(1, &[1, 2, 3], soon, of(&[(1, Returned), (2, Refused)])), (hosts(&[1, 2, 3]), Ok(())));
    // The only peer does not have the route, or cannot be reached: then it is tried twice.
    assert_eq!(follow(1, &[1], soon, of(&[(1, Returned)])), (hosts(&[1]), Err("deployment_moved")));
    assert_eq!(follow(1, &[1], soon, of(&[(1, Refused)])), (hosts(&[1, 1]), Err("peer_unreachable")));
    let first = |number, _| if number == 0 { Refused } else { End::Taken };
    assert_eq!(follow(1, &[1], soon, first), (hosts(&[1, 1]), Ok(())));
    let mixed = follow(1, &[1, 2], soon, of(&[(1, Returned), (2, Refused)]));
    assert_eq!(mixed, (hosts(&[1, 2, 2]), Err("peer_unreachable")));
    // At most two decisions after the first one.
    let all = of(&[(1, Returned), (2, Returned), (3, Returned), (4, Returned)]);
    assert_eq!(follow(1, &[1, 2, 3, 4], soon, all), (hosts(&[1, 2, 3]), Err("deployment_moved")));
    // A connection that ends says nothing of its peer.
    let once = |number, _| if number == 0 { Lost } else { End::Taken };
    assert_eq!(follow(1, &[1], soon, once), (hosts(&[1, 1]), Ok(())));
    assert_eq!(follow(1, &[1], soon, of(&[(1, Lost)])), (hosts(&[1, 1, 1, 1]), Err("peer_unreachable")));
    let then = |number, _| if number < 3 { Lost } else { Returned };
    assert_eq!(follow(1, &[1], soon, then), (hosts(&[1, 1, 1, 1]), Err("deployment_moved")));
}

#[test]
fn peers_that_do_not_respond_take_less_than_two_seconds() {
    let all: Vec<u8> = (1..=16).collect();
    let (asked, end) = follow(1, &all, Duration::from_millis(300), |_, _| End::Refused);
    assert_eq!(end, Err("peer_unreachable"));
    // The last one began at 1.5 s.
    assert_eq!(asked.len(), 6);
}

#[test]
fn the_last_host_is_known_and_whether_the_request_only_waited_for_it() {
    let trail =
        |losses, list: &[u8]| Trail { losses, hosts: list.iter().map(|last| host(*last)).collect(), ..Trail::to(host(1)) };
    // The list ends with the host of the coming attempt.
    assert_eq!(trail(0, &[]).last(), None);
    assert_eq!(trail(0, &[1]).last(), None);
    assert_eq!(trail(0, &[1, 2]).last(), Some((host(1), true)));
    assert_eq!(trail(0, &[1, 1, 2]).last(), Some((host(1), true)));
    assert_eq!(trail(1, &[1, 1, 2]).last(), Some((host(1), false)));
    assert_eq!(trail(0, &[1, 2, 3]).last(), Some((host(2), false)));
}

#[test]
fn a_trail_is_read_as_it_was_written() {
    let mut trail = Trail::to(host(1));
    trail.hosts.push("fd00::7".parse().expect("an address"));
    trail = Trail { returns: 2, losses: 1, misses: 1, is_connected: true, ..trail };
    assert_eq!(Trail::parse(&trail.to_bytes()), Some(trail.clone()));
    for damaged in [&b""[..], &[0, 0, 0], &[0, 0, 0, 0, 4, 1, 2, 3], &[0, 0, 0, 0, 5, 1, 2, 3, 4, 5]] {
        assert_eq!(Trail::parse(damaged), None, "{damaged:?}");
    }
    // Without a host there is nothing to decide.
    let mut nowhere = Trail { hosts: Vec::new(), ..trail };
    let attempt = Attempt { returns: 0, is_connected: false, age: Duration::ZERO };
    assert_eq!(nowhere.go_on(attempt, None, |_| None), Err(Rejection::Internal));
}
