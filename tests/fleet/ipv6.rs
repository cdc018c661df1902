//! Tasks that reach each other by IPv6, beside others that do so by IPv4.

use std::time::Duration;

use harness::fabric::NETWORK;
use harness::ports::PEERS;
use harness::wait;
use serde_json::json;

use crate::tasks::Tasks;

#[tokio::test]
async fn tasks_reach_each_other_by_both() {
    let tasks = Tasks::with(2, |_| vec![("PIXELL_FLEET_CIDRS", format!("{NETWORK},fd00:18::/32"))]).await;
    let outside = tasks.fabric.outside();
    outside.enter(|| Ok(std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)).unwrap();
    for task in 0..2 {
        outside.ip(&format!("-6 addr add fd00:18:0:{task}::1/64 dev task{task} nodad")).unwrap();
        let inside = tasks.fabric.task(task).unwrap();
        inside.ip(&format!("-6 addr add fd00:18:0:{task}::2/64 dev eth0 nodad")).unwrap();
        inside.ip(&format!("-6 route add default via fd00:18:0:{task}::1")).unwrap();
    }
    // The kernel takes a moment to find the way to a new address.
    let connects = || async {
        let connect = || tokio::net::TcpStream::connect(("fd00:18:0:1::2", PEERS));
        let connected = tasks.fabric.task(0)?.run(move || tokio::time::timeout(Duration::from_millis(500), connect())).await?;
        Ok(matches!(connected, Ok(Ok(_))).then_some(()))
    };
    wait::until("a connection by IPv6", Duration::from_secs(20), connects).await.unwrap();
    let agent = tasks.echo(1, "there").await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "a": agent.port() })).await;
    for host in ["fd00:18:0:1::2", "198.18.1.2"] {
        tasks.put(0, "/v1/fleet", json!({ "peers": { "p": { "host": host } }, "routes": { "a": ["p"] } })).await;
        assert_eq!(tasks.ask(0, "a").await.seen()["agent"], "there", "{host}");
    }
    assert_eq!(tasks.count(1, "wasmcustom.pixell_fleet_requests_total.hop.in").await, 2);
    assert_eq!(tasks.count(1, "listener.peers.no_filter_chain_match").await, 0);
}
