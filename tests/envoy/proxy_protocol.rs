//! PROXY protocol version 2: the load balancer says which client a connection belongs to, and nobody else can.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use harness::{Agent, Envoy, agents};
use tokio::io::AsyncWriteExt;

use crate::access_log_level::with_settings;
use crate::wire::{self, connect_from};

/// The load balancer's address, and one that is not in its network.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 8, 1);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\nconnection: close\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(5);

/// A header of version 2 (haproxy.org, "The PROXY protocol", 2.2): signature, command, family, length, and the addresses.
fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20 | command, family], &length, addresses].concat()
}

/// The header about a TCP connection from `client`.
pub(crate) fn about(client: SocketAddr) -> Vec<u8> {
    let ports = [client.port().to_be_bytes(), 50051_u16.to_be_bytes()].concat();
    match client.ip() {
        IpAddr::V4(ip) => header(1, 0x11, &[&ip.octets()[..], &[10, 0, 0, 1], &ports].concat()),
        IpAddr::V6(ip) => header(1, 0x21, &[&ip.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &ports].concat()),
    }
}

async fn scene() -> (Envoy, Agent) {
    let vars = [("PIXELL_PROXY_PROTOCOL", "v2"), ("PIXELL_PROXY_CIDRS", "10.9.8.0/24,127.0.7.0/24")];
    let envoy = with_settings(&vars).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    (envoy, agent)
}

/// The response to `bytes`, sent from this address.
async fn exchange(envoy: &Envoy, from: Ipv4Addr, bytes: &[u8]) -> String {
    let mut stream = connect_from(envoy, from).await;
    let _ = stream.write_all(bytes).await;
    String::from_utf8_lossy(&wire::drain(&mut stream, PATIENCE).await).into_owned()
}

#[tokio::test]
async fn the_client_is_the_one_that_the_load_balancer_names() {
    let (envoy, _agent) = scene().await;
    for client in ["203.0.113.7:4711", "[2001:db8::7]:4711", "[::ffff:203.0.113.8]:4711"] {
        let client: SocketAddr = client.parse().unwrap();
        let response = exchange(&envoy, BALANCER, &[&about(client), REQUEST].concat()).await;
        assert!(response.starts_with("HTTP/1.1 200"), "{client}: {response}");
        let address = client.ip().to_canonical().to_string();
        assert!(response.contains(&address), "the agent gets {address}: {response}");
        let lines = envoy.logged(1, |line| line["caller"].as_str().is_some_and(|caller| caller.contains(&address))).await;
        assert_eq!(lines.unwrap()[0]["status"], 200, "{client}");
    }
    // A health check by the balancer itself (LOCAL), and a header with more than addresses (a TLV of a custom type).
    let local = header(0, 0, b"");
    let client = SocketAddr::from(([203, 0, 113, 9], 1));
    let mut more = about(client);
    more.extend([0xea, 0, 2, 1, 2]);
    more[15] += 5;
    for (opening, address) in [(local, BALANCER.to_string()), (more, client.ip().to_string())] {
        let response = exchange(&envoy, BALANCER, &[&opening, REQUEST].concat()).await;
        assert!(response.starts_with("HTTP/1.1 200") && response.contains(&address), "{address}: {response}");
    }
}

/// Without a header of version 2 from the balancer there is no response, and no agent is reached.
#[tokio::test]
async fn a_missing_or_forged_header_ends_the_connection() {
    let (envoy, _agent) = scene().await;
    let forged = about(SocketAddr::from(([127, 0, 0, 1], 1)));
    let text = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 50051\r\n".as_slice();
    let mut version3 = forged.clone();
    version3[12] = 0x31;
    let cases: [(&str, Ipv4Addr, Vec<u8>); 7] = [
        ("the balancer without a header", BALANCER, REQUEST.into()),
        ("the balancer with version 1", BALANCER, [text, REQUEST].concat()),
        ("the balancer with another version", BALANCER, [&version3, REQUEST].concat()),
        ("the balancer with half a signature", BALANCER, [&forged[..8], REQUEST].concat()),
        ("a stranger without a header", STRANGER, REQUEST.into()),
        ("a stranger with a header", STRANGER, [&forged, REQUEST].concat()),
        ("a stranger with a header of version 1", STRANGER, [text, REQUEST].concat()),
    ];
    for (what, from, bytes) in cases {
        assert_eq!(exchange(&envoy, from, &bytes).await, "", "{what}");
    }
    assert_eq!(envoy.stat("cluster.agents_http1.upstream_cx_total").await.unwrap(), Some(0));
    // A second header on the same connection is not accepted.
    let client = SocketAddr::from(([203, 0, 113, 7], 1));
    let twice = [&about(client), &forged, REQUEST].concat();
    let response = exchange(&envoy, BALANCER, &twice).await;
    assert!(!response.contains("200 OK"), "{response}");
}
