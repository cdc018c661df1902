//! What the native module costs a request, in instructions counted by Valgrind: the same in every run, whatever else the machine does.
//! The stand-in for Envoy is part of each figure. A bound that a change has to raise is a price, to be named in the commit that raises it.
//!
//! This program runs itself under Valgrind with one number of requests and with another: the difference is the requests alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]

#[allow(dead_code, reason = "the other tests use the rest of it")]
mod host;

use std::fmt::Write as _;
use std::process::Command;

use host::{Filter, Stream};
use pixell_core::filter_state::ARRIVED;
use pixell_native::abi_types::Status;

/// What is done again and again.
#[derive(Clone, Copy)]
struct Kind {
    /// Its argument of the command line.
    name: &'static str,
    /// The most instructions that it may take: about a tenth above what was counted when the bound was set.
    most: u64,
    /// The number of routes in the smallest and in the largest map.
    routes: [u32; 2],
    /// How much more it may take in the largest map than in the smallest.
    growth: f64,
}

impl Kind {
    /// A kind of request that reads the route map.
    const fn of_task(name: &'static str, most: u64) -> Self {
        Self { name, most, routes: [1, 65_535], growth: 1.03 }
    }
}

const KINDS: [Kind; 8] = [
    Kind::of_task("forward", 5_550),
    Kind::of_task("path", 13_200),
    Kind::of_task("attempt", 2_600),
    // A first attempt, and its response in eight parts with trailers.
    Kind::of_task("response", 9_000),
    Kind::of_task("retry", 5_000),
    Kind::of_task("reject", 9_500),
    // For an agent of this task, without a fleet (0 routes) and with the largest fleet map.
    Kind { name: "local", most: 5_550, routes: [0, 100_000], growth: 1.01 },
    // For an agent of another task, by the fleet map.
    Kind { name: "peer", most: 10_950, routes: [1, 100_000], growth: 1.05 },
];
/// The most peers that a fleet map may have.
const PEERS: u32 = 1_000;
/// How often a kind of request is counted before it is too expensive. The module's thread that looks for long waits runs by the clock, so a
/// busy machine, on which a run takes longer, counts more of its instructions.
const COUNTS: u32 = 3;
/// How many more requests the second run makes.
const REQUESTS: u64 = 2_000;
/// An id that every map has, and one that every fleet map has.
const ID: &[u8] = b"id-1";
const FAR_ID: &[u8] = b"far-1";

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.as_slice() {
        [_, marker, kind, routes, requests] if marker == "serve" => {
            serve(kind, routes.parse().unwrap(), requests.parse().unwrap())
        }
        _ => compare(),
    }
}

/// Counts each kind of request and compares it with its bound.
fn compare() {
    for kind in KINDS {
        let mut counts = 0;
        while let Err(error) = count(kind) {
            counts += 1;
            assert!(counts < COUNTS, "{error}");
            println!("{error}; counting again");
        }
    }
}

/// Counts a kind of request in the smallest and in the largest map; an error names the bound that is exceeded.
fn count(Kind { name, most, routes, growth }: Kind) -> Result<(), String> {
    let counted =
        routes.map(|routes| (instructions(name, routes, REQUESTS * 2) - instructions(name, routes, REQUESTS)) / REQUESTS);
    for (routes, counted) in routes.into_iter().zip(counted) {
        println!("instructions to {name}, {routes} routes: {counted} (at most {most})");
        if counted > most {
            return Err(format!("{name}, {routes} routes: {counted}, more than {most}"));
        }
    }
    let [small, large] = counted.map(|counted| counted as f64);
    if large > small * growth {
        return Err(format!("{name}: {large} in the largest map, {small} in the smallest"));
    }
    Ok(())
}

/// The instructions of a whole run, by Valgrind.
fn instructions(kind: &str, routes: u32, requests: u64) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    // Memory that is freed is kept for the next request. Else glibc joins free pieces, which costs up to 200 instructions a request more or
    // less, as the heap happens to lie.
    valgrind.env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=1000");
    let output = valgrind.args(["serve", kind, &routes.to_string(), &requests.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    collected.unwrap_or_else(|| panic!("Valgrind counted nothing: {said}")).1.trim().parse().unwrap()
}

/// Makes so many requests of this kind in a map of so many routes.
fn serve(kind: &str, routes: u32, requests: u64) {
    let (is_task, is_fleet) = match kind {
        "local" | "peer" => (false, routes > 0),
        _ => (true, false),
    };
    let configuration =
        if is_fleet { r#"{"role":"router","fleet":{"port":50050,"local":"127.0.0.1"}}"# } else { r#"{"role":"router"}"# };
    let [router, retry] = ["router", "retry"].map(|name| Filter::configure(name, configuration).unwrap());
    let limits = if is_fleet {
        r#"{"role":"admin","port_range":{"min":1,"max":65535},"denied_ports":[],"fleet":{"peer_cidrs":["10.0.0.0/8"]}}"#
    } else {
        r#"{"role":"admin","port_range":{"min":1,"max":65535},"denied_ports":[],"max_routes":65535,"max_body_bytes":4000000}"#
    };
    let admin = Filter::configure("admin", limits).unwrap();
    publish(&admin, "/v1/routes", own_routes(if is_task { routes } else { 1 }));
    if is_fleet {
        publish(&admin, "/v1/fleet", fleet(routes));
    }
    let attempt = |number: &'static [u8]| [("x-deployment-id", ID), ("x-envoy-attempt-count", number)];
    let path: [(&str, &[u8]); 2] = [(":path", b"/agents/id-1/api/v1/items?page=2"), (":authority", b"agents.example.com")];
    let (filter, head, expected) = match kind {
        "forward" | "local" => (&router, [("x-deployment-id", ID)].to_vec(), Status::Continue),
        "peer" => (&router, [("x-deployment-id", FAR_ID)].to_vec(), Status::Continue),
        "path" => (&router, path.to_vec(), Status::Continue),
        "attempt" | "response" => (&retry, attempt(b"1").to_vec(), Status::Continue),
        "retry" => (&retry, attempt(b"2").to_vec(), Status::Continue),
        "reject" => (&router, [("x-deployment-id", b"nobody".as_slice())].to_vec(), Status::Stop),
        _ => panic!("no kind of request: {kind}"),
    };
    for number in 0..requests {
        let head = head.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        let stream = Stream::open(filter, number, head, false);
        stream.set_upstream("127.0.0.1:1");
        // A retry is judged by the age of its request, too: this one has just arrived, however long the run takes.
        if kind == "retry" {
            stream.set_state(ARRIVED, u64::MAX.to_le_bytes().to_vec());
        }
        assert_eq!(stream.head(true), Some(expected));
        if kind == "response" {
            stream.response_head();
            (0..8).for_each(|_| stream.response_part(&[b"part"], false));
            stream.response_trailers();
        }
        if number == 0 {
            let hop = stream.state("wasm.pixell.hop");
            assert_eq!(hop.as_deref(), (kind == "peer").then_some(b"out".as_slice()), "{kind}");
        }
    }
}

/// A map in which `id-1` has a port of this task, and so on.
fn own_routes(routes: u32) -> String {
    let mut body = String::from(r#"{"routes":{"#);
    for number in 1..=routes {
        let comma = if number == 1 { "" } else { "," };
        write!(body, r#"{comma}"id-{number}":{number}"#).unwrap();
    }
    body + "}}"
}

/// A fleet map in which other tasks serve `far-1`, and so on.
fn fleet(routes: u32) -> String {
    let mut body = String::from(r#"{"peers":{"#);
    for number in 0..routes.min(PEERS) {
        let comma = if number == 0 { "" } else { "," };
        write!(body, r#"{comma}"task-{number}":{{"host":"10.0.{}.{}"}}"#, number / 250, number % 250 + 1).unwrap();
    }
    body.push_str(r#"},"routes":{"#);
    for number in 1..=routes {
        let comma = if number == 1 { "" } else { "," };
        write!(body, r#"{comma}"far-{number}":["task-{}"]"#, number % routes.min(PEERS)).unwrap();
    }
    body + "}}"
}

/// Replaces a map.
#[expect(clippy::needless_pass_by_value, reason = "its memory is free before requests come")]
fn publish(admin: &Filter, path: &str, body: String) {
    let head = [(":method", "PUT"), (":path", path), (":authority", "127.0.0.1:9901"), ("content-type", "application/json")];
    let head = head.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let stream = Stream::open(admin, 0, head.to_vec(), false);
    stream.head(false);
    stream.part(&[body.as_bytes()], true);
    let response = stream.response().unwrap();
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
}
