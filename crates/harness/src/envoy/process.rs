//! A running Envoy: its addresses, statistics and logs, and how to end it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use launcher::filter::Filter;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::launch::{access_log_file, admin_socket, launcher_socket, log_file, spawn};
use super::port_taken::PortTaken;
use super::{EnvoyBuilder, Stats};
use crate::routes::RouteApi;
use crate::wait;

/// How long Envoy may take to get ready: it compiles the modules for every worker, and the machine may be busy.
const START: Duration = Duration::from_secs(60);
/// How long Envoy may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(20);
/// How long a line of the access log may take to be written.
const LOGGED: Duration = Duration::from_secs(10);
/// The longest path of a Unix socket that every system allows, in bytes.
const SOCKET_PATH_LIMIT: usize = 103;
/// How many of the last lines of the log are shown if something fails.
const LOG_SHOWN: usize = 400;

/// An Envoy process with the shipped configuration. Dropping it kills the process; if a test is failing, its log is printed.
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
        if settings.resolve_filter()? == Filter::Native {
            Filter::Native.check_envoy(&workspace::envoy::version_of(&binary)?).map_err(|error| anyhow!(error))?;
        }
        let directory = tempfile::Builder::new().prefix("pixell-").tempdir()?;
        let socket = admin_socket(directory.path());
        if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
            bail!("{} is too long for a Unix socket: set TMPDIR to a shorter path", socket.display());
        }
        let admin = reqwest::Client::builder().no_proxy().unix_socket(socket).timeout(Duration::from_secs(10)).build()?;
        let child = spawn(&settings, &binary, directory.path())?;
        // Only Envoy knows its ports; `ready` asks for them.
        let unknown = SocketAddr::from((settings.bind, 0));
        let mut envoy = Self { settings, binary, directory, admin, child, data: unknown, api: unknown };
        envoy.ready().await?;
        Ok(envoy)
    }

    /// The address where clients reach agents.
    #[must_use]
    pub const fn data_addr(&self) -> SocketAddr {
        self.data
    }

    /// The address of the route API, readiness and stats.
    #[must_use]
    pub const fn api_addr(&self) -> SocketAddr {
        self.api
    }

    /// The data path's base URL, without a slash at the end.
    #[must_use]
    pub fn data_url(&self) -> String {
        let scheme = if self.settings.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.data)
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

    /// Sends `GET path` to Envoy's own admin interface and returns the body of the response.
    ///
    /// # Errors
    /// If it does not respond, or not with 200.
    pub async fn admin(&self, path: &str) -> Result<String> {
        self.request(reqwest::Method::GET, path).await
    }

    /// Sends `POST path` to Envoy's own admin interface, as commands that change something need it, and returns the body of the
    /// response.
    ///
    /// # Errors
    /// If it does not respond, or not with 200.
    pub async fn admin_post(&self, path: &str) -> Result<String> {
        self.request(reqwest::Method::POST, path).await
    }

    async fn request(&self, method: reqwest::Method, path: &str) -> Result<String> {
        let response = self.admin.request(method, format!("http://envoy{path}")).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if status != 200 {
            bail!("Envoy's admin interface responded with {status} to {path}: {}", text.trim());
        }
        Ok(text)
    }

    /// Reports to Envoy that so many lines of its output were dropped, as the image's entry point does.
    ///
    /// # Errors
    /// If Envoy does not respond with 200.
    pub async fn tell_dropped_lines(&self, stdout: u64, stderr: u64) -> Result<()> {
        let socket = launcher_socket(self.directory.path());
        let entry_point = reqwest::Client::builder().no_proxy().unix_socket(socket).build()?;
        let request = entry_point.post("http://envoy/lost").header("x-stdout", stdout).header("x-stderr", stderr);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// All counters and gauges as they are now.
    ///
    /// # Errors
    /// If the admin interface does not respond.
    pub async fn stats(&self) -> Result<Stats> {
        Ok(Stats::parse(&self.admin("/stats").await?))
    }

    /// One counter or gauge as it is now; `None` if Envoy has none with that name.
    ///
    /// # Errors
    /// If the admin interface does not respond.
    pub async fn stat(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.stats().await?.get(name))
    }

    /// The directory of Envoy's log and the access log.
    fn logs(&self) -> &Path {
        self.settings.logs.as_deref().unwrap_or(self.directory.path())
    }

    /// The file of Envoy's own log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        log_file(self.logs())
    }

    /// The file of the access log.
    #[must_use]
    pub fn access_log_file(&self) -> PathBuf {
        access_log_file(self.logs())
    }

    /// Envoy's log since its first start; empty if Envoy logs to this program's standard error.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The access log so far: Envoy's standard output, which has one JSON document in each line and nothing else.
    ///
    /// # Errors
    /// If a line is not JSON; the error shows it.
    pub fn access_log(&self) -> Result<Vec<serde_json::Value>> {
        let bytes = fs::read(self.access_log_file()).unwrap_or_default();
        // Envoy may not have written the last line completely.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).with_context(|| format!("not JSON: {}", line.escape_ascii()))).collect()
    }

    /// Waits until the access log has at least `count` lines for which `wanted` is true, and returns them.
    ///
    /// # Errors
    /// If a line is not JSON, or there are not enough of them after some seconds; the error shows those that there are.
    pub async fn logged(&self, count: usize, wanted: impl Fn(&serde_json::Value) -> bool) -> Result<Vec<serde_json::Value>> {
        let found = || -> Result<Vec<_>> { Ok(self.access_log()?.into_iter().filter(|line| wanted(line)).collect()) };
        let enough = || {
            let found = found();
            async move { Ok(Some(found?).filter(|lines| lines.len() >= count)) }
        };
        wait::until("the access log", LOGGED, enough).await.with_context(|| format!("the access log has {:?}", found()))
    }

    /// Sends SIGTERM to Envoy, waits until it has ended, and returns its exit status.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn sigterm(&mut self) -> Result<ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM).context("SIGTERM to Envoy")?;
        self.exit(STOP).await
    }

    /// Kills Envoy, so that it ends at once, as in a crash.
    ///
    /// # Errors
    /// If the process cannot be killed.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Waits until Envoy ends, however long that takes, and returns its exit status.
    ///
    /// # Errors
    /// If the system does not return the status.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until Envoy ends, but at most for `limit`, and returns its exit status.
    ///
    /// # Errors
    /// If it still runs after `limit`.
    pub async fn exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait::until("Envoy to end", limit, || {
            let state = child.try_wait();
            async { Ok(state?) }
        })
        .await
    }

    /// Kills Envoy and restarts it with the same settings on the same ports. Its memory, and so the route map, is lost.
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

    /// Waits until Envoy is live and every worker listens, then asks for the ports.
    async fn ready(&mut self) -> Result<()> {
        let deadline = std::time::Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let ended = format!("Envoy ended at its start ({status}):\n{}", self.log_end());
                return Err(if PortTaken::ended(&self.log()) { Error::new(PortTaken).context(ended) } else { anyhow!(ended) });
            }
            PortTaken::check(&self.log())?;
            // Until Envoy has opened its admin socket, this is an error.
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
        // Envoy is LIVE a moment before its workers listen.
        let live = self.admin("/ready").await?.trim() == "LIVE";
        Ok(live && self.stat("listener_manager.workers_started").await? == Some(1))
    }

    /// The address that the listener `name` has bound.
    async fn listener(&self, name: &str) -> Result<SocketAddr> {
        let text = self.admin("/listeners?format=json").await?;
        let listeners: serde_json::Value = serde_json::from_str(&text)?;
        let all = listeners.get("listener_statuses").and_then(serde_json::Value::as_array);
        let bound = all.into_iter().flatten().find_map(|listener| {
            let address = listener.pointer("/local_address/socket_address")?;
            let port = u16::try_from(address.get("port_value")?.as_u64()?).ok()?;
            (listener.get("name")? == name).then_some(port)
        });
        let port = bound.with_context(|| format!("Envoy has no listener {name:?}: {text}"))?;
        // A listener on all addresses is reached at the loopback address.
        let address = self.settings.bind;
        let address = if address.is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { address };
        Ok(SocketAddr::new(address, port))
    }

    /// The last lines of the log.
    fn log_end(&self) -> String {
        if self.settings.foreground && self.settings.logs.is_none() {
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
        // The process may have ended already.
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("--- Envoy's log\n{}\n--- end of Envoy's log", self.log_end());
        }
    }
}
