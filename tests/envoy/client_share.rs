//! PIXELL_CLIENT_CONNECTIONS limits the connections of a client address, over all workers, and its share of each agent's connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use harness::agents::{self, http as agent};
use harness::{Agent, Envoy, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::access_log_level::with_settings;
use crate::silent;
use crate::wire::{self, connect_from};

const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 8, 1);
const REFUSED: &str = "wasmcustom.pixell_client_connections_refused_total";
const PATIENCE: Duration = Duration::from_secs(10);

async fn with_cap(most: u32) -> (Envoy, Agent) {
    let envoy = with_settings(&[("PIXELL_CLIENT_CONNECTIONS", &most.to_string())]).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    (envoy, agent)
}

/// Reads the rest of the response, until nothing more comes for a moment.
async fn rest(stream: &mut TcpStream) {
    wire::drain(stream, Duration::from_millis(50)).await;
}

#[tokio::test]
async fn the_limit_of_an_address_is_over_all_workers() {
    const MOST: usize = 9;
    let (envoy, _agent) = with_cap(9).await;
    let mut held = Vec::new();
    for number in 0..MOST {
        let mut stream = connect_from(&envoy, CLIENT).await;
        assert!(wire::serves(&mut stream, "a").await, "{number}");
        rest(&mut stream).await;
        held.push(stream);
    }
    let workers = envoy.stats().await.unwrap().worker_connections("agents").unwrap();
    assert!(workers.values().all(|count| *count > 2), "both workers have connections: {workers:?}");
    for _ in 0..5 {
        assert!(!wire::serves(&mut connect_from(&envoy, CLIENT).await, "a").await, "a connection beyond the limit is served");
        // Other addresses are served, and the open connections stay.
        assert!(wire::serves(&mut connect_from(&envoy, OTHER).await, "a").await);
    }
    assert_eq!(envoy.stat(REFUSED).await.unwrap(), Some(5));
    for stream in &mut held {
        assert!(wire::serves(stream, "a").await);
        rest(stream).await;
    }
    // A closed connection makes room for a new one, each time.
    for _ in 0..20 {
        held.pop();
        let again = || async {
            let mut stream = connect_from(&envoy, CLIENT).await;
            Ok(wire::serves(&mut stream, "a").await.then_some(stream))
        };
        held.push(wait::until("room for one more", PATIENCE, again).await.unwrap());
    }
}

/// Behind a load balancer, the address is the one in the PROXY protocol.
#[tokio::test]
async fn clients_behind_a_load_balancer_have_their_own_limits() {
    let vars = [("PIXELL_CLIENT_CONNECTIONS", "1"), ("PIXELL_PROXY_PROTOCOL", "v2"), ("PIXELL_PROXY_CIDRS", "127.0.0.0/8")];
    let envoy = with_settings(&vars).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let mut held = Vec::new();
    for (client, expected) in
        [("203.0.113.1:1", true), ("203.0.113.1:2", false), ("203.0.113.2:1", true), ("[2001:db8::1]:1", true)]
    {
        let client: SocketAddr = client.parse().unwrap();
        let mut stream = connect_from(&envoy, CLIENT).await;
        stream.write_all(&crate::proxy_protocol::about(client)).await.unwrap();
        assert_eq!(wire::serves(&mut stream, "a").await, expected, "{client}");
        held.push(stream);
    }
}

/// Silent connections count towards the limit of their address, and end as they do without a limit.
#[tokio::test]
async fn silent_connections_count_and_end() {
    let (envoy, _agent) = with_cap(20).await;
    let mut silent = Vec::new();
    let started = Instant::now();
    for _ in 0..100 {
        silent.push(connect_from(&envoy, CLIENT).await);
    }
    let active = || async { Ok((envoy.stat("listener.agents.downstream_cx_active").await? == Some(20)).then_some(())) };
    wait::until("the limit to apply", PATIENCE, active).await.unwrap();
    let cases = silent::CASES.map(|(what, opening, more)| {
        let address = envoy.data_addr();
        async move { (what, silent::lasts(address, &opening.concat(), more).await) }
    });
    for (what, lasted) in futures_util::future::join_all(cases).await {
        println!("{what}: {lasted:?}");
        assert!(lasted < Duration::from_secs(29), "{what}: {lasted:?}");
    }
    for stream in &mut silent {
        let mut all = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
        assert!(ended.is_ok(), "still open after {:?}", started.elapsed());
    }
    assert!(wire::serves(&mut connect_from(&envoy, CLIENT).await, "a").await);
}

/// An agent that accepts requests and never responds.
fn stuck() -> Agent {
    agent::start("stuck", 0, agent::Version::Http1, |request| async {
        let _held = request;
        std::future::pending().await
    })
    .unwrap()
}

/// 1,024 unfinished requests would occupy all connections to their agent. One address gets a quarter of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_occupies_a_share_of_an_agents_connections() {
    check_share("agents_http1", b"POST / HTTP/1.1\r\nhost: h\r\nx-deployment-id: half-open\r\ncontent-length: 2\r\n\r\n1")
        .await;
}

/// WebSockets have a cluster of their own, and so their own connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_occupies_a_share_of_an_agents_websockets() {
    let upgrade = b"GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: half-open\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    check_share("agents_websocket", upgrade).await;
}

async fn check_share(cluster: &str, request: &[u8]) {
    const SHARE: u64 = 256;
    let (envoy, other) = with_cap(1_000).await;
    let agent = stuck();
    envoy.routes().put_all([("a", other.port()), ("half-open", agent.port())]).await.unwrap();
    let half_open = async |from: Ipv4Addr, count: usize| {
        let mut held = Vec::new();
        for _ in 0..count {
            let mut stream = connect_from(&envoy, from).await;
            stream.write_all(request).await.unwrap();
            held.push(stream);
        }
        held
    };
    let name = format!("cluster.{cluster}.upstream_rq_active");
    let active = || async { envoy.stat(&name).await.map(Option::unwrap_or_default) };
    let held = half_open(CLIENT, 300).await;
    let reached = || async { Ok((active().await? == SHARE).then_some(())) };
    wait::until("the share to be taken", Duration::from_secs(30), reached).await.unwrap();
    let rejected = envoy.logged(300 - 256, |line| line["rejection"] == "overloaded").await.unwrap();
    assert_eq!(rejected.len(), 300 - 256);
    assert_eq!(rejected[0]["status"], 503);
    // The same client still reaches another agent, and another client reaches this one.
    assert!(wire::serves(&mut connect_from(&envoy, CLIENT).await, "a").await);
    let others = half_open(OTHER, 5).await;
    let more = || async { Ok((active().await? == SHARE + 5).then_some(())) };
    wait::until("the others to be served", PATIENCE, more).await.unwrap();
    drop((held, others));
    let none = || async { Ok((active().await? == 0).then_some(())) };
    wait::until("all connections to be free", PATIENCE, none).await.unwrap();
    let _held = half_open(CLIENT, 256).await;
    wait::until("the share to be taken again", Duration::from_secs(30), reached).await.unwrap();
}
