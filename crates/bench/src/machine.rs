//! Describes the machine of a run, as far as it explains the figures.

use std::fs;

use anyhow::Result;

use crate::results::Machine;

/// Describes this machine.
///
/// # Errors
/// If the workspace's manifest does not name the release of Envoy.
pub fn describe() -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let kib: f64 = memory.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
    let load = read("/proc/loadavg");
    Ok(Machine {
        processor: value(&read("/proc/cpuinfo"), "model name"),
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory: (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
        kernel: format!("{} {}", read("/proc/sys/kernel/ostype").trim(), read("/proc/sys/kernel/osrelease").trim()),
        envoy: workspace::envoy_version()?,
        load_average: load.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0),
    })
}
