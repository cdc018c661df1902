//! A running Envoy: where it listens, what it counts and logs, and its end.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::launch::{access_log_file, admin_socket, log_file, spawn};
use super::{EnvoyBuilder, Stats};
use crate::routes::RouteApi;
use crate::wait;

/// How long Envoy may take to get ready: it compiles the modules for every worker, on what may be a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long Envoy may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(20);
/// How long a line of the access log may take to be written.
const LOGGED: Duration = Duration::from_secs(10);
/// The longest path that a Unix socket can have on every system, in bytes.
const SOCKET_PATH_LIMIT: usize = 103;
/// How many of the log's last lines are shown when something fails.
const LOG_SHOWN: usize = 400;

/// An Envoy process with the shipped configuration. Dropping it kills it; in a test that fails its log is printed first.
#[derive(Debug)]
pub struct Envoy {
    settings: EnvoyBuilder,
    binary: PathBuf,
    directory: TempDir,
    admin: reqwest::Client,
    child: Child,
    data: SocketAddr,
    api: SocketAddr,
}

impl Envoy {
    /// The settings of an Envoy to start: free ports on 127.0.0.1, two workers, the pinned release.
    #[must_use]
    pub fn builder() -> EnvoyBuilder {
        EnvoyBuilder::default()
    }

    pub(super) async fn start(settings: EnvoyBuilder) -> Result<Self> {
        let binary = settings.resolve_binary()?;
        let directory = tempfile::Builder::new().prefix("pixell-").tempdir()?;
        let socket = admin_socket(directory.path());
        if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
            bail!("{} is too long for a Unix socket: set TMPDIR to a shorter path", socket.display());
        }
        let admin = reqwest::Client::builder().no_proxy().unix_socket(socket).timeout(Duration::from_secs(10)).build()?;
        let child = spawn(&settings, &binary, directory.path())?;
        // Not known before Envoy tells; `ready` fills them in.
        let unknown = SocketAddr::from((settings.bind, 0));
        let mut envoy = Self { settings, binary, directory, admin, child, data: unknown, api: unknown };
        envoy.ready().await?;
        Ok(envoy)
    }

    /// Where callers reach agents.
    #[must_use]
    pub const fn data_addr(&self) -> SocketAddr {
        self.data
    }

    /// Where the route API, readiness and stats answer.
    #[must_use]
    pub const fn api_addr(&self) -> SocketAddr {
        self.api
    }

    /// The data path's base URL, without a slash at the end.
    #[must_use]
    pub fn data_url(&self) -> String {
        format!("http://{}", self.data)
    }

    /// The base URL of the route API, readiness and stats, without a slash at the end.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// A client of the route API.
    #[must_use]
    pub fn routes(&self) -> RouteApi {
        RouteApi::new(&self.api_url())
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The answer's text to `GET path` of Envoy's own admin interface.
    ///
    /// # Errors
    /// Where it does not answer, or not with 200.
    pub async fn admin(&self, path: &str) -> Result<String> {
        self.ask(reqwest::Method::GET, path).await
    }

    /// The answer's text to `POST path` of Envoy's own admin interface, as its commands that change something want it.
    ///
    /// # Errors
    /// Where it does not answer, or not with 200.
    pub async fn admin_post(&self, path: &str) -> Result<String> {
        self.ask(reqwest::Method::POST, path).await
    }

    async fn ask(&self, method: reqwest::Method, path: &str) -> Result<String> {
        let answer = self.admin.request(method, format!("http://envoy{path}")).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if status != 200 {
            bail!("Envoy's admin interface answers {status} to {path}: {}", text.trim());
        }
        Ok(text)
    }

    /// All counters and gauges as they are now.
    ///
    /// # Errors
    /// Where the admin interface does not answer.
    pub async fn stats(&self) -> Result<Stats> {
        Ok(Stats::parse(&self.admin("/stats").await?))
    }

    /// One counter or gauge as it is now; `None` where Envoy has none of that name.
    ///
    /// # Errors
    /// Where the admin interface does not answer.
    pub async fn stat(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.stats().await?.get(name))
    }

    /// What Envoy has logged since it was first started (nothing in the foreground).
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(log_file(self.directory.path())).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The access log as it stands by now: one JSON document for each line on Envoy's standard output, which carries nothing else.
    ///
    /// # Errors
    /// Where a line is no JSON; the error shows it.
    pub fn access_log(&self) -> Result<Vec<serde_json::Value>> {
        let bytes = fs::read(access_log_file(self.directory.path())).unwrap_or_default();
        // Envoy may be in the middle of a line.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).with_context(|| format!("no JSON: {}", line.escape_ascii()))).collect()
    }

    /// The lines of the access log that `wanted` likes, once there are `count` of them.
    ///
    /// # Errors
    /// Where a line is no JSON, or there are not as many of them after some seconds; the error shows what there is.
    pub async fn logged(&self, count: usize, wanted: impl Fn(&serde_json::Value) -> bool) -> Result<Vec<serde_json::Value>> {
        let found = || -> Result<Vec<_>> { Ok(self.access_log()?.into_iter().filter(|line| wanted(line)).collect()) };
        let enough = || {
            let found = found();
            async move { Ok(Some(found?).filter(|lines| lines.len() >= count)) }
        };
        wait::until("the access log", LOGGED, enough).await.with_context(|| format!("it has {:?}", found()))
    }

    /// Asks Envoy to end, waits until it has, and tells how it ended.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub async fn sigterm(&mut self) -> Result<ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM).context("SIGTERM to Envoy")?;
        self.exit(STOP).await
    }

    /// Ends Envoy at once, as a crash does.
    ///
    /// # Errors
    /// Where the process cannot be ended.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Waits until Envoy ends, however long that takes.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until Envoy ends by itself.
    ///
    /// # Errors
    /// Where it still runs after `limit`.
    pub async fn exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait::until("Envoy to end", limit, || {
            let state = child.try_wait();
            async { Ok(state?) }
        })
        .await
    }

    /// Kills Envoy and starts it anew with the same settings on the same ports; its memory, and so the route map, is lost.
    ///
    /// # Errors
    /// As [`EnvoyBuilder::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.settings.data_port = self.data.port();
        self.settings.api_port = self.api.port();
        self.child = spawn(&self.settings, &self.binary, self.directory.path())?;
        self.ready().await
    }

    /// Waits until Envoy is live and every worker listens, and learns the ports.
    async fn ready(&mut self) -> Result<()> {
        let deadline = std::time::Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("Envoy ended at its start ({status}):\n{}", self.log_end());
            }
            // Until Envoy has opened its admin socket every answer is an error.
            if self.serves().await.unwrap_or(false) {
                break;
            }
            if std::time::Instant::now() >= deadline {
                bail!("Envoy was not ready after {} s:\n{}", START.as_secs(), self.log_end());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.data = self.listener("agents").await?;
        self.api = self.listener("admin").await?;
        Ok(())
    }

    async fn serves(&self) -> Result<bool> {
        // LIVE comes a moment before the workers have taken up their listeners.
        let live = self.admin("/ready").await?.trim() == "LIVE";
        Ok(live && self.stat("listener_manager.workers_started").await? == Some(1))
    }

    /// The address that the listener called `name` has bound.
    async fn listener(&self, name: &str) -> Result<SocketAddr> {
        let answer = self.admin("/listeners?format=json").await?;
        let listeners: serde_json::Value = serde_json::from_str(&answer)?;
        let all = listeners.get("listener_statuses").and_then(serde_json::Value::as_array);
        let bound = all.into_iter().flatten().find_map(|listener| {
            let address = listener.pointer("/local_address/socket_address")?;
            let port = u16::try_from(address.get("port_value")?.as_u64()?).ok()?;
            (listener.get("name")? == name).then_some(port)
        });
        let port = bound.with_context(|| format!("Envoy has no listener {name:?}: {answer}"))?;
        // Bound to all addresses, it is reached at the loopback one.
        let address = self.settings.bind;
        let address = if address.is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { address };
        Ok(SocketAddr::new(address, port))
    }

    /// The last lines of the log.
    fn log_end(&self) -> String {
        if self.settings.foreground {
            return "(its log is above)".into();
        }
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let skipped = lines.len().saturating_sub(LOG_SHOWN);
        lines.into_iter().skip(skipped).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // A process that has ended already is no fault here.
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("--- Envoy's log\n{}\n--- end of Envoy's log", self.log_end());
        }
    }
}
