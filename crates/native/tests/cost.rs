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
use pixell_native::abi_types::Status;

/// What is done again and again, by its argument of the command line, with the most instructions that it may take: about a tenth above what
/// was counted when the bound was set.
const KINDS: [(&str, u64); 5] = [("forward", 5_550), ("path", 15_800), ("attempt", 2_600), ("retry", 5_000), ("reject", 9_500)];
/// The smallest and the largest map.
const ROUTES: [u32; 2] = [1, 65_535];
/// How much more a request may take in the largest map than in the smallest.
const GROWTH: f64 = 1.03;
/// How often a kind of request is counted before it is too expensive. The module's thread that looks for long waits runs by the clock, so a
/// busy machine, on which a run takes longer, counts more of its instructions.
const COUNTS: u32 = 3;
/// How many more requests the second run makes.
const REQUESTS: u64 = 2_000;
/// An id that every map has.
const ID: &[u8] = b"id-1";

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
    for (kind, most) in KINDS {
        let mut counts = 0;
        while let Err(error) = count(kind, most) {
            counts += 1;
            assert!(counts < COUNTS, "{error}");
            println!("{error}; counting again");
        }
    }
}

/// Counts a kind of request in the smallest and in the largest map; an error names the bound that is exceeded.
fn count(kind: &str, most: u64) -> Result<(), String> {
    let counted =
        ROUTES.map(|routes| (instructions(kind, routes, REQUESTS * 2) - instructions(kind, routes, REQUESTS)) / REQUESTS);
    for (routes, counted) in ROUTES.into_iter().zip(counted) {
        println!("instructions to {kind}, {routes} routes: {counted} (at most {most})");
        if counted > most {
            return Err(format!("{kind}, {routes} routes: {counted}, more than {most}"));
        }
    }
    let [small, large] = counted.map(|counted| counted as f64);
    if large > small * GROWTH {
        return Err(format!("{kind}: {large} in the largest map, {small} in the smallest"));
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
    let [router, retry] = ["router", "retry"].map(|name| Filter::configure(name, r#"{"role":"router"}"#).unwrap());
    let limits =
        r#"{"role":"admin","port_range":{"min":1,"max":65535},"denied_ports":[],"max_routes":65535,"max_body_bytes":4000000}"#;
    let admin = Filter::configure("admin", limits).unwrap();
    publish(&admin, routes);
    let attempt = |number: &'static [u8]| [("x-deployment-id", ID), ("x-envoy-attempt-count", number)];
    let path: [(&str, &[u8]); 2] = [(":path", b"/agents/id-1/api/v1/items?page=2"), (":authority", b"agents.example.com")];
    let (filter, head, expected) = match kind {
        "forward" => (&router, [("x-deployment-id", ID)].to_vec(), Status::Continue),
        "path" => (&router, path.to_vec(), Status::Continue),
        "attempt" => (&retry, attempt(b"1").to_vec(), Status::Continue),
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
            stream.set_state("pixell.arrived", u64::MAX.to_le_bytes().to_vec());
        }
        assert_eq!(stream.head(true), Some(expected));
    }
}

/// Stores a map in which `id-1` has port 1, and so on.
fn publish(admin: &Filter, routes: u32) {
    let mut body = String::from(r#"{"routes":{"#);
    for number in 1..=routes {
        let comma = if number == 1 { "" } else { "," };
        write!(body, r#"{comma}"id-{number}":{number}"#).unwrap();
    }
    body.push_str("}}");
    let head =
        [(":method", "PUT"), (":path", "/v1/routes"), (":authority", "127.0.0.1:9901"), ("content-type", "application/json")];
    let head = head.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let stream = Stream::open(admin, 0, head.to_vec(), false);
    stream.head(false);
    stream.part(&[body.as_bytes()], true);
    let response = stream.response().unwrap();
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
}
