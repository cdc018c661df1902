//! Agents for tests. Each kind has a module, whose `start` starts one.
//!
//! An agent has its own threads. So a test that computes does not delay it, and [`Agent::kill`] breaks its open connections, as the end
//! of a process does.

pub mod echo;
pub mod gate;
pub mod grpc;
pub mod http;
pub mod page;
pub mod raw;
pub mod streams;

use std::future::Future;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long an agent's threads may take to end. They wait for nothing, so they need much less.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// How long a process that is being started may have copies of this one's sockets.
const INHERITED: Duration = Duration::from_secs(5);

/// How many connections may wait to be accepted, the same as in gRPC's own servers. With the standard library's 128, a test that opens a
/// thousand connections at once would depend on how busy the machine is.
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

/// What an agent needs to serve.
#[derive(Debug)]
pub struct Seat {
    /// The agent's name, which its responses carry.
    pub name: String,
    /// The socket to accept connections on.
    pub listener: tokio::net::TcpListener,
    /// Completes when the agent must finish the calls in flight and end.
    pub stopped: oneshot::Receiver<()>,
}

impl Agent {
    /// Starts an agent on `port` of 127.0.0.1 (0: any free port). It serves until the future that `serve` returns ends.
    ///
    /// # Errors
    /// If the port is in use.
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
        let started = Instant::now();
        let mut listening = listen();
        // Another thread may be starting a process, which has copies of all sockets until it runs its own program: also of that of the
        // agent that had this port before.
        while listening.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse) && started.elapsed() < INHERITED {
            std::thread::sleep(Duration::from_millis(10));
            listening = listen();
        }
        let listener = match listening.with_context(|| format!("agent {name} cannot listen on port {port} of 127.0.0.1")) {
            Ok(listener) => listener,
            Err(error) => {
                // To drop it would block on its threads, which tokio does not allow in async code.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel();
        let seat = Seat { name: name.to_owned(), listener, stopped };
        let serving = runtime.spawn(serve(seat));
        Ok(Self { name: name.to_owned(), port, stop: Some(stop), serving: Some(serving), runtime: Some(runtime) })
    }

    /// The name that the agent's responses carry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port of 127.0.0.1 that the agent listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Tells the agent to accept no new connections, finish the calls in flight and end. Does not wait for that.
    pub fn tell_to_stop(&mut self) {
        drop(self.stop.take());
    }

    /// As [`Agent::tell_to_stop`], but waits until the agent has ended.
    ///
    /// # Errors
    /// If the agent's server failed.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.stop.take());
        match self.serving.take() {
            Some(serving) => serving.await.with_context(|| format!("agent {} panicked", self.name))?,
            None => Ok(()),
        }
    }

    /// Ends the agent at once: when this returns, its port is closed and its connections are broken.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits, so that the port is closed when this returns. The wait has its own thread, because tokio does not allow it in
            // async code. If that thread panicked, nothing could be done.
            let _ = std::thread::spawn(move || runtime.shutdown_timeout(SHUTDOWN)).join();
        }
    }
}
