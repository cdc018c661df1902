//! The cost of writes to the fleet map, and of requests where there is one.

use std::cell::RefCell;
use std::rc::Rc;

use bench::table::id;
use serde_json::{Map, Value, json};

use crate::guest::{Cost, Guest};
use crate::host::Host;
use crate::{REQUEST_FUEL, at_most};

/// Most instructions of a request that is forwarded to a peer, its end included, which tells whether the peer has failed.
const HOP_FUEL: u64 = 24_400;

/// The route API's module with a fleet map, and what it shares with the others.
struct Fleet {
    admin: Guest,
    host: Rc<RefCell<Host>>,
}

impl Fleet {
    fn with(peers: usize, routes: usize) -> Self {
        let settings = json!({"role": "admin", "fleet": {"peer_cidrs": ["10.0.0.0/8"]}});
        let host = Rc::new(RefCell::new(Host::default()));
        let mut this = Self { admin: Guest::start("admin.wasm", &settings, Rc::clone(&host)), host };
        let address = |n: usize| json!({"host": host_of(n)});
        let all: Map<String, Value> = (0..peers).map(|n| (peer(n), address(n))).collect();
        let routes: Map<String, Value> = (0..routes).map(|n| (id(n), json!([peer(n % peers)]))).collect();
        this.write("PUT", &json!({"peers": all, "routes": routes}));
        this
    }

    #[track_caller]
    fn write(&mut self, method: &str, body: &Value) -> Cost {
        let (cost, response) = self.admin.call(method, "/v1/fleet", &body.to_string());
        assert_eq!(response.status, 200, "{response:?}");
        cost
    }

    /// The data path's module with this configuration, the fleet map, and one route of the task's own.
    fn router(&mut self, settings: &Value) -> Guest {
        let (_, response) = self.admin.call("PUT", "/v1/routes", &json!({"routes": {"own": 20_001}}).to_string());
        assert_eq!(response.status, 200, "{response:?}");
        Guest::start("router.wasm", settings, Rc::clone(&self.host))
    }
}

fn peer(number: usize) -> String {
    format!("task-{number:032x}")
}

fn host_of(number: usize) -> String {
    format!("10.0.{}.{}", number / 250, number % 250 + 1)
}

/// Whatever other tasks serve, a request for one of their agents costs the same, and one for an agent of this task as much as without a fleet.
#[test]
fn a_request_costs_the_same_in_any_fleet_map() {
    let without = own(&mut Fleet::with(1, 1).router(&json!({"role": "router"}))).fuel;
    let mut counts = Vec::new();
    for (peers, routes) in [(1, 1), (1_000, 100_000)] {
        let mut router =
            Fleet::with(peers, routes).router(&json!({"role": "router", "fleet": {"port": 50050, "local": "127.0.0.1"}}));
        let of = format!("{routes} routes of the fleet");
        let cost = own(&mut router);
        let expected = [("proxy_call_foreign_function", 2), ("proxy_get_metric", 1), ("proxy_get_property", 1)];
        assert_eq!(cost.calls, expected.map(|(name, count)| (name.to_owned(), count)).into(), "{of}");
        at_most(
            &format!("instructions of a request to an agent of this task, {of}"),
            cost.fuel,
            REQUEST_FUEL.min(without * 101 / 100),
        );

        let last = routes - 1;
        // The first one defines a metric.
        router.forward(&id(last));
        let (cost, address) = router.forward(&id(last));
        assert_eq!(address, Some(format!("{}:50050", host_of(last % peers))), "{of}");
        // One more foreign call has Envoy choose the route again, a counter is raised, and the hop and its trail are noted. The time
        // is kept, and the end of the stream asks for the trail. (In Envoy, which has kept it, also for how the request ended, and whether there
        // was a connection.)
        let more = [("clock_time_get", 1), ("proxy_increment_metric", 1), ("proxy_set_property", 2), ("proxy_get_property", 2)];
        let expected = expected.into_iter().chain(more);
        assert_eq!(cost.calls, expected.map(|(name, count)| (name.to_owned(), count)).collect(), "{of}");
        at_most(&format!("instructions of a request to a peer, {of}"), cost.fuel, HOP_FUEL);
        counts.push(cost.fuel);
    }
    at_most("instructions of a request to a peer, 100 times those with one route", counts[1] * 100 / counts[0], 105);
}

/// What a request for an agent of this task costs.
#[track_caller]
fn own(router: &mut Guest) -> Cost {
    // The first one fetches the maps.
    router.forward("own");
    let (cost, address) = router.forward("own");
    assert_eq!(address.as_deref(), Some("127.0.0.1:20001"));
    cost
}

/// A change of a route moves one table of routes, and reads that of the peers; a change of a peer moves that of the peers alone.
#[test]
fn a_change_costs_what_its_tables_hold() {
    // Every write decodes the table of peers: up to a thousand of them take two thirds of a millisecond.
    for (peers, routes, route_fuel, route_bytes, peer_fuel, peer_bytes) in [
        (1, 1, 162_000, 7_500, 145_000, 7_400),
        (10, 10_000, 247_000, 13_900, 252_000, 9_900),
        (999, 100_000, 18_200_000, 194_000, 23_700_000, 268_000),
    ] {
        let mut fleet = Fleet::with(peers, routes);
        let move_of = |n: usize| json!({"peers": {"new": {"host": "10.1.0.1"}}, "routes": {id(0): if n.is_multiple_of(2) { json!(["new"]) } else { json!([peer(0)]) }}});
        for n in 0..3 {
            fleet.write("PATCH", &move_of(n));
        }
        let route = fleet.write("PATCH", &move_of(3));
        let state = |state: &str| json!({"peers": {peer(0): {"state": state}}});
        fleet.write("PATCH", &state("draining"));
        let changed = fleet.write("PATCH", &state("active"));
        let of = format!("{peers} peers and {routes} routes");
        at_most(&format!("instructions of a changed route, {of}"), route.fuel, route_fuel);
        at_most(&format!("bytes of a changed route, {of}"), route.bytes_in + route.bytes_out, route_bytes);
        at_most(&format!("instructions of a changed peer, {of}"), changed.fuel, peer_fuel);
        at_most(&format!("bytes of a changed peer, {of}"), changed.bytes_in + changed.bytes_out, peer_bytes);
    }
}
