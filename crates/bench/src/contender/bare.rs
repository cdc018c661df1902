//! An Envoy that does nothing but forward: ORIGINAL_DST by a request header, and Envoy's defaults for everything else.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, path::Path};

use anyhow::Result;

use super::{Contender, Stage};
use crate::child::Program;
use crate::table::Table;

/// Starts it. `name` makes its directory unique.
pub(super) async fn contender(stage: &Stage<'_>, name: &str) -> Result<Contender> {
    // Envoy tells the port that the system chose only through its admin interface, which a bare Envoy does not have.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let configuration = stage.scratch.join(format!("{name}.yaml"));
    fs::write(&configuration, text(address))?;
    let program = start(stage.envoy, &configuration)?;
    let listens = || async { Ok(TcpStream::connect(address).ok()) };
    harness::wait::until("the bare Envoy to listen", Duration::from_secs(60), listens).await?;
    stage.cores.give_proxy(program.pid())?;
    let requested = Table::new(stage.agents.len(), stage.agents).requested;
    Ok(Contender { address, pids: vec![program.pid()], requested, _running: Box::new(program) })
}

fn start(envoy: &Path, configuration: &Path) -> Result<Program> {
    let mut envoy = Command::new(envoy);
    envoy.args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c"]).arg(configuration);
    Program::start(envoy.stdout(Stdio::null()))
}

fn text(address: SocketAddr) -> String {
    let (host, port) = (address.ip(), address.port());
    format!(
        r#"static_resources:
  listeners:
    - address: {{ socket_address: {{ address: {host}, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: bare
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
                route_config:
                  virtual_hosts:
                    - {{ name: agents, domains: ["*"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: agents }} }}] }}
  clusters:
    - {{ name: agents, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {{ use_http_header: true }} }}
"#
    )
}
