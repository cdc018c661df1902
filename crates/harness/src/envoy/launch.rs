//! Envoy's command, and its files in one directory: configuration, sockets, log and access log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::EnvoyBuilder;

pub(super) fn admin_socket(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}

pub(super) fn launcher_socket(directory: &Path) -> PathBuf {
    directory.join("launcher.sock")
}

/// Where a file is that the image has at `path` beside the configuration.
pub(super) fn beside(directory: &Path, path: &str) -> PathBuf {
    directory.join(path.rsplit('/').next().unwrap_or_default())
}

pub(super) fn access_log_file(directory: &Path) -> PathBuf {
    directory.join("access.log")
}

pub(super) fn log_file(directory: &Path) -> PathBuf {
    directory.join("envoy.log")
}

/// A command that runs `binary`. On Linux the system kills it when the thread that started it ends, because a test run that is killed
/// cannot stop its Envoys. (`setpriv` is replaced by `binary`, which keeps the process id. Without `setpriv` this takes unsafe code.)
pub(crate) fn mortal(binary: &Path) -> Command {
    let wrapper = Path::new("/usr/bin/setpriv");
    if !wrapper.exists() {
        return Command::new(binary);
    }
    let mut command = Command::new(wrapper);
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
    command
}

/// A command that runs `binary` under `supervisor`. If one of them ends, so does the other.
fn supervised(supervisor: &Path, binary: &Path, directory: &Path) -> Command {
    let inner = mortal(binary);
    let mut command = mortal(supervisor);
    command.arg(admin_socket(directory)).arg(launcher_socket(directory)).arg(inner.get_program()).args(inner.get_args());
    command
}

/// The file with the access log's rate: the shipped one, or one with another rate if that is set.
fn log_rate(settings: &EnvoyBuilder, directory: &Path) -> Result<PathBuf> {
    let shipped = workspace::root().join("envoy/log-rate.yaml");
    let Some(lines) = settings.log_rate else { return Ok(shipped) };
    let changed = directory.join("log-rate.yaml");
    let text = fs::read_to_string(&shipped)?.replace("max_tokens: 1000\n", &format!("max_tokens: {lines}\n"));
    fs::write(&changed, text)?;
    Ok(changed)
}

pub(super) fn spawn(settings: &EnvoyBuilder, binary: &Path, directory: &Path) -> Result<Child> {
    let configuration = directory.join("envoy.yaml");
    let log_rate = log_rate(settings, directory)?;
    fs::write(&configuration, settings.configuration(directory, &log_rate)?)?;
    for (path, text) in &settings.files {
        fs::write(beside(directory, path), text)?;
    }
    let mut command = match &settings.supervisor {
        None => mortal(binary),
        Some(supervisor) => supervised(supervisor, binary, directory),
    };
    command
        .arg("--config-path")
        .arg(&configuration)
        .args(["--concurrency", &settings.concurrency.to_string(), "--log-level", &settings.log_level])
        // By default Envoy writes the access log every 10 s, which is too long for a test that waits for a line.
        .args(["--file-flush-interval-msec", "100"])
        // Hot restart would share memory with other Envoys on this machine.
        .arg("--disable-hot-restart")
        .stdin(Stdio::null());
    let logs = settings.logs.as_deref().unwrap_or(directory);
    let append = |path| File::options().create(true).append(true).open(path);
    if settings.supervisor.is_some() {
        command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    } else if !settings.foreground {
        // A variable of the developer's shell must not decide a test.
        command.env_clear().stdout(append(access_log_file(logs))?);
    }
    if settings.supervisor.is_none() && (!settings.foreground || settings.logs.is_some()) {
        command.stderr(append(log_file(logs))?);
    }
    command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
    command.spawn().with_context(|| format!("starting {}", binary.display()))
}
