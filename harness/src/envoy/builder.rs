//! How an Envoy is to be started.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::config::{self, Edit, Place};
use super::process::Envoy;
use super::{binary, modules};
use crate::workspace;

/// The settings of an Envoy about to be started with the shipped configuration.
#[derive(Clone, Debug)]
pub struct EnvoyBuilder {
    pub(super) bind: IpAddr,
    pub(super) data_port: u16,
    pub(super) api_port: u16,
    pub(super) concurrency: u32,
    pub(super) log_level: String,
    pub(super) environment: Vec<(String, String)>,
    pub(super) foreground: bool,
    binary: Option<PathBuf>,
    modules: Option<PathBuf>,
    data_filter: Option<String>,
    retry_filter: bool,
    edits: Vec<Edit>,
}

impl Default for EnvoyBuilder {
    fn default() -> Self {
        Self {
            bind: Ipv4Addr::LOCALHOST.into(),
            data_port: 0,
            api_port: 0,
            // One worker would hide every fault that needs two.
            concurrency: 2,
            log_level: "info".into(),
            environment: Vec::new(),
            foreground: false,
            binary: None,
            modules: None,
            data_filter: None,
            retry_filter: true,
            edits: Vec::new(),
        }
    }
}

impl EnvoyBuilder {
    /// The address both listeners bind; 127.0.0.1 unless told.
    #[must_use]
    pub fn bind(mut self, address: impl Into<IpAddr>) -> Self {
        self.bind = address.into();
        self
    }

    /// The port of the data path; any free one unless told.
    #[must_use]
    pub const fn data_port(mut self, port: u16) -> Self {
        self.data_port = port;
        self
    }

    /// The port of the route API, readiness and stats; any free one unless told.
    #[must_use]
    pub const fn api_port(mut self, port: u16) -> Self {
        self.api_port = port;
        self
    }

    /// How many worker threads; 2 unless told.
    #[must_use]
    pub const fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Envoy's log level (`trace` ... `off`); `info` unless told.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// Sets a variable of Envoy's environment, which is empty otherwise.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Changes the shipped file: `from` must stand there exactly once.
    #[must_use]
    pub fn edit(self, from: &str, to: &str) -> Self {
        self.edit_times(1, from, to)
    }

    /// Changes the shipped file: `from` must stand there exactly `times` times.
    #[must_use]
    pub fn edit_times(mut self, times: usize, from: &str, to: &str) -> Self {
        self.edits.push(Edit { from: from.to_owned(), to: to.to_owned(), times });
        self
    }

    /// Puts `filter`, an item of `http_filters` as YAML on one line, in the place of the router's; none where it is empty. There is
    /// no filter before retries then.
    #[must_use]
    pub fn data_filter(mut self, filter: &str) -> Self {
        self.data_filter = Some(filter.to_owned());
        self.without_retry_filter()
    }

    /// Leaves out the filter that is asked before a retry.
    #[must_use]
    pub fn without_retry_filter(mut self) -> Self {
        self.retry_filter = false;
        self
    }

    /// The Envoy binary; `$ENVOY_BIN` or the pinned release unless told. See [`binary::release`] for another release.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// The directory of `router.wasm` and `admin.wasm`; what `cargo xtask build` wrote unless told.
    #[must_use]
    pub fn modules(mut self, directory: impl Into<PathBuf>) -> Self {
        self.modules = Some(directory.into());
        self
    }

    /// Lets Envoy write its log to this program's standard error and gives it this program's environment.
    #[must_use]
    pub const fn foreground(mut self) -> Self {
        self.foreground = true;
        self
    }

    /// Starts Envoy and waits until it is ready to serve on every worker.
    ///
    /// # Errors
    /// Where the modules are missing or older than the filter's source, Envoy cannot be had, a text to edit is not in the
    /// file, or Envoy does not get ready; the last with Envoy's log.
    pub async fn start(self) -> Result<Envoy> {
        Envoy::start(self).await
    }

    /// The binary to run.
    pub(super) fn resolve_binary(&self) -> Result<PathBuf> {
        self.binary.clone().map_or_else(binary::locate, Ok)
    }

    /// The configuration to run, with Envoy's admin interface on `admin_socket`.
    pub(super) fn configuration(&self, admin_socket: &std::path::Path) -> Result<String> {
        let modules = self.modules.clone().map_or_else(modules::locate, Ok)?;
        let modules = std::path::absolute(modules)?;
        let path = workspace::root().join("envoy/envoy.yaml");
        let shipped = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let Self { bind, data_port, api_port, .. } = *self;
        let place = Place { bind, data_port, api_port, modules: &modules, admin_socket };
        config::render(&shipped, &self.edits, self.data_filter.as_deref(), self.retry_filter, &place)
    }
}
