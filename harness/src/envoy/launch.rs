//! Envoy's command, and the files it is given: configuration, admin socket, log and access log in one directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::EnvoyBuilder;

pub(super) fn admin_socket(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}

pub(super) fn access_log_file(directory: &Path) -> PathBuf {
    directory.join("access.log")
}

pub(super) fn log_file(directory: &Path) -> PathBuf {
    directory.join("envoy.log")
}

/// A command that runs `binary` and, on Linux, is killed by the system when the thread that started it ends: a test run that is
/// killed itself cannot stop its Envoys any more. (`setpriv` becomes `binary`, with its process id; to do without it takes unsafe code.)
fn mortal(binary: &Path) -> Command {
    let wrapper = Path::new("/usr/bin/setpriv");
    if !wrapper.exists() {
        return Command::new(binary);
    }
    let mut command = Command::new(wrapper);
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
    command
}

pub(super) fn spawn(settings: &EnvoyBuilder, binary: &Path, directory: &Path) -> Result<Child> {
    let configuration = directory.join("envoy.yaml");
    fs::write(&configuration, settings.configuration(&admin_socket(directory))?)?;
    let mut command = mortal(binary);
    command
        .arg("--config-path")
        .arg(&configuration)
        .args(["--concurrency", &settings.concurrency.to_string(), "--log-level", &settings.log_level])
        // A test that looks for an access log line does not want to wait for the 10 s that Envoy gathers them otherwise.
        .args(["--file-flush-interval-msec", "100"])
        // Each Envoy stands alone: no memory shared with another one on this machine.
        .arg("--disable-hot-restart")
        .stdin(Stdio::null());
    if !settings.foreground {
        // A variable of the developer's shell must not decide a test.
        let append = |path| File::options().create(true).append(true).open(path);
        command.env_clear().stdout(append(access_log_file(directory))?).stderr(append(log_file(directory))?);
    }
    command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
    command.spawn().with_context(|| format!("starting {}", binary.display()))
}
