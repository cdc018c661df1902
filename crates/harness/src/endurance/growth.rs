//! Routes are added one by one: each id is unknown until its route is pushed, and from then on always served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::Envoy;
use crate::proto::DEPLOYMENT_ID;

/// The figures of a run.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Routes added.
    pub routes: usize,
    /// Requests to added ids, sent while others were added. Each had a response of the right agent.
    pub requests: u64,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { routes, requests, took } = self;
        write!(f, "{routes} routes one by one in {took:.1?}: each first 404, then 200, and 200 in {requests} later requests")
    }
}

/// Adds `routes` routes one by one, each to its own agent, while other clients send requests to the added ids.
///
/// # Errors
/// If an id is served before its route is pushed, or not served after it, or a change fails.
pub async fn run(envoy: &Envoy, routes: usize) -> Result<Figures> {
    let begun = Instant::now();
    // Without any map the status would not be 404.
    envoy.routes().put_all([]).await?;
    let added = Arc::new(AtomicUsize::new(0));
    let (done, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watchers: Vec<_> = (0..4)
        .map(|seed| {
            let (url, added, done, requests) = (envoy.data_url(), added.clone(), done.clone(), requests.clone());
            tokio::spawn(async move {
                let client = client()?;
                let mut step = seed;
                while !done.load(Ordering::SeqCst) {
                    let count = added.load(Ordering::SeqCst);
                    // Every third request goes to the newest id, the others to all ids in turn.
                    step += 7919;
                    let number = if step % 3 == 0 { count.saturating_sub(1) } else { step % count.max(1) };
                    if count > 0 {
                        expect(&client, &url, number, 200).await?;
                        requests.fetch_add(1, Ordering::Relaxed);
                    } else {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let (client, api, url) = (client()?, envoy.routes(), envoy.data_url());
    let mut agents = Vec::new();
    for number in 0..routes {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        agents.push(tokio::spawn(serve(listener, number)));
        expect(&client, &url, number, 404).await?;
        api.put_route(&id(number), &port.into()).await?.expect(StatusCode::CREATED)?;
        expect(&client, &url, number, 200).await?;
        added.store(number + 1, Ordering::SeqCst);
    }
    done.store(true, Ordering::SeqCst);
    for watcher in watchers {
        watcher.await??;
    }
    for agent in agents {
        agent.abort();
    }
    Ok(Figures { routes, requests: requests.load(Ordering::Relaxed), took: begun.elapsed() })
}

fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?)
}

fn id(number: usize) -> String {
    format!("deployment-{number}")
}

async fn expect(client: &reqwest::Client, url: &str, number: usize, status: u16) -> Result<()> {
    let id = id(number);
    let response = client.get(url).header(DEPLOYMENT_ID, &id).send().await?;
    let found = response.status();
    let body = response.text().await?;
    ensure!(found == status, "{id}: expected {status}, got {found}: {body}");
    ensure!(status != 200 || body == id, "{id}: the response came from the agent of {body}");
    Ok(())
}

/// An agent so small that there can be thousands: it responds to each request with its id.
async fn serve(listener: TcpListener, number: usize) -> Result<()> {
    let body = id(number);
    let response = Arc::new(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    loop {
        let (mut stream, _) = listener.accept().await?;
        let response = response.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            loop {
                head.push(stream.read_u8().await?);
                if head.ends_with(b"\r\n\r\n") {
                    stream.write_all(response.as_bytes()).await?;
                    head.clear();
                }
            }
            #[expect(unreachable_code, reason = "names the error type")]
            std::io::Result::Ok(())
        });
    }
}
