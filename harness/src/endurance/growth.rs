//! Routes added one by one: each is unknown, then answered, and never unknown again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::Envoy;
use crate::proto::DEPLOYMENT_ID;

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Routes added.
    pub routes: usize,
    /// Calls to ids that were added, made beside the adding, all answered by their agent.
    pub calls: u64,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { routes, calls, took } = self;
        write!(f, "{routes} routes one by one in {took:.1?}: each 404, then 200, and 200 in {calls} later calls")
    }
}

/// Adds `routes` routes one by one, each to an agent of its own, while others call those that are there.
///
/// # Errors
/// Where an id is answered before its route is pushed or not after, or a change is refused.
pub async fn run(envoy: &Envoy, routes: usize) -> Result<Figures> {
    let begun = Instant::now();
    // Without any map the answer would be another one than 404.
    envoy.routes().put_all([]).await?;
    let added = Arc::new(AtomicUsize::new(0));
    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watchers: Vec<_> = (0..4)
        .map(|seed| {
            let (url, added, done, calls) = (envoy.data_url(), added.clone(), done.clone(), calls.clone());
            tokio::spawn(async move {
                let caller = caller()?;
                let mut step = seed;
                while !done.load(Ordering::SeqCst) {
                    let there = added.load(Ordering::SeqCst);
                    // Steps through all of them, the youngest among them.
                    step += 7919;
                    let number = if step % 3 == 0 { there.saturating_sub(1) } else { step % there.max(1) };
                    if there > 0 {
                        expect(&caller, &url, number, 200).await?;
                        calls.fetch_add(1, Ordering::Relaxed);
                    } else {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let (caller, api, url) = (caller()?, envoy.routes(), envoy.data_url());
    let mut agents = Vec::new();
    for number in 0..routes {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        agents.push(tokio::spawn(serve(listener, number)));
        expect(&caller, &url, number, 404).await?;
        api.put_route(&id(number), &port.into()).await?.expect(StatusCode::CREATED)?;
        expect(&caller, &url, number, 200).await?;
        added.store(number + 1, Ordering::SeqCst);
    }
    done.store(true, Ordering::SeqCst);
    for watcher in watchers {
        watcher.await??;
    }
    for agent in agents {
        agent.abort();
    }
    Ok(Figures { routes, calls: calls.load(Ordering::Relaxed), took: begun.elapsed() })
}

fn caller() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?)
}

fn id(number: usize) -> String {
    format!("deployment-{number}")
}

async fn expect(caller: &reqwest::Client, url: &str, number: usize, status: u16) -> Result<()> {
    let id = id(number);
    let answer = caller.get(url).header(DEPLOYMENT_ID, &id).send().await?;
    let found = answer.status();
    let body = answer.text().await?;
    ensure!(found == status, "{id}: {found} and not {status}: {body}");
    ensure!(status != 200 || body == id, "{id} was answered by {body}");
    Ok(())
}

/// An agent so small that thousands fit: it answers each request with the id it stands for.
async fn serve(listener: TcpListener, number: usize) -> Result<()> {
    let body = id(number);
    let answer = Arc::new(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    loop {
        let (mut stream, _) = listener.accept().await?;
        let answer = answer.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            loop {
                head.push(stream.read_u8().await?);
                if head.ends_with(b"\r\n\r\n") {
                    stream.write_all(answer.as_bytes()).await?;
                    head.clear();
                }
            }
            #[expect(unreachable_code, reason = "names the error type")]
            std::io::Result::Ok(())
        });
    }
}
