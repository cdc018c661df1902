//! HAProxy with a map file from ids to ports.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Contender, Stage};
use crate::child::Program;
use crate::table::Table;

/// The paths of the runtime API's socket and of the map file.
#[derive(Debug)]
pub(crate) struct Files {
    pub socket: PathBuf,
    pub map: PathBuf,
}

/// Starts HAProxy on one thread with the routes of `table`. `name` makes its directory unique.
pub(crate) async fn start(stage: &Stage<'_>, table: &Table, name: &str) -> Result<(Program, SocketAddr, Files)> {
    let directory = stage.scratch.join(format!("haproxy-{name}"));
    fs::create_dir_all(&directory)?;
    let files = Files { socket: directory.join("haproxy.sock"), map: directory.join("routes.map") };
    let mut map = String::new();
    for (id, port) in &table.routes {
        writeln!(map, "{id} {port}")?;
    }
    fs::write(&files.map, map)?;
    // HAProxy cannot report the port that the system chose, so it gets one that is free now.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let configuration = directory.join("haproxy.cfg");
    fs::write(&configuration, text(address, &files))?;
    let program = Program::start(Command::new("haproxy").arg("-db").arg("-f").arg(&configuration))
        .context("HAProxy is missing: install it (Debian: apt-get install haproxy), or leave it out with --only")?;
    harness::wait::until("HAProxy to listen", Duration::from_secs(10), || async { Ok(TcpStream::connect(address).ok()) })
        .await?;
    stage.cores.give_proxy(program.pid())?;
    Ok((program, address, files))
}

fn text(address: SocketAddr, files: &Files) -> String {
    let (socket, map) = (files.socket.display(), files.map.display());
    format!(
        "global\n  nbthread 1\n  stats socket {socket} mode 600 level admin\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 1h\n  timeout server 1h\n\
         frontend agents\n  bind {address}\n  \
           http-request set-var(txn.port) req.hdr(x-deployment-id),map_str_int({map})\n  \
           http-request return status 404 unless {{ var(txn.port) -m found }}\n  \
           default_backend agents\n\
         backend agents\n  \
           http-request set-dst ipv4(127.0.0.1)\n  \
           http-request set-dst-port var(txn.port)\n  \
           http-reuse always\n  \
           server agent 0.0.0.0:0\n"
    )
}

/// HAProxy with the routes of `table` as a contender.
pub(super) async fn contender(stage: &Stage<'_>, table: &Table) -> Result<Contender> {
    let (program, address, _) = start(stage, table, &table.routes.len().to_string()).await?;
    Ok(Contender { address, pids: vec![program.pid()], requested: table.requested.clone(), _running: Box::new(program) })
}
