//! The cost of writes to the fleet map.

use std::cell::RefCell;
use std::rc::Rc;

use bench::table::id;
use serde_json::{Map, Value, json};

use crate::at_most;
use crate::guest::{Cost, Guest};
use crate::host::Host;

/// The route API's module with a fleet map.
struct Fleet(Guest);

impl Fleet {
    fn with(peers: usize, routes: usize) -> Self {
        let settings = json!({"role": "admin", "fleet": {"peer_cidrs": ["10.0.0.0/8"]}});
        let mut this = Self(Guest::start("admin.wasm", &settings, Rc::new(RefCell::new(Host::default()))));
        let host = |n: usize| json!({"host": format!("10.0.{}.{}", n / 250, n % 250 + 1)});
        let all: Map<String, Value> = (0..peers).map(|n| (peer(n), host(n))).collect();
        let routes: Map<String, Value> = (0..routes).map(|n| (id(n), json!([peer(n % peers)]))).collect();
        this.write("PUT", &json!({"peers": all, "routes": routes}));
        this
    }

    #[track_caller]
    fn write(&mut self, method: &str, body: &Value) -> Cost {
        let (cost, response) = self.0.call(method, "/v1/fleet", &body.to_string());
        assert_eq!(response.status, 200, "{response:?}");
        cost
    }
}

fn peer(number: usize) -> String {
    format!("task-{number:032x}")
}

/// A change of a route moves one table of routes, and reads that of the peers; a change of a peer moves that of the peers alone.
#[test]
fn a_change_costs_what_its_tables_hold() {
    // Every write decodes the table of peers: up to a thousand of them take two thirds of a millisecond.
    for (peers, routes, route_fuel, route_bytes, peer_fuel, peer_bytes) in [
        (1, 1, 162_000, 7_500, 145_000, 7_400),
        (10, 10_000, 247_000, 13_900, 252_000, 9_900),
        (999, 100_000, 18_200_000, 194_000, 23_700_000, 259_000),
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
