//! Who may send requests to port 50050: addresses of the fleet, and with certificates only tasks that have the name of all.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use harness::certificate::{self, PEER_NAME as NAME, peer_settings as settings};
use harness::{Envoy, wait};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::tasks::Tasks;

/// Makes a certificate with its key below `directory`: a CA, or one that the CA there signs for a name.
fn certify(directory: &Path, file: &str, name: Option<&str>) {
    certificate::certify(directory, file, name).unwrap();
}

#[tokio::test]
async fn both_sides_need_the_name_of_all_tasks() {
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path(), "ca", None);
    certify(directory.path(), "good", Some(NAME));
    // Signed by the same CA, for another name.
    certify(directory.path(), "other", Some("x.peer.pixell.test"));
    // And for names of which the one of all tasks is an example.
    certify(directory.path(), "wild", Some("*.pixell.test"));
    let tasks = Tasks::with(4, |task| settings(directory.path(), ["good", "good", "other", "wild"][task])).await;
    let [one, two] = [tasks.echo(1, "one").await, tasks.echo(2, "two").await];
    tasks.routes(1, json!({ "one": one.port() })).await;
    tasks.routes(2, json!({ "two": two.port() })).await;
    tasks.fleet(0, &[("one", &[1]), ("two", &[2]), ("three", &[3])]).await;
    for task in [2, 3] {
        tasks.fleet(task, &[("one", &[1])]).await;
    }
    assert_eq!(tasks.ask(0, "one").await.seen()["agent"], "one");
    for id in ["two", "three"] {
        tasks.ask(0, id).await.is_rejected("peer_unreachable");
    }
    for task in [2, 3] {
        let response = tasks.ask(task, "one").await;
        assert!(matches!(response.header("x-pixell-error"), Some("peer_unreachable" | "agent_closed")), "{task}: {response:?}");
    }
    assert_eq!(tasks.count(1, "wasmcustom.pixell_fleet_requests_total.hop.in").await, 1);
    for task in [2, 3] {
        assert_eq!(tasks.count(task, "wasmcustom.pixell_fleet_requests_total.hop.in").await, 0);
    }
    // A new pair is taken without a restart, and one that does not match is not.
    for kind in ["crt", "key"] {
        std::fs::copy(directory.path().join(format!("good.{kind}")), directory.path().join(format!("other.{kind}"))).unwrap();
    }
    let both = async || tasks.ask(0, "two").await.status == 200 && tasks.ask(2, "one").await.status == 200;
    for _ in 0..100 {
        if both().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(both().await, "the new certificate is not used");
    certify(directory.path(), "new", Some(NAME));
    std::fs::copy(directory.path().join("new.crt"), directory.path().join("other.crt")).unwrap();
    for _ in 0..100 {
        if tasks.count(2, "sds.pixell_peer_tls.key_rotation_failed").await > 0 {
            assert!(both().await, "the pair before stays in use");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a pair that does not match is not noticed");
}

#[tokio::test]
async fn both_sides_need_a_certificate_of_the_ca_of_the_fleet() {
    let (directory, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certify(directory.path(), "ca", None);
    certify(directory.path(), "good", Some(NAME));
    // The name of all tasks, but as the subject alone.
    certificate::certify_subject(directory.path(), "subject").unwrap();
    // The name of all tasks, signed by another CA.
    certify(foreign.path(), "ca", None);
    certify(foreign.path(), "good", Some(NAME));
    // All of them trust the CA of the fleet. (The first value of a setting counts.)
    let mut of_foreign = settings(directory.path(), "good");
    of_foreign.retain(|(name, _)| *name == "PIXELL_PEER_CA_FILE");
    of_foreign.extend(settings(foreign.path(), "good"));
    let settings_of = |task| match task {
        2 => settings(directory.path(), "subject"),
        3 => of_foreign.clone(),
        _ => settings(directory.path(), "good"),
    };
    let tasks = Tasks::with(4, settings_of).await;
    let mut agents = Vec::new();
    for (task, name) in (1..).zip(["one", "two", "three"]) {
        let agent = tasks.echo(task, name).await;
        tasks.routes(task, json!({ name: agent.port() })).await;
        agents.push(agent);
    }
    tasks.fleet(0, &[("one", &[1]), ("two", &[2]), ("three", &[3])]).await;
    for task in [2, 3] {
        tasks.fleet(task, &[("one", &[1])]).await;
    }
    assert_eq!(tasks.ask(0, "one").await.seen()["agent"], "one");
    let is_rejected = async |task: usize, id: &'static str| {
        tasks.ask(0, id).await.is_rejected("peer_unreachable");
        let response = tasks.ask(task, "one").await;
        assert!(matches!(response.header("x-pixell-error"), Some("peer_unreachable" | "agent_closed")), "{task}: {response:?}");
        assert_eq!(tasks.count(task, "wasmcustom.pixell_fleet_requests_total.hop.in").await, 0);
    };
    is_rejected(2, "two").await;
    is_rejected(3, "three").await;
    assert_eq!(tasks.count(1, "wasmcustom.pixell_fleet_requests_total.hop.in").await, 1);
    // A list of CAs is taken without a restart, as it is written when a CA is replaced.
    let read = |directory: &Path| std::fs::read_to_string(directory.join("ca.crt")).unwrap();
    let both = read(directory.path()) + &read(foreign.path());
    std::fs::write(directory.path().join("ca.crt"), both).unwrap();
    let is_taken = || async {
        let (there, here) = (tasks.ask(0, "three").await, tasks.ask(3, "one").await);
        Ok((there.status == 200 && here.status == 200).then_some(()))
    };
    wait::until("the other CA to be trusted", Duration::from_secs(20), is_taken).await.unwrap();
    is_rejected(2, "two").await;
}

/// Half closes a connection without a byte, and waits for its end.
async fn half_close(address: (Ipv4Addr, u16)) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    // Times out if Envoy does not close it.
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(read.unwrap(), 0, "{bytes:?}");
}

/// In this way the Python client's `Fleet` asks a silent task every few seconds whether its Envoy runs.
async fn half_closed_connections_end_without_a_line(settings: &[(&'static str, String)]) {
    let tasks = Tasks::with(2, |_| settings.to_vec()).await;
    let address = (tasks.fabric.address(0), 50050);
    for _ in 0..5 {
        tasks.fabric.task(1).unwrap().run(move || half_close(address)).await.unwrap();
    }
    let closed = || async { Ok((tasks.count(0, "listener.peers.downstream_cx_destroy").await == 5).then_some(())) };
    wait::until("the connections to end", Duration::from_secs(5), closed).await.unwrap();
    assert_eq!(tasks.count(0, "listener.peers.ssl.connection_error").await, 0);
    // A request after them has the first line.
    tasks.ask(0, "none").await.is_rejected("route_map_not_loaded");
    let envoy: &Envoy = &tasks.envoys[0];
    assert_eq!(envoy.logged(1, |_| true).await.unwrap()[0]["error"], "route_map_not_loaded");
}

#[tokio::test]
async fn a_connection_that_is_half_closed_is_closed_and_leaves_no_line() {
    half_closed_connections_end_without_a_line(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    half_closed_connections_end_without_a_line(&certificate::of_peers(directory.path()).unwrap()).await;
}

/// A connection from outside of the fleet's networks; whether the proxy closes it at once.
async fn is_closed_at_once(address: std::net::SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
    read.is_ok() && bytes.is_empty()
}

#[tokio::test]
async fn strangers_are_closed_and_counted() {
    let networks = |_: usize| vec![("PIXELL_FLEET_CIDRS", "198.18.1.0/24".to_owned())];
    let tasks = Tasks::with(2, networks).await;
    let address = (tasks.fabric.address(0), 50050).into();
    // The router between the tasks has an address in the networks of both, so that is who asks; task 1 is in the fleet.
    let closed = tasks.fabric.outside().run(move || is_closed_at_once(address)).await.unwrap();
    let envoy: &Envoy = &tasks.envoys[0];
    assert!(closed);
    assert_eq!(envoy.stat("listener.peers.no_filter_chain_match").await.unwrap(), Some(1));
    assert!(!tasks.fabric.task(1).unwrap().run(move || is_closed_at_once(address)).await.unwrap());
    assert!(!tasks.fabric.task(0).unwrap().run(move || is_closed_at_once(([127, 0, 0, 1], 50050).into())).await.unwrap());
    // No other process gets a share of what peers send.
    let bound = tasks.fabric.task(0).unwrap().run(|| async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(([0, 0, 0, 0], 50050).into()).is_ok()
    });
    assert!(!bound.await.unwrap(), "another process can bind the port");
}

#[tokio::test]
async fn agents_cannot_take_the_places_of_other_tasks() {
    let tasks = Tasks::start(2).await;
    let agent = tasks.echo(1, "here").await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    tasks.fleet(0, &[("a", &[1])]).await;
    // Half of them by the address that other tasks use, and none of them ever sends a byte.
    let hosts = [tasks.fabric.address(1), Ipv4Addr::LOCALHOST];
    let open = move || async move {
        let mut streams = Vec::new();
        for host in hosts.into_iter().cycle().take(200) {
            streams.push(TcpStream::connect((host, 50050)).await.unwrap());
        }
        streams
    };
    let streams = tasks.fabric.task(1).unwrap().run(open).await.unwrap();
    let limited =
        || async { Ok((tasks.count(1, "connection_limit.peers_inside.limited_connections").await == 136).then_some(())) };
    wait::until("connections to be closed", Duration::from_secs(5), limited).await.unwrap();
    assert_eq!(tasks.count(1, "listener.peers.downstream_cx_active").await, 64);
    assert_eq!(tasks.ask(0, "a").await.seen()["agent"], "here");
    drop(streams);
}
