//! A client that is not on the loopback interface: it is in a network namespace of its own, joined to this one by a pair of virtual
//! interfaces.
//!
//! Needs root and iproute2, so it is not part of a plain `cargo test`: `cargo xtask test netns`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use harness::{Envoy, agents};
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

// Addresses that are reserved for tests (RFC 2544), in networks between two namespaces.
const NETWORK: [u8; 3] = [198, 18, 77];

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("ip cannot be run ({error}): install iproute2"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`ip {arguments}` failed: {said}This test needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN).");
}

/// A network namespace with a path to this one; removed when dropped.
struct Namespace {
    name: String,
    here: Ipv4Addr,
    there: Ipv4Addr,
}

impl Namespace {
    fn new() -> Self {
        // Tests run at the same time, each with a network of its own.
        static MADE: AtomicU8 = AtomicU8::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let [a, b, c] = NETWORK;
        let (here, there) = (Ipv4Addr::new(a, b, c, made * 4 + 1), Ipv4Addr::new(a, b, c, made * 4 + 2));
        let number = format!("{}{made}", std::process::id());
        let (name, inner, outer) = (format!("pixell-{number}"), format!("pxt{number}"), format!("pxh{number}"));
        ip(&format!("netns add {name}"));
        let namespace = Self { name, here, there };
        let name = &namespace.name;
        ip(&format!("link add {outer} type veth peer name {inner} netns {name}"));
        ip(&format!("addr add {here}/30 dev {outer}"));
        ip(&format!("link set {outer} up"));
        ip(&format!("-n {name} addr add {there}/30 dev {inner}"));
        ip(&format!("-n {name} link set {inner} up"));
        namespace
    }

    /// The file that `setns` needs to enter the namespace.
    fn file(&self) -> std::fs::File {
        std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap()
    }

    /// Sends an HTTP/1.1 request from inside to `port` here and returns the response.
    fn ask(&self, port: u16, request: &str) -> String {
        let (inside, here, there) = (self.file(), self.here, self.there);
        let request =
            format!("{request} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nx-forwarded-for: 127.0.0.1\r\n\r\n");
        // setns changes the namespace of one thread only, so a new thread enters it.
        let asking = std::thread::spawn(move || {
            setns(inside, CloneFlags::CLONE_NEWNET).unwrap();
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from((here, port)), Duration::from_secs(5)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), there);
            stream.write_all(request.as_bytes()).unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).unwrap();
            response
        });
        asking.join().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // This also removes its interface and the other end of it.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[tokio::test]
async fn from_another_address_the_route_api_is_forbidden_and_the_rest_responds() {
    let namespace = Namespace::new();
    let envoy = Envoy::builder().bind(Ipv4Addr::UNSPECIFIED).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let (api, data) = (envoy.api_addr().port(), envoy.data_addr().port());

    for path in ["/ready", "/stats", "/stats?format=json", "/stats/prometheus", "/server_info"] {
        let response = namespace.ask(api, &format!("GET {path}"));
        assert!(response.starts_with("HTTP/1.1 200 "), "{path}: {response}");
    }
    let forbidden = [
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
        "GET /clusters",
        "GET /clusters?format=json",
        "GET //clusters",
        "GET /ready/../clusters",
        "GET /%63lusters",
    ];
    for request in forbidden {
        let response = namespace.ask(api, request);
        assert!(response.starts_with("HTTP/1.1 403 "), "{request}: {response}");
        assert!(
            response.contains("application/problem+json") && response.contains("\"code\":\"forbidden\""),
            "{request}: {response}"
        );
    }
    for request in ["POST /ready", "GET /ready%2f..%2fv1%2froutes", "OPTIONS /stats"] {
        let response = namespace.ask(api, request);
        assert!(!response.starts_with("HTTP/1.1 2"), "{request}: {response}");
    }
    // The map is unchanged, and the data path is open to every address.
    assert_eq!(envoy.routes().route("a").await.unwrap().json().unwrap()["port"], agent.port());
    let response = namespace.ask(data, "GET / HTTP/1.1\r\nx-deployment-id: a\r\nx-rest:");
    assert!(response.contains("\"agent\":\"a\""), "{response}");
    // The client's own x-forwarded-for does not change the decision above, and the agent gets the client's real address.
    assert!(response.contains(&format!("127.0.0.1,{}", namespace.there)), "{response}");
}

/// Starts clients in the namespace that read `/stats` of `port` here as fast as they can for `time`, each on its own connections.
/// Returns how many responses had each status.
fn crowd(namespace: &Namespace, port: u16, clients: usize, time: Duration) -> std::thread::JoinHandle<BTreeMap<u16, usize>> {
    let (inside, address) = (namespace.file(), SocketAddr::from((namespace.here, port)));
    std::thread::spawn(move || {
        setns(inside, CloneFlags::CLONE_NEWNET).unwrap();
        // Sockets belong to the namespace of the thread that makes them, so this runtime has only this thread.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let end = tokio::time::Instant::now() + time;
            let client = async || {
                let mut statuses = Vec::new();
                while tokio::time::Instant::now() < end {
                    let status = tokio::time::timeout_at(end, status_of(address)).await;
                    statuses.extend(status.ok().flatten());
                }
                statuses
            };
            let all = futures_util::future::join_all((0..clients).map(|_| client())).await;
            let mut counts = BTreeMap::new();
            all.into_iter().flatten().for_each(|status| *counts.entry(status).or_default() += 1);
            counts
        })
    })
}

/// The status of a response to `GET /stats`; `None` if the connection is closed without one.
async fn status_of(address: SocketAddr) -> Option<u16> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.write_all(b"GET /stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.ok()?;
    std::str::from_utf8(response.get(9..12)?).ok()?.parse().ok()
}

#[tokio::test]
async fn a_crowd_outside_does_not_delay_readiness_inside() {
    const CLIENTS: usize = 900;
    const TIME: Duration = Duration::from_secs(10);
    let namespace = Namespace::new();
    let envoy = Envoy::builder().bind(Ipv4Addr::UNSPECIFIED).start().await.unwrap();
    let routes = envoy.routes();
    let crowd = crowd(&namespace, envoy.api_addr().port(), CLIENTS, TIME);
    let end = Instant::now() + TIME;
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let mut took = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        // On a new connection each time, as the health check does.
        let ready = http.get(envoy.api_url() + "/ready").send().await.unwrap();
        assert_eq!(ready.status(), 200);
        assert_eq!(routes.put_route("a", &(5000 + took.len() % 2).into()).await.unwrap().status.as_u16() / 100, 2);
        took.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let statuses = tokio::task::spawn_blocking(move || crowd.join().unwrap()).await.unwrap();
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    let figures = format!("{} times, half of them within {median:?}, all within {longest:?}", took.len());
    eprintln!("/ready and a write: {figures}; the crowd: {statuses:?}");
    // A busy machine may delay some, but not most.
    assert!(took.len() > 10 && median < Duration::from_secs(1) && longest < Duration::from_secs(5), "{figures}");
    // The rate limit lets some through; the others get 429, or no connection.
    let served = statuses.get(&200).copied().unwrap_or_default();
    assert!((5..=100).contains(&served) && statuses.contains_key(&429), "{statuses:?}");
    let stats = envoy.stats().await.unwrap();
    assert!(stats.get("connection_limit.outside.limited_connections").unwrap() > 100, "{:?}", stats.matching("outside"));
    // Inside there is no rate limit.
    for _ in 0..50 {
        assert_eq!(http.get(envoy.api_url() + "/stats").send().await.unwrap().status(), 200);
    }
}
