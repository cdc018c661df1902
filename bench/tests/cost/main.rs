//! What the modules cost, told without a clock: instructions under an interpreter that counts them, host calls by name, bytes
//! that cross the border, size of the module.
//!
//! The built modules run on a stand-in for Envoy. Every figure is the same in every run, so a bound can be close to it. A bound
//! that a change has to raise is a price, to be named in the commit that raises it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

mod guest;
mod host;

use std::cell::RefCell;
use std::rc::Rc;

use bench::table::{LARGEST, Table};
use guest::{Cost, Guest};
use host::Host;
use serde_json::{Map, Value, json};

/// Most instructions of a forwarded request, from the stream's creation to its end. Like all bounds on instructions and bytes here
/// it is about a tenth above what was counted when it was set.
const REQUEST_FUEL: u64 = 4560;
/// Most instructions of a refused one.
const REFUSAL_FUEL: u64 = 64_000;
/// Most instructions of a request that finds a changed map.
const FETCH_FUEL: u64 = 12_800;

/// Envoy's shared data, a router and an admin on it, and a map of so many routes.
struct Bench {
    router: Guest,
    admin: Guest,
    table: Table,
}

impl Bench {
    fn with(routes: usize) -> Self {
        let host = Rc::new(RefCell::new(Host::default()));
        let limits = json!({"role": "admin", "port_range": {"min": 1, "max": 65535}, "denied_ports": [], "max_routes": 65535});
        let admin = Guest::start("admin.wasm", &limits, Rc::clone(&host));
        let router = Guest::start("router.wasm", &json!({"role": "router"}), host);
        let mut this = Self { router, admin, table: Table::new(routes, &[20_001, 20_002, 20_003]) };
        let all: Map<_, Value> = this.table.routes.iter().map(|(id, port)| (id.clone(), (*port).into())).collect();
        this.write("PUT", "/v1/routes", &json!({ "routes": all }));
        this
    }

    /// A write to the route API.
    #[track_caller]
    fn write(&mut self, method: &str, path: &str, body: &Value) -> Cost {
        let (cost, answer) = self.admin.call(method, path, &body.to_string());
        assert!(matches!(answer.status, 200 | 201), "{method} {path}: {answer:?}");
        cost
    }

    /// Changes the route of the first asked id.
    fn change(&mut self, port: u16) -> Cost {
        let path = format!("/v1/routes/{}", self.table.asked[0].0);
        self.write("PUT", &path, &json!({ "port": port }))
    }

    /// A request for the asked id number `number`, which must go to `port`.
    #[track_caller]
    fn request(&mut self, number: usize, port: u16) -> Cost {
        let (id, _) = self.table.asked[number].clone();
        let (cost, address) = self.router.forward(&id);
        assert_eq!(address.as_deref(), Some(format!("127.0.0.1:{port}").as_str()), "{id}");
        cost
    }
}

/// Prints what was counted, so that a bound can be set by it, and compares.
#[track_caller]
fn at_most(what: &str, counted: u64, bound: u64) {
    println!("{what}: {counted} (at most {bound})");
    assert!(counted <= bound, "{what}: {counted}, more than {bound}");
}

#[test]
fn a_decision_costs_the_same_in_any_map() {
    for routes in [20, 10_000, LARGEST] {
        let mut bench = Bench::with(routes);
        bench.request(0, 20_001);
        let cost = bench.request(1, 20_002);
        let expected = [("proxy_call_foreign_function", 1), ("proxy_get_metric", 1), ("proxy_get_property", 1)];
        assert_eq!(cost.calls, expected.map(|(name, count)| (name.to_owned(), count)).into(), "{routes} routes");
        at_most(&format!("instructions of a request, {routes} routes"), cost.fuel, REQUEST_FUEL);
        at_most(&format!("bytes into the module, {routes} routes"), cost.bytes_in, 36);
    }
}

#[test]
fn a_refusal_is_cheap() {
    let mut bench = Bench::with(20);
    bench.request(0, 20_001);
    let (cost, address) = bench.router.forward("nobody");
    assert_eq!(address, None);
    let calls = cost.calls;
    assert_eq!(calls.get("proxy_send_local_response"), Some(&1));
    at_most("host calls of a refusal", calls.values().sum(), 6);
    at_most("instructions of a refusal", cost.fuel, REFUSAL_FUEL);
}

#[test]
fn a_changed_route_costs_kilobytes_in_any_map() {
    // The bounds grow with the map's index alone, which is a few bytes for hundreds of routes.
    for (routes, fuel, bytes, fetched) in
        [(20, 89_600, 17_900, 3000), (10_000, 103_000, 22_000, 5100), (LARGEST, 168_000, 43_200, 15_700)]
    {
        let mut bench = Bench::with(routes);
        bench.request(0, 20_001);
        // The port that only the largest map has given to somebody else.
        for port in [20_009, 20_001] {
            bench.change(port);
            bench.request(0, port);
        }
        let write = bench.change(20_009);
        at_most(&format!("instructions of a write, {routes} routes"), write.fuel, fuel);
        at_most(&format!("bytes of a write, {routes} routes"), write.bytes_in + write.bytes_out, bytes);
        let fetch = bench.request(0, 20_009);
        at_most(&format!("instructions of the request that fetches it, {routes} routes"), fetch.fuel, FETCH_FUEL);
        at_most(&format!("bytes that it fetches, {routes} routes"), fetch.bytes_in, fetched);
    }
}

#[test]
fn the_routers_module_is_small() {
    let size = guest::module("router.wasm").len() as u64;
    at_most("bytes of the router's module", size, 120 * 1024);
}
