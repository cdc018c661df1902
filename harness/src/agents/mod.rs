//! Agents that requests can reach: one kind a file, each started by the `start` of its module.
//!
//! An agent runs on threads of its own, so that a test that computes does not hold it up, and so that [`Agent::kill`] ends its
//! open connections too, as the end of a process does.

pub mod echo;
pub mod grpc;
pub mod http;
pub mod raw;
pub mod streams;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long an agent's threads may take to end; they have nothing to wait for.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// How many connections may wait to be accepted, as gRPC's own servers have it. The standard library's 128 would make a test that
/// opens a thousand at once depend on how busy the machine is.
const BACKLOG: u32 = 4096;

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    name: String,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<()>>>,
    runtime: Option<Runtime>,
}

/// What an agent is given to serve with.
#[derive(Debug)]
pub struct Seat {
    /// The agent's name, by which its answers can be told from another's.
    pub name: String,
    /// The socket to accept connections on.
    pub listener: tokio::net::TcpListener,
    /// Done when the agent shall finish what is under way and end.
    pub stopped: oneshot::Receiver<()>,
}

impl Agent {
    /// Starts an agent on `port` of 127.0.0.1 (0: any free one). It serves until the future that `serve` makes ends.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn start<F>(name: &str, port: u16, serve: impl FnOnce(Seat) -> F) -> Result<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listen = || {
            let _inside = runtime.enter();
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
            socket.listen(BACKLOG)
        };
        let listener = listen().with_context(|| format!("agent {name}: port {port} of 127.0.0.1 cannot be taken"))?;
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel();
        let seat = Seat { name: name.to_owned(), listener, stopped };
        let serving = runtime.spawn(serve(seat));
        Ok(Self { name: name.to_owned(), port, stop: Some(stop), serving: Some(serving), runtime: Some(runtime) })
    }

    /// The name that the agent's answers carry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port of 127.0.0.1 that the agent listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Takes no new connection, finishes the calls under way, and ends.
    ///
    /// # Errors
    /// Where the agent's server failed.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.stop.take());
        match self.serving.take() {
            Some(serving) => serving.await.with_context(|| format!("agent {} panicked", self.name))?,
            None => Ok(()),
        }
    }

    /// Ends at once: when this returns, the port is closed and open connections are broken.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waited for, so that the port is closed when this returns; on a thread of its own, because tokio does not let one
            // runtime wait for another. The thread cannot fail: there is nothing to do if it did.
            let _ = std::thread::spawn(move || runtime.shutdown_timeout(SHUTDOWN)).join();
        }
    }
}
