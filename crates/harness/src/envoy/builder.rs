//! The settings of an Envoy to start.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use launcher::configuration;
use launcher::filter::{Filter, from_environment};
use launcher::settings::Settings;

use super::config::{self, DataPath, Edit, Place};
use super::process::Envoy;
use workspace::envoy as binary;

use super::port_taken::PortTaken;
use super::{launch, modules};
use crate::ports;

/// How often Envoy is started if other programs take the ports that the system gives to it.
const STARTS: u32 = 5;

/// The settings of an Envoy to start with the shipped configuration.
#[derive(Clone, Debug)]
pub struct EnvoyBuilder {
    pub(super) bind: IpAddr,
    pub(super) data_port: u16,
    pub(super) api_port: u16,
    pub(super) peer_port: u16,
    pub(super) concurrency: u32,
    pub(super) log_level: String,
    pub(super) environment: Vec<(String, String)>,
    pub(super) foreground: bool,
    pub(super) supervisor: Option<PathBuf>,
    pub(super) logs: Option<PathBuf>,
    /// Whether the data path has TLS.
    pub(super) tls: bool,
    filter: Option<Filter>,
    pub(super) log_rate: Option<u32>,
    binary: Option<PathBuf>,
    modules: Option<PathBuf>,
    data_filter: Option<String>,
    retry_filter: bool,
    edits: Vec<Edit>,
    /// The files beside the configuration, by their paths in the image.
    pub(super) files: Vec<(&'static str, String)>,
}

impl Default for EnvoyBuilder {
    fn default() -> Self {
        Self {
            bind: Ipv4Addr::LOCALHOST.into(),
            data_port: 0,
            api_port: 0,
            peer_port: ports::PEERS,
            // One worker would hide every error that needs two.
            concurrency: 2,
            log_level: "info".into(),
            environment: Vec::new(),
            foreground: false,
            supervisor: None,
            logs: None,
            tls: false,
            filter: None,
            log_rate: None,
            binary: None,
            modules: None,
            data_filter: None,
            retry_filter: true,
            edits: Vec::new(),
            files: Vec::new(),
        }
    }
}

impl EnvoyBuilder {
    /// The address that all listeners bind; 127.0.0.1 by default.
    #[must_use]
    pub fn bind(mut self, address: impl Into<IpAddr>) -> Self {
        self.bind = address.into();
        self
    }

    /// The port of the data path; any free port by default.
    #[must_use]
    pub const fn data_port(mut self, port: u16) -> Self {
        self.data_port = port;
        self
    }

    /// The port of the route API, readiness and stats; any free port by default.
    #[must_use]
    pub const fn api_port(mut self, port: u16) -> Self {
        self.api_port = port;
        self
    }

    /// The port for other tasks, if the settings have a fleet; 50050 by default. It must be the same for all of them.
    #[must_use]
    pub const fn peer_port(mut self, port: u16) -> Self {
        self.peer_port = port;
        self
    }

    /// The number of worker threads; 2 by default.
    #[must_use]
    pub const fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Envoy's log level (`trace` ... `off`); `info` by default.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// Sets a variable of Envoy's environment, which is otherwise empty.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces `from` by `to` in the shipped file, which must hold `from` exactly once.
    #[must_use]
    pub fn edit(self, from: &str, to: &str) -> Self {
        self.edit_times(1, from, to)
    }

    /// Replaces `from` by `to` in the shipped file, which must hold `from` exactly `times` times.
    #[must_use]
    pub fn edit_times(mut self, times: usize, from: &str, to: &str) -> Self {
        self.edits.push(Edit { from: from.to_owned(), to: to.to_owned(), times });
        self
    }

    /// Applies the image's settings as its entry point does: log level, workers, and changes of the shipped file. Only the form of the
    /// filter is not applied.
    #[must_use]
    pub fn settings(mut self, settings: &Settings) -> Self {
        self.log_level.clone_from(&settings.log_level);
        self.concurrency = settings.concurrency.unwrap_or(self.concurrency);
        self.files = configuration::files(settings);
        self.tls = settings.tls.is_some();
        configuration::edits(settings).into_iter().fold(self, |builder, edit| builder.edit(edit.place, &edit.text))
    }

    /// Replaces the router's item of `http_filters` by `filter`, an item as YAML on one line, or removes it if `filter` is empty. The
    /// retry filter is removed, too.
    #[must_use]
    pub fn data_filter(mut self, filter: &str) -> Self {
        self.data_filter = Some(filter.to_owned());
        self.without_retry_filter()
    }

    /// Removes the filter that judges a request before a retry.
    #[must_use]
    pub fn without_retry_filter(mut self) -> Self {
        self.retry_filter = false;
        self
    }

    /// The Envoy binary; by default `$ENVOY_BIN` or the pinned release. See [`binary::release`] for another release.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// The form of the filter; by default `$PIXELL_FILTER`, or WebAssembly if that is not set.
    #[must_use]
    pub const fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// The directory of the modules; by default what [`modules::locate`] returns.
    #[must_use]
    pub fn modules(mut self, directory: impl Into<PathBuf>) -> Self {
        self.modules = Some(directory.into());
        self
    }

    /// The directory in which Envoy's log and the access log are kept; it must exist. Without it, both are removed when Envoy ends.
    #[must_use]
    pub fn logs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.logs = Some(directory.into());
        self
    }

    /// Lets Envoy write the access log to this program's standard output, and its own log to standard error unless
    /// [`logs`](Self::logs) are kept. Envoy also inherits this program's environment.
    #[must_use]
    pub const fn foreground(mut self) -> Self {
        self.foreground = true;
        self
    }

    /// How many lines about failed requests the access log may have at once; as shipped by default.
    #[must_use]
    pub const fn log_rate(mut self, lines: u32) -> Self {
        self.log_rate = Some(lines);
        self
    }

    /// Starts Envoy under the program `supervisor`. Its arguments are the path of the admin socket, the path of the entry point's socket
    /// and then Envoy's command. Nobody reads its output.
    #[must_use]
    pub fn supervised(mut self, supervisor: impl Into<PathBuf>) -> Self {
        self.supervisor = Some(supervisor.into());
        self
    }

    /// Starts Envoy and waits until it is ready to serve on every worker.
    ///
    /// # Errors
    /// If the modules are missing or older than the filter's source, Envoy's binary is not available, the shipped file does not hold a
    /// text to edit, or Envoy does not get ready. In the last case the error shows Envoy's log.
    pub async fn start(self) -> Result<Envoy> {
        let (any_port, log) = (self.data_port == 0 && self.api_port == 0, self.logs.as_deref().map(launch::log_file));
        let mut starts = 1;
        loop {
            let started = Envoy::start(self.clone()).await;
            let again = starts < STARTS && any_port && started.as_ref().is_err_and(anyhow::Error::is::<PortTaken>);
            if !again {
                return started;
            }
            starts += 1;
            // What this start has logged would be taken for the next one's.
            if let Some(log) = &log {
                std::fs::remove_file(log)?;
            }
        }
    }

    /// The form of the filter to run.
    pub(super) fn resolve_filter(&self) -> Result<Filter> {
        self.filter.map_or_else(default_filter, Ok)
    }

    /// The binary to run.
    pub(super) fn resolve_binary(&self) -> Result<PathBuf> {
        self.binary.clone().map_or_else(binary::locate, Ok)
    }

    /// The configuration to run, with its sockets and files in this directory, and this file with the access log's rate.
    pub(super) fn configuration(&self, directory: &Path, log_rate: &Path) -> Result<String> {
        let (admin_socket, launcher_socket) = (&launch::admin_socket(directory), &launch::launcher_socket(directory));
        let modules = self.modules.clone().map_or_else(modules::locate, Ok)?;
        let modules = std::path::absolute(modules)?;
        let path = workspace::root().join("envoy/envoy.yaml");
        let shipped = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let Self { bind, data_port, api_port, peer_port, .. } = *self;
        let place = Place { bind, data_port, api_port, peer_port, modules: &modules, admin_socket, launcher_socket, log_rate };
        let (filter, retry) = (self.data_filter.as_deref(), self.retry_filter);
        let files = self.files.iter().map(|(path, _)| config::move_file(path, &launch::beside(directory, path), &self.edits));
        let edits: Vec<_> = self.edits.iter().cloned().chain(files).collect();
        config::render(&shipped, &edits, DataPath { form: self.resolve_filter()?, filter, retry }, &place)
    }
}

impl Envoy {
    /// Starts the Envoy that `settings` returns for a free port, with that port for its data path, and with another port if another program
    /// takes that one. For settings that contain the port.
    ///
    /// # Errors
    /// As [`EnvoyBuilder::start`].
    pub async fn on_free_port(settings: impl Fn(u16) -> EnvoyBuilder) -> Result<Self> {
        let mut starts = 1;
        loop {
            let port = ports::any_free()?;
            let started = settings(port).data_port(port).start().await;
            if starts == STARTS || !started.as_ref().is_err_and(anyhow::Error::is::<PortTaken>) {
                return started;
            }
            starts += 1;
        }
    }
}

/// Whether this test run uses the native filter.
///
/// # Panics
/// If `$PIXELL_FILTER` names no form of the filter, because nothing can be tested then.
#[must_use]
#[expect(clippy::expect_used, reason = "only for tests")]
pub fn is_native() -> bool {
    default_filter().expect("a form of the filter") == Filter::Native
}

/// The form of the filter that `$PIXELL_FILTER` names; WebAssembly if it is not set.
///
/// # Errors
/// If it names no form.
pub fn default_filter() -> Result<Filter> {
    from_environment().map_err(|error| anyhow!(error))
}
