//! A TCP proxy between the load and the proxy that is measured, which adds TLS, because the load itself cannot. It runs on the load's core, and its
//! CPU time does not count. It is another Envoy, because that is available.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use crate::child::Program;

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    _program: Program,
    /// Where it listens for each of its ways.
    pub addresses: Vec<SocketAddr>,
}

/// Where a way leads, and what is said there: the protocol that is asked for by ALPN over TLS; `None` for no TLS.
pub type Way = (SocketAddr, Option<&'static str>);

impl Relay {
    /// Starts it, with its configuration in `directory`.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(directory: &Path, ways: &[Way]) -> Result<Self> {
        // Envoy would tell ports that the system chose only through its admin interface, which this one does not have.
        let free = || anyhow::Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        let listeners = ways.iter().map(|_| free()).collect::<Result<Vec<_>>>()?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
        drop(listeners);
        let configuration = directory.join("relay.yaml");
        fs::write(&configuration, text(&addresses, ways)?)?;
        let mut envoy = Command::new(workspace::envoy::locate()?);
        envoy.args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c"]).arg(&configuration);
        let program = Program::start(envoy.stdout(Stdio::null()))?;
        for address in &addresses {
            let listens = || async { Ok(TcpStream::connect(address).ok()) };
            harness::wait::until("the relay to listen", Duration::from_secs(20), listens).await?;
        }
        Ok(Self { _program: program, addresses })
    }
}

fn text(addresses: &[SocketAddr], ways: &[Way]) -> Result<String> {
    const TYPE: &str = "\"@type\": type.googleapis.com/envoy.extensions";
    let place =
        |address: &SocketAddr| format!("{{ socket_address: {{ address: {}, port_value: {} }} }}", address.ip(), address.port());
    let (mut listeners, mut clusters) = (String::new(), String::new());
    for (number, (address, (to, alpn))) in addresses.iter().zip(ways).enumerate() {
        writeln!(
            listeners,
            "    - {{ address: {}, filter_chains: [{{ filters: [{{ name: envoy.filters.network.tcp_proxy, typed_config: {{ \
             {TYPE}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: relay, cluster: way_{number} }} }}] }}] }}",
            place(address)
        )?;
        let tls = alpn.map_or_else(String::new, |alpn| {
            format!(
                "transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {{ \
                 {TYPE}.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {{ alpn_protocols: [{alpn}] }} }} }}, "
            )
        });
        writeln!(
            clusters,
            "    - {{ name: way_{number}, type: STATIC, {tls}load_assignment: {{ cluster_name: way_{number}, \
             endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {} }} }}] }}] }} }}",
            place(to)
        )?;
    }
    Ok(format!("static_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}"))
}
