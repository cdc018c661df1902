//! Measures how much memory Envoy needs for each worker, connection, unread stream and route, and how long a line of its access log
//! is, for the capacity formula in `docs/operations.md`.

mod clients;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::{Map, Value, json};

use crate::{Agent, Envoy, EnvoyBuilder, agents};

/// How long the memory may take to settle on a busy machine.
const SETTLE: Duration = Duration::from_secs(120);
/// The memory has settled if it has changed by at most this many bytes for [`STILL`], and Envoy has used at most this much processor time.
const NOISE: u64 = 256 * 1024;
const IDLE: Duration = Duration::from_millis(30);
const STILL: Duration = Duration::from_millis(700);

/// How many of each are made. The memory is divided by these numbers.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    /// Idle HTTP/2 connections.
    pub connections: usize,
    /// Streams of which one side does not read.
    pub streams: usize,
    /// Routes in the map.
    pub routes: usize,
    /// Requests that are logged.
    pub requests: usize,
}

/// The measured figures, in bytes unless a field says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Envoy with one worker, before any request.
    pub base: u64,
    /// Each additional worker.
    pub worker: u64,
    /// Open files (not bytes) of Envoy with one worker, before any request.
    pub files: u64,
    /// Open files of each additional worker.
    pub worker_files: u64,
    /// A client's idle HTTP/2 connection.
    pub connection: u64,
    /// A stream whose client does not read what the agent sends.
    pub download: u64,
    /// A request whose agent does not read what the client sends, with its own connection on each side.
    pub upload: u64,
    /// A route, after two workers have fetched it.
    pub route: u64,
    /// A full line of the access log about a gRPC call.
    pub line: u64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { base, worker, files, worker_files, connection, download, upload, route, line } = *self;
        let tenths = |bytes: u64, unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
        writeln!(f, "Envoy with one worker                        {:>8} MiB", tenths(base, 1 << 20))?;
        writeln!(f, "each further worker                          {:>8} MiB", tenths(worker, 1 << 20))?;
        writeln!(f, "open files with one worker                   {files:>8}")?;
        writeln!(f, "open files of each further worker            {worker_files:>8}")?;
        writeln!(f, "an idle HTTP/2 connection                    {:>8} KiB", tenths(connection, 1 << 10))?;
        writeln!(f, "a stream whose client does not read          {:>8} KiB", tenths(download, 1 << 10))?;
        writeln!(f, "a request whose agent does not read          {:>8} KiB", tenths(upload, 1 << 10))?;
        writeln!(f, "a route, with two workers                    {route:>8} B")?;
        write!(f, "a full line of the access log                {line:>8} B")
    }
}

/// Measures all figures, each with its own Envoy from `builder`.
///
/// # Errors
/// If Envoy does not start, a response is not the expected one, or Envoy's memory does not settle.
pub async fn measure(builder: impl Fn() -> EnvoyBuilder, amounts: Amounts) -> Result<Figures> {
    const MORE_WORKERS: u64 = 4;
    let directory = tempfile::tempdir_in(workspace::target()).context("making a directory for a copy of Envoy")?;
    let program = unread_copy(&workspace::envoy::locate()?, &directory.path().join("envoy"))?;
    let one = builder().binary(&program).concurrency(1).start().await?;
    let (base, files) = (settled(&one).await?, one.open_files()?);
    drop(one);
    let program = unread_copy(&program, &directory.path().join("envoy-of-more-workers"))?;
    let more = builder().binary(program).concurrency(1 + u32::try_from(MORE_WORKERS)?).start().await?;
    let worker = settled(&more).await?.saturating_sub(base) / MORE_WORKERS;
    let worker_files = more.open_files()?.saturating_sub(files).div_ceil(MORE_WORKERS);
    drop(more);
    Ok(Figures {
        base,
        worker,
        files,
        worker_files,
        connection: connection(&builder().start().await?, amounts.connections).await?,
        download: download(&builder().start().await?, amounts.streams).await?,
        upload: upload(&builder().start().await?, amounts.streams).await?,
        route: route(&builder().start().await?, amounts.routes).await?,
        line: line(&builder().start().await?, amounts.requests).await?,
    })
}

/// Copies Envoy's program to `path`, and has the system forget what it has read of the copy. Linux maps pages of a program that are in its
/// cache even if they are never used, up to 6 MiB here. They would count on a machine where other Envoys run, and not on another one.
fn unread_copy(program: &Path, path: &Path) -> Result<PathBuf> {
    std::fs::copy(program, path).with_context(|| format!("copying {}", program.display()))?;
    let file = std::fs::File::open(path)?;
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(path.to_owned())
}

/// Envoy's memory, once it has stopped growing because Envoy has nothing left to do. On a busy machine it may also stand still because Envoy
/// waits for a processor.
async fn settled(envoy: &Envoy) -> Result<u64> {
    let begun = Instant::now();
    let look = || anyhow::Ok((envoy.resident_bytes()?, envoy.processor_time()?));
    let (mut last, mut since) = (look()?, Instant::now());
    while since.elapsed() < STILL || envoy.is_runnable()? {
        ensure!(begun.elapsed() < SETTLE, "Envoy's memory has not settled after {SETTLE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = look()?;
        if now.0.abs_diff(last.0) > NOISE || now.1.saturating_sub(last.1) > IDLE {
            (last, since) = (now, Instant::now());
        }
    }
    envoy.resident_bytes()
}

/// The memory of one of the `count` things that `make` makes.
async fn each<T>(envoy: &Envoy, count: usize, make: impl AsyncFnOnce() -> Result<T>) -> Result<u64> {
    let before = settled(envoy).await?;
    let made = make().await?;
    let after = settled(envoy).await?;
    drop(made);
    Ok(after.saturating_sub(before) / u64::try_from(count)?)
}

async fn connection(envoy: &Envoy, count: usize) -> Result<u64> {
    each(envoy, count, async || clients::idle(envoy.data_addr(), count).await).await
}

async fn ready(envoy: &Envoy, id: &str, agent: &Agent) -> Result<()> {
    envoy.routes().put_all([(id, agent.port())]).await?;
    // The first request allocates what all later ones share.
    clients::rejected(envoy.data_addr()).await
}

async fn download(envoy: &Envoy, count: usize) -> Result<u64> {
    let (agent, _) = agents::streams::start("sends")?;
    ready(envoy, "sends", &agent).await?;
    each(envoy, count, async || clients::downloads(envoy.data_addr(), "sends", count).await).await
}

async fn upload(envoy: &Envoy, count: usize) -> Result<u64> {
    let agent = agents::raw::start("idle", |stream| async move {
        let () = std::future::pending().await;
        drop(stream);
        Ok(())
    })?;
    ready(envoy, "idle", &agent).await?;
    each(envoy, count, async || clients::uploads(envoy.data_addr(), "idle", count).await).await
}

async fn route(envoy: &Envoy, count: usize) -> Result<u64> {
    let map = |size: usize| {
        // Ids as PAR makes them: UUIDs of 36 bytes. The state is draining, so that no agent has to listen.
        let route = |n: usize| (format!("0f8fad5b-d9cb-469f-a165-{n:012}"), json!({"port": 10_000 + n, "state": "draining"}));
        json!({"routes": (0..size).map(route).collect::<Map<String, Value>>()})
    };
    // Enough connections, each to one of the workers, that both workers have fetched the map.
    let fetch = async || {
        for _ in 0..40 {
            clients::rejected(envoy.data_addr()).await?;
        }
        anyhow::Ok(())
    };
    envoy.routes().put_routes(&map(1)).await?.expect(StatusCode::OK)?;
    fetch().await?;
    each(envoy, count, async || {
        envoy.routes().put_routes(&map(count)).await?.expect(StatusCode::OK)?;
        fetch().await
    })
    .await
}

async fn line(envoy: &Envoy, count: usize) -> Result<u64> {
    let agent = agents::grpc::start("agent")?;
    let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
    envoy.routes().put_all([(id, agent.port())]).await?;
    let mut client = crate::proto::connect(envoy.data_addr()).await?;
    for _ in 0..count {
        client.health(crate::proto::request_to(id, crate::proto::Empty {})?).await?;
    }
    let lines = envoy.logged(count, |line| line["log"] == "access").await?;
    ensure!(
        lines.iter().all(|line| line.get("deployment_id").is_some_and(|found| found == id)),
        "a line of the access log has no deployment_id"
    );
    // Like Envoy, `to_string` writes no spaces; the line break is one byte more.
    let bytes: usize = lines.iter().map(|line| line.to_string().len() + 1).sum();
    Ok(u64::try_from(bytes / count)?)
}
