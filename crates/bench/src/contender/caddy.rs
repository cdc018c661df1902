//! Caddy with a route for each id, pushed through its admin API.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Contender, Stage};
use crate::child::Program;
use crate::connection::Connection;
use crate::python;
use crate::table::Table;

/// Caddy on one processor with the routes of `table` as a contender.
pub(super) async fn contender(stage: &Stage<'_>, table: &Table) -> Result<Contender> {
    // Caddy tells nobody a port that the system chose, so it gets two that are free now.
    let (first, second) = (TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    let (admin, address) = (first.local_addr()?, second.local_addr()?);
    drop((first, second));
    let home = stage.scratch.join("caddy");
    std::fs::create_dir_all(&home)?;
    let mut caddy = Command::new(python::program("caddy")?);
    caddy
        .arg("run")
        .env("CADDY_ADMIN", admin.to_string())
        .env("GOMAXPROCS", "1")
        .envs(["HOME", "XDG_DATA_HOME"].map(|name| (name, &home)));
    let program = Program::start(caddy.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let listens = |address| async move { Ok(TcpStream::connect(address).ok()) };
    harness::wait::until("Caddy's admin API", Duration::from_secs(20), || listens(admin)).await?;
    push(admin, &configuration(admin, address, table))?;
    harness::wait::until("Caddy to listen", Duration::from_secs(20), || listens(address)).await?;
    stage.cores.give_proxy(program.pid())?;
    Ok(Contender { address, pids: vec![program.pid()], requested: table.requested.clone(), _running: Box::new(program) })
}

fn push(admin: SocketAddr, configuration: &Value) -> Result<()> {
    let body = configuration.to_string();
    let request = format!(
        "POST /load HTTP/1.1\r\nhost: {admin}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = Connection::open(admin)?;
    let response = connection.exchange(request.as_bytes()).context("pushing Caddy's configuration")?;
    ensure!(response.status() == 200, "Caddy responded with {}", String::from_utf8_lossy(response.body));
    Ok(())
}

fn configuration(admin: SocketAddr, address: SocketAddr, table: &Table) -> Value {
    let routes = table.routes.iter().map(|(id, port)| {
        json!({
            "match": [{ "header": { "X-Deployment-Id": [id] } }],
            "handle": [{ "handler": "reverse_proxy", "upstreams": [{ "dial": format!("127.0.0.1:{port}") }] }],
        })
    });
    let server = json!({ "listen": [address.to_string()], "routes": routes.collect::<Vec<_>>(), "automatic_https": { "disable": true } });
    json!({ "admin": { "listen": admin.to_string() }, "apps": { "http": { "servers": { "agents": server } } } })
}
