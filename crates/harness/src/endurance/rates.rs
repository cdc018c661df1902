//! Measures Envoy's memory while more and more clients, each with a token of its own, send requests under a rate limit.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use launcher::settings::Settings;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agents::raw;
use crate::tokens::{Algorithm, Issuer};
use crate::{Agent, Envoy, EnvoyBuilder, wait};

/// How many buckets Envoy keeps (docs/authentication.md).
pub const BUCKETS: usize = 20_000;
/// The rate: nobody gets a second request through.
const RATE: &str = "1/m";
/// Connections of the clients, and the requests that are sent at once on each.
const CONNECTIONS: usize = 8;
const BATCH: usize = 16;
/// Every client with such a number sends its request twice.
const TWICE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);
/// The deployment that all clients call.
const ID: &str = "quick";

/// The figures of a run.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Clients, each with one request that its agent got.
    pub clients: usize,
    /// Second requests, all rejected.
    pub rejected: usize,
    /// What Envoy had allocated before the first client, in bytes.
    pub before: u64,
    /// The same when all buckets were in use, a quarter of them for the second time.
    pub full: u64,
    /// The same after all clients.
    pub after: u64,
    /// How long it took.
    pub took: Duration,
}

impl Figures {
    /// What a bucket takes, in bytes.
    #[must_use]
    pub const fn bucket_bytes(&self) -> u64 {
        self.full.saturating_sub(self.before) / BUCKETS as u64
    }

    /// By how much Envoy's memory grew after all buckets were in use, in MiB.
    #[must_use]
    pub const fn grown_mib(&self) -> u64 {
        self.after.saturating_sub(self.full) >> 20
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let Self { clients, rejected, before, full, after, took } = *self;
        let (bucket, grown) = (self.bucket_bytes(), self.grown_mib());
        write!(
            f,
            "{clients} clients with a rate in {took:.1?}, {rejected} requests above it rejected: allocated {} MiB, \
             then {} MiB with {BUCKETS} buckets ({bucket} bytes each), then {} MiB (+{grown} MiB)",
            mib(before),
            mib(full),
            mib(after)
        )
    }
}

/// The issuer of the clients' tokens, with its keys in `directory`, and the settings of an Envoy that asks for them and has a rate.
///
/// # Errors
/// If the command openssl is missing.
pub fn settings(directory: &Path) -> Result<(Issuer, EnvoyBuilder)> {
    let issuer = Issuer::new(directory, Algorithm::Hs256)?;
    let mut variables = issuer.settings(directory)?;
    // Successes are not logged: that would be a gigabyte.
    variables.extend([("PIXELL_RATE_LIMIT", RATE.to_owned()), ("PIXELL_ACCESS_LOG", "failures".to_owned())]);
    let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    let settings = Settings::resolve(find).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    Ok((issuer, Envoy::builder().settings(&settings).concurrency(2)))
}

/// Lets `clients` clients send a request each to an Envoy that was started with [`settings`]. Some send a second one, which is above the
/// rate.
///
/// # Errors
/// If there are fewer clients than fill all buckets, or a response is not what it should be.
pub async fn run(envoy: &Envoy, issuer: &Issuer, clients: usize) -> Result<Figures> {
    let full = BUCKETS + BUCKETS / 4;
    ensure!(clients >= full, "at least {full} clients are needed to fill all buckets");
    let begun = Instant::now();
    let agent = agent()?;
    envoy.routes().put_all([(ID, agent.port())]).await?;
    let first = request(issuer, "nobody in particular")?;
    let has_keys = || async {
        let mut stream = TcpStream::connect(envoy.data_addr()).await?;
        let statuses = exchange(&mut stream, &first, 1).await?;
        Ok((statuses != [401]).then_some(()))
    };
    wait::until("Envoy to have the keys", PATIENCE, has_keys).await?;

    let before = allocated(envoy).await?;
    let issuer = Arc::new(issuer.clone());
    let mut rejected = send(envoy, &issuer, 0, full).await?;
    let at_full = allocated(envoy).await?;
    rejected += send(envoy, &issuer, full, clients).await?;
    let after = allocated(envoy).await?;
    Ok(Figures { clients, rejected, before, full: at_full, after, took: begun.elapsed() })
}

/// Lets the clients from one number to another send their requests. Returns how many second ones were rejected.
async fn send(envoy: &Envoy, issuer: &Arc<Issuer>, from: usize, to: usize) -> Result<usize> {
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let (issuer, address) = (Arc::clone(issuer), envoy.data_addr());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                let numbers: Vec<_> = (from..to).skip(connection).step_by(CONNECTIONS).collect();
                let mut rejected = 0;
                for batch in numbers.chunks(BATCH) {
                    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
                    for number in batch {
                        let request = request(&issuer, &format!("client-{number}"))?;
                        bytes.extend(&request);
                        expected.push(204);
                        if number % TWICE == 0 {
                            bytes.extend(&request);
                            expected.push(429);
                        }
                    }
                    let statuses = exchange(&mut stream, &bytes, expected.len()).await?;
                    ensure!(statuses == expected, "clients {batch:?}: expected {expected:?}, got {statuses:?}");
                    rejected += expected.len() - batch.len();
                }
                Ok(rejected)
            })
        })
        .collect();
    let mut rejected = 0;
    for sender in senders {
        rejected += sender.await??;
    }
    Ok(rejected)
}

/// A request of a client. No response to it has a body.
fn request(issuer: &Issuer, subject: &str) -> Result<Vec<u8>> {
    let token = issuer.token(subject, &json!({}))?;
    let head = "HEAD / HTTP/1.1\r\nhost: agents\r\n";
    Ok(format!("{head}x-deployment-id: {ID}\r\nauthorization: Bearer {token}\r\n\r\n").into_bytes())
}

/// Sends requests one right after the other, and returns the statuses of as many responses.
async fn exchange(stream: &mut TcpStream, requests: &[u8], count: usize) -> Result<Vec<u16>> {
    stream.write_all(requests).await?;
    let (mut bytes, mut statuses) = (Vec::new(), Vec::new());
    while statuses.len() < count {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut bytes)).await.context("no response")??;
        ensure!(read > 0, "the connection was closed after {} of {count} responses", statuses.len());
        while let Some(end) = head_end(&bytes) {
            let status = bytes.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
            statuses.push(status.with_context(|| format!("not a response: {}", bytes.escape_ascii()))?);
            bytes.drain(..end);
        }
    }
    Ok(statuses)
}

/// Where the first head in `bytes` ends; `None` if it is not whole.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// An agent that costs little: it responds to each request without a body.
fn agent() -> Result<Agent> {
    raw::start(ID, |mut stream| async move {
        let mut bytes = Vec::new();
        while stream.read_buf(&mut bytes).await? > 0 {
            while let Some(end) = head_end(&bytes) {
                bytes.drain(..end);
                let status = StatusCode::NO_CONTENT;
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await?;
            }
        }
        Ok(())
    })
}

/// What Envoy has allocated now, in bytes.
async fn allocated(envoy: &Envoy) -> Result<u64> {
    let text = envoy.admin("/memory").await?;
    let memory: serde_json::Value = serde_json::from_str(&text)?;
    let allocated = memory.get("allocated").and_then(|value| value.as_str()?.parse().ok());
    allocated.with_context(|| format!("Envoy does not tell its memory: {text}"))
}
