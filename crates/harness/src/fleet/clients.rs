//! Clients that send requests all the time, each with a number of its own, over HTTP/1.1 and gRPC. Like gRPC clients,
//! they resend a request only if it was never sent, or if the server says that it has not processed it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::HeaderMap;
use http_body_util::BodyExt;
use prost::Message;
use tokio::sync::mpsc;

use super::agent::{DELAY, NUMBER, framed, outcome};
use super::draw::Draw;
use super::ledger::{Id, Ledger, Number, Outcome};
use super::name;
use crate::fabric::Namespace;
use crate::proto::{ActionRequest, ActionResult, DEPLOYMENT_ID};

/// How long a client waits for a response. Nothing that is tested here takes as long.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long all requests in flight may take to end.
const END: Duration = Duration::from_secs(30);
/// One of so many requests is slow, so that there are always some in flight.
const SLOW: usize = 6;
/// The most that an agent takes for a slow one.
const SLOWEST: usize = 400;
/// The largest body of a request over HTTP/1.1.
const LARGEST: usize = 40_000;

/// What clients do.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Where clients send their requests.
    pub addresses: Vec<SocketAddr>,
    /// How many clients each address has for each protocol.
    pub clients: usize,
    /// The ids that they call, in a random order.
    pub ids: Vec<Id>,
    /// How long a client waits between two requests.
    pub pause: Duration,
}

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    Http,
    /// gRPC. (tonic does not resend a request that it could not send because its connection ended.)
    Grpc,
}

/// Clients that run until [`Clients::stop`].
#[derive(Debug)]
pub struct Clients {
    done: Arc<AtomicBool>,
    running: mpsc::Receiver<()>,
}

impl Clients {
    /// Starts clients in a namespace. They enter each request into the ledger.
    ///
    /// # Errors
    /// If the namespace's thread has ended.
    pub async fn start(namespace: &Namespace, ledger: &Arc<Ledger>, wishes: Wishes) -> Result<Self> {
        ensure!(!wishes.ids.is_empty(), "clients need an id to call");
        let done = Arc::new(AtomicBool::new(false));
        let (alive, running) = mpsc::channel(1);
        let (ledger, told) = (Arc::clone(ledger), Arc::clone(&done));
        let start = move || async move {
            let mut seed = 0;
            for address in &wishes.addresses {
                for protocol in [Protocol::Http, Protocol::Grpc] {
                    for _ in 0..wishes.clients {
                        seed += 1;
                        let client = Client::new(*address, protocol, Arc::clone(&ledger))?;
                        let (wishes, told, alive, mut draw) =
                            (wishes.clone(), Arc::clone(&told), alive.clone(), Draw::new(seed));
                        tokio::task::spawn_local(async move {
                            while !told.load(Ordering::SeqCst) {
                                let id = wishes.ids.get(draw.below(wishes.ids.len())).copied().unwrap_or_default();
                                let delay = if draw.below(SLOW) == 0 { draw.below(SLOWEST) } else { 0 };
                                client.send(id, delay, draw.below(LARGEST)).await;
                                tokio::time::sleep(wishes.pause).await;
                            }
                            drop(alive);
                        });
                    }
                }
            }
            anyhow::Ok(())
        };
        namespace.run(start).await??;
        Ok(Self { done, running })
    }

    /// Lets the clients end what they have in flight, and waits for that.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn stop(mut self) -> Result<()> {
        self.done.store(true, Ordering::SeqCst);
        let ended = tokio::time::timeout(END, self.running.recv()).await;
        ended.map(drop).context("some requests never ended")
    }
}

/// A client with a connection of its own. If that ends, the client makes another one.
pub(super) struct Client {
    ledger: Arc<Ledger>,
    address: SocketAddr,
    protocol: Protocol,
    client: reqwest::Client,
}

impl Client {
    pub(super) fn new(address: SocketAddr, protocol: Protocol, ledger: Arc<Ledger>) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy();
        let client = match protocol {
            Protocol::Http => client.http1_only(),
            Protocol::Grpc => client.http2_prior_knowledge(),
        };
        Ok(Self { ledger, address, protocol, client: client.build()? })
    }

    /// Sends a request and enters it into the ledger. The agent takes `delay` milliseconds for it. `body` bytes are sent over HTTP/1.1.
    pub(super) async fn send(&self, id: Id, delay: usize, body: usize) -> Outcome {
        let number = self.ledger.open(id);
        let sent = Instant::now();
        let outcome = match tokio::time::timeout(PATIENCE, self.call(number, id, delay, body)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(format!("no response: {}", error.root_cause())),
            Err(_) => Outcome::Failed(format!("no response within {PATIENCE:?}")),
        };
        let through = format!("through {} ({:?})", self.address, self.protocol);
        self.ledger.close(number, &through, outcome.clone(), sent.elapsed());
        outcome
    }

    async fn call(&self, number: Number, id: Id, delay: usize, body: usize) -> Result<Outcome> {
        let request = |path| {
            let request = self.client.post(format!("http://{}{path}", self.address));
            request.header(DEPLOYMENT_ID, name(id)).header(NUMBER, number).header(DELAY, delay)
        };
        let request = match self.protocol {
            Protocol::Http => request("/x").body(vec![b'x'; body]),
            Protocol::Grpc => {
                let request = request("/pixell.agent.AgentService/Invoke").header("te", "trailers");
                request.header("content-type", "application/grpc").body(framed(&ActionRequest::default()))
            }
        };
        let (head, body) = http::Response::from(request.send().await?).into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let (bytes, said) = (body.to_bytes(), |headers: &HeaderMap, name| {
            headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        if let Some(code) = said(&head.headers, "x-pixell-error") {
            return Ok(Outcome::Failed(code));
        }
        let status = said(&trailers, "grpc-status").or_else(|| said(&head.headers, "grpc-status"));
        match (self.protocol, status.as_deref()) {
            (Protocol::Http, None) if head.status == 200 => outcome(std::str::from_utf8(&bytes)?),
            (Protocol::Grpc, Some("0")) => {
                let message = bytes.get(5..).context("a message of gRPC")?;
                outcome(&ActionResult::decode(message)?.result)
            }
            _ => Ok(Outcome::Failed(format!("status {}, of gRPC {status:?}", head.status))),
        }
    }
}
