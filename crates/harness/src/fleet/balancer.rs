//! A load balancer that knows nothing of HTTP: HAProxy in TCP mode, in front of all tasks that a fabric may get.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;

use crate::envoy::launch::mortal;
use crate::fabric::Namespace;
use crate::ports::{ADMIN, LISTEN};
use crate::wait;

/// How long a change of a server's state may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A running HAProxy. It is killed if this is dropped.
pub(super) struct Balancer {
    /// Where clients reach it, in its namespace.
    pub(super) address: SocketAddr,
    directory: TempDir,
    _process: Child,
}

impl Balancer {
    /// Starts it in a namespace, with servers at these addresses. Those that are not there yet may come later.
    ///
    /// # Errors
    /// If HAProxy is missing, or does not start.
    pub(super) async fn start(namespace: &Namespace, servers: impl Iterator<Item = Ipv4Addr>) -> Result<Self> {
        // The wrapper that starts it would start without it, too.
        let version = std::process::Command::new("haproxy").arg("-v").output();
        version.context("HAProxy cannot be started: its Debian package is haproxy")?;
        let directory = tempfile::Builder::new().prefix("pixell-").tempdir()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, LISTEN));
        // As docs/fleet.md says: a server gets connections if it says that it is ready for them. (HAProxy's default is HTTP/1.0.)
        let mut text = format!(
            "global\n  nbthread 1\n  stats socket {} mode 600 level admin\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  timeout check 5s\n\
             listen tasks\n  bind {address}\n  balance roundrobin\n  \
               option httpchk\n  http-check send meth GET uri /ready/traffic ver HTTP/1.1 hdr host tasks\n  \
               http-check expect status 200\n  \
               default-server check port {ADMIN} inter 100ms rise 2 fall 10\n",
            directory.path().join("haproxy.sock").display()
        );
        for (number, server) in servers.enumerate() {
            writeln!(text, "  server task-{number} {server}:{LISTEN}")?;
        }
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, text)?;
        let spawn = move || async move {
            let mut command = tokio::process::Command::from(mortal("haproxy".as_ref()));
            command.arg("-db").arg("-f").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            command.spawn().context("starting HAProxy")
        };
        Ok(Self { address, directory, _process: namespace.run(spawn).await?? })
    }

    /// Waits until a server gets new connections, or until it gets none.
    pub(super) async fn becomes(&self, number: usize, up: bool) -> Result<()> {
        let wanted = if up { "UP" } else { "DOWN" };
        let look = || async {
            let table = self.say("show stat").await.unwrap_or_default();
            // pxname, svname, ..., status as the 18th.
            let line = table.lines().find(|line| line.starts_with(&format!("tasks,task-{number},")));
            Ok(line.and_then(|line| line.split(',').nth(17)).filter(|status| *status == wanted).map(drop))
        };
        wait::until(&format!("the balancer to call task {number} {wanted}"), LIMIT, look).await
    }

    /// Gives a server no new connections. Those that it has go on.
    pub(super) async fn deregister(&self, number: usize) -> Result<()> {
        let response = self.say(&format!("set server tasks/task-{number} state drain")).await?;
        ensure!(response.trim().is_empty(), "HAProxy: {response}");
        Ok(())
    }

    async fn say(&self, command: &str) -> Result<String> {
        let mut socket = UnixStream::connect(self.directory.path().join("haproxy.sock")).await?;
        socket.write_all(format!("{command}\n").as_bytes()).await?;
        let mut response = String::new();
        socket.read_to_string(&mut response).await?;
        Ok(response)
    }
}
