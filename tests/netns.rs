//! Who is not on the loopback interface: a caller in a network namespace of its own, joined to this one by a pair of virtual
//! interfaces.
//!
//! Needs root and iproute2, so it is not part of a plain `cargo test`: `cargo xtask test netns`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use harness::{Envoy, agents};
use nix::sched::{CloneFlags, setns};

// Addresses that are set aside for tests (RFC 2544), in a network that exists between the two namespaces alone.
const HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 2);

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("ip cannot be run ({error}): install iproute2"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`ip {arguments}` failed: {said}This test needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN).");
}

/// A network namespace with a way to this one; gone when dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let number = std::process::id();
        let (name, here, there) = (format!("pixell-{number}"), format!("pxh{number}"), format!("pxt{number}"));
        ip(&format!("netns add {name}"));
        let namespace = Self(name.clone());
        ip(&format!("link add {here} type veth peer name {there} netns {name}"));
        ip(&format!("addr add {HERE}/30 dev {here}"));
        ip(&format!("link set {here} up"));
        ip(&format!("-n {name} addr add {THERE}/30 dev {there}"));
        ip(&format!("-n {name} link set {there} up"));
        namespace
    }

    /// Sends an HTTP/1.1 request from inside to `port` here and gives the answer.
    fn ask(&self, port: u16, request: &str) -> String {
        let inside = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        let request =
            format!("{request} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nx-forwarded-for: 127.0.0.1\r\n\r\n");
        // A namespace belongs to a thread, so only this one goes there.
        let asking = std::thread::spawn(move || {
            setns(inside, CloneFlags::CLONE_NEWNET).unwrap();
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from((HERE, port)), Duration::from_secs(5)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), THERE);
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        asking.join().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its interface, and with it the other end, goes along.
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[tokio::test]
async fn from_another_address_the_route_api_is_refused_and_the_rest_answers() {
    let namespace = Namespace::new();
    let envoy = Envoy::builder().bind(Ipv4Addr::UNSPECIFIED).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let (api, data) = (envoy.api_addr().port(), envoy.data_addr().port());

    for path in ["/ready", "/stats", "/stats?format=json", "/stats/prometheus", "/server_info"] {
        let answer = namespace.ask(api, &format!("GET {path}"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    let refused = [
        "GET /v1/routes",
        "GET /v1/status",
        "GET /v1/routes/a",
        "DELETE /v1/routes/a",
        "PUT /v1/routes",
        "PATCH /v1/routes",
        "GET /v1",
        "GET //v1/routes",
        "GET /./v1/routes",
        "GET /ready/../v1/routes",
        "GET /v1/routes?x=/ready",
        "GET http://127.0.0.1/v1/routes",
        "GET /%76%31/routes",
        "GET /nothing",
        "POST /quitquitquit",
        "GET /config_dump",
    ];
    for request in refused {
        let answer = namespace.ask(api, request);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
        assert!(
            answer.contains("application/problem+json") && answer.contains("\"code\":\"forbidden\""),
            "{request}: {answer}"
        );
    }
    for request in ["POST /ready", "GET /ready%2f..%2fv1%2froutes", "OPTIONS /stats"] {
        let answer = namespace.ask(api, request);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{request}: {answer}");
    }
    // The map is as it was, and the data path is for everybody.
    assert_eq!(envoy.routes().route("a").await.unwrap().json().unwrap()["port"], agent.port());
    let answer = namespace.ask(data, "GET / HTTP/1.1\r\nx-deployment-id: a\r\nx-rest:");
    assert!(answer.contains("\"agent\":\"a\""), "{answer}");
    // What the caller says of its address is not believed, and the agent is told the real one.
    assert!(answer.contains(&format!("127.0.0.1,{THERE}")), "{answer}");
}
