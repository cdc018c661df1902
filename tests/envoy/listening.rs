//! No other process can listen on Envoy's ports, and Envoy's workers share the connections evenly.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use harness::{Envoy, wait};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::wire;

/// Listens at `address` with every option that lets processes of one user share a port.
fn share(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(16)
}

/// Nobody else can bind the ports, at Envoy's address or at an address that overlaps with it.
#[tokio::test]
async fn no_process_of_the_same_user_shares_a_port() {
    for bind in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
        let envoy = Envoy::builder().bind(bind).start().await.unwrap();
        for port in [envoy.data_addr().port(), envoy.api_addr().port()] {
            let overlapping =
                [bind.into(), Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
            for address in overlapping {
                let error = share((address, port).into()).map(drop).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::AddrInUse, "{address}, Envoy at {bind}:{port}");
            }
        }
    }
    // With these options two processes can share a port. It is Envoy's options that prevented it above.
    let first = share((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    share(first.local_addr().unwrap()).unwrap();
}

/// A second Envoy on the same ports does not start.
#[tokio::test]
async fn a_second_envoy_says_that_the_port_is_taken() {
    let first = Envoy::builder().start().await.unwrap();
    for second in [Envoy::builder().data_port(first.data_addr().port()), Envoy::builder().api_port(first.api_addr().port())] {
        let error = second.start().await.unwrap_err().to_string();
        assert!(error.contains("Address already in use"), "{error}");
    }
}

/// Long-lived connections are shared evenly, even if all of them come at once.
#[tokio::test]
async fn the_workers_share_connections_evenly() {
    const EACH: u64 = 50;
    let envoy = Envoy::builder().concurrency(4).start().await.unwrap();
    let opened: Vec<_> = (0..EACH * 4).map(|_| tokio::spawn(TcpStream::connect(envoy.data_addr()))).collect();
    let mut held = Vec::new();
    for stream in opened {
        let mut stream = stream.await.unwrap().unwrap();
        // A connection counts once it has sent something.
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        held.push(stream);
    }
    let taken = || async {
        let counts = envoy.stats().await?.worker_connections("agents")?;
        Ok((counts.values().sum::<u64>() == EACH * 4).then_some(counts))
    };
    let counts = wait::until("all connections to be accepted", Duration::from_secs(10), taken).await.unwrap();
    assert!(counts.values().all(|count| *count == EACH), "{counts:?}");
}

/// The CPU time that a process has used so far.
fn cpu(pid: u32) -> Duration {
    /// `USER_HZ`, which is 100 on all platforms of Linux that Envoy supports.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|field| fields[*field].parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

/// The CPU time of a connection with one rejected request, compared with Envoy's other ways to share connections. docs/hardening.md has the
/// figures.
#[tokio::test]
async fn short_connections_cost_about_the_same_as_with_a_socket_for_each_worker() {
    const ROUNDS: usize = 5;
    const CONNECTIONS: u32 = 1_000;
    const ALONE: &str = "enable_reuse_port: false\n      # The workers";
    const BALANCE: &str = "connection_balance_config: { exact_balance: {} }\n      # How much one connection";
    let one_each =
        Envoy::builder().edit(ALONE, "enable_reuse_port: true\n      # The workers").edit(BALANCE, "# How much one connection");
    let ways = [
        ("a socket for each worker", one_each),
        ("one socket", Envoy::builder().edit(BALANCE, "# How much one connection")),
        ("one socket, evenly", Envoy::builder()),
    ];
    let mut envoys = Vec::new();
    for (name, settings) in ways {
        envoys.push((name, settings.start().await.unwrap(), Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, envoy, costs) in &mut envoys {
            let before = cpu(envoy.pid());
            for _ in 0..CONNECTIONS {
                let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
                wire::head(&mut stream).await.unwrap();
            }
            costs.push((cpu(envoy.pid()) - before) / CONNECTIONS);
        }
    }
    let medians = envoys.iter_mut().map(|(name, _, costs)| {
        costs.sort_unstable();
        println!("{name}: {costs:?}");
        costs[ROUNDS / 2]
    });
    let medians: Vec<_> = medians.collect();
    assert!(medians[2] < medians[0] * 2, "{medians:?}");
}
