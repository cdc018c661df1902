//! The cost of the modules, measured without a clock: instructions, host calls, bytes between module and host, and the size of the
//! module.
//!
//! The built modules run in an interpreter, with a stand-in for Envoy. Every figure is the same in every run, so a bound can be close to
//! it. If a change must raise a bound, its commit message says why.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

mod fleet;
mod guest;
mod host;

use std::cell::RefCell;
use std::rc::Rc;

use bench::table::{LARGEST, Table};
use guest::{Cost, Guest};
use host::Host;
use serde_json::{Map, Value, json};

/// Most instructions of a forwarded request, from the stream's creation to its end. Like all bounds on instructions and bytes here, it is
/// about a tenth above the count at the time when it was set.
const REQUEST_FUEL: u64 = 7_800;
/// Most instructions of a rejected request.
const REJECTION_FUEL: u64 = 84_000;
/// Most instructions of a forwarded request that its path addresses.
const PATH_FUEL: u64 = 23_300;
/// Most instructions of a response to it that stays as it is, and of one that is changed.
const RESPONSE_FUEL: u64 = 6_700;
const REDIRECT_FUEL: u64 = 142_000;
/// Most instructions of a request that fetches a changed map.
const FETCH_FUEL: u64 = 16_200;

/// The router's and the route API's module on the same shared data, and the routes that were pushed.
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

    /// Sends a write to the route API.
    #[track_caller]
    fn write(&mut self, method: &str, path: &str, body: &Value) -> Cost {
        let (cost, response) = self.admin.call(method, path, &body.to_string());
        assert!(matches!(response.status, 200 | 201), "{method} {path}: {response:?}");
        cost
    }

    /// Changes the route of the first requested id.
    fn change(&mut self, port: u16) -> Cost {
        let path = format!("/v1/routes/{}", self.table.requested[0].0);
        self.write("PUT", &path, &json!({ "port": port }))
    }

    /// Sends a request for the requested id number `number`, which must be forwarded to `port`.
    #[track_caller]
    fn request(&mut self, number: usize, port: u16) -> Cost {
        let (id, _) = self.table.requested[number].clone();
        let (cost, address) = self.router.forward(&id);
        assert_eq!(address.as_deref(), Some(format!("127.0.0.1:{port}").as_str()), "{id}");
        cost
    }
}

/// Prints a count, so that a bound can be set by it, and compares it with the bound.
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
        let expected = [("proxy_call_foreign_function", 2), ("proxy_get_metric", 1), ("proxy_get_property", 1)];
        assert_eq!(cost.calls, expected.map(|(name, count)| (name.to_owned(), count)).into(), "{routes} routes");
        at_most(&format!("instructions of a request, {routes} routes"), cost.fuel, REQUEST_FUEL);
        at_most(&format!("bytes into the module, {routes} routes"), cost.bytes_in, 36);
    }
}

/// A header-addressed request makes none of these calls, as the test above shows. (Each is about a thousandth of what Envoy spends on a request.)
#[test]
fn a_path_costs_a_few_calls_more_than_a_header() {
    let mut bench = Bench::with(20);
    bench.request(0, 20_001);
    let (id, _) = bench.table.requested[1].clone();
    let path = format!("/agents/{id}/api/v1/items?page=2");
    bench.router.forward_by_path(&path);
    let (cost, note) = bench.router.forward_by_path(&path);
    let expected = [
        ("proxy_call_foreign_function", 2),
        ("proxy_get_metric", 1),
        // Two id headers, the path, the authority.
        ("proxy_get_header_map_value", 4),
        // The first id header.
        ("proxy_get_property", 1),
        // The id, the path, the prefix.
        ("proxy_replace_header_map_value", 3),
        ("proxy_set_property", 1),
    ];
    assert_eq!(cost.calls, expected.map(|(name, count)| (name.to_owned(), count)).into());
    at_most("instructions of a request by path", cost.fuel, PATH_FUEL);

    let mut responses = Guest::start("responses.wasm", &json!({"role": "router"}), Rc::new(RefCell::new(Host::default())));
    let plain = [
        (":status", "200"),
        ("content-type", "application/json"),
        ("content-length", "1234"),
        ("date", "now"),
        ("server", "x"),
    ];
    responses.respond(&note, &plain);
    let cost = responses.respond(&note, &plain);
    // Three headers that might have to be changed, and the note.
    let expected = [("proxy_get_header_map_value", 3), ("proxy_get_property", 1)];
    assert_eq!(cost.calls, expected.map(|(name, count)| (name.to_owned(), count)).into());
    at_most("instructions of a response that stays as it is", cost.fuel, RESPONSE_FUEL);
    let cost = responses.respond(&note, &[(":status", "302"), ("location", "/login"), ("set-cookie", "a=1; Path=/")]);
    assert_eq!(cost.calls.get("proxy_replace_header_map_value"), Some(&2));
    at_most("instructions of a redirect with a cookie", cost.fuel, REDIRECT_FUEL);
}

#[test]
fn the_module_of_responses_is_small() {
    let size = guest::module("responses.wasm").len() as u64;
    at_most("bytes of the module of responses", size, 210 * 1024);
}

#[test]
fn a_rejection_is_cheap() {
    let mut bench = Bench::with(20);
    bench.request(0, 20_001);
    let (cost, address) = bench.router.forward("nobody");
    assert_eq!(address, None);
    let calls = cost.calls;
    assert_eq!(calls.get("proxy_send_local_response"), Some(&1));
    // One of them marks the rejection as one of the first of its kind for the access log.
    at_most("host calls of a rejection", calls.values().sum(), 7);
    at_most("instructions of a rejection", cost.fuel, REJECTION_FUEL);
}

#[test]
fn a_changed_route_costs_kilobytes_in_any_map() {
    // The bounds grow only with the map's index, which has a few bytes for hundreds of routes. About 5,000 instructions check Host, Origin
    // and the length of the body.
    for (routes, fuel, bytes, fetched) in
        [(20, 123_500, 17_900, 3000), (10_000, 139_000, 25_100, 5100), (LARGEST, 211_500, 56_700, 15_700)]
    {
        let mut bench = Bench::with(routes);
        bench.request(0, 20_001);
        // In the largest map, this port belongs to another route, which is displaced.
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
fn the_router_module_is_small() {
    let size = guest::module("router.wasm").len() as u64;
    at_most("bytes of the router's module", size, 186 * 1024);
}
