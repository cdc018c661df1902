//! How much memory and processor time an Envoy uses, and how many files it has open.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Envoy;

impl Envoy {
    /// The resident memory of the process in bytes (`VmRSS` of Linux).
    ///
    /// # Errors
    /// If the system is not Linux, or Envoy has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}, which only Linux has"))?;
        kibibytes(&status).map(|kibibytes| kibibytes * 1024).with_context(|| format!("{path} has no VmRSS"))
    }

    /// How many files the process has open, including sockets.
    ///
    /// # Errors
    /// If the system is not Linux, or Envoy has ended.
    pub fn open_files(&self) -> Result<u64> {
        let path = format!("/proc/{}/fd", self.pid());
        let files = std::fs::read_dir(&path).with_context(|| format!("reading {path}, which only Linux has"))?;
        Ok(u64::try_from(files.count())?)
    }

    /// The processor time that the process has used, in steps of 10 ms.
    ///
    /// # Errors
    /// If the system is not Linux, or Envoy has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("reading {path}, which only Linux has"))?;
        processor_time(&stat).with_context(|| format!("{path} has no times"))
    }

    /// Whether a thread of the process runs, or waits for a processor.
    ///
    /// # Errors
    /// If the system is not Linux, or Envoy has ended.
    pub fn is_runnable(&self) -> Result<bool> {
        let path = format!("/proc/{}/task", self.pid());
        let threads = std::fs::read_dir(&path).with_context(|| format!("reading {path}, which only Linux has"))?;
        // A thread that has just ended has no file any more.
        let states = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
        Ok(states.into_iter().any(|stat| fields(&stat).next() == Some("R")))
    }
}

/// The fields of a line `1234 (name) S ...` after the name, which may contain anything.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_whitespace()
}

/// Parses user and system time, fields 14 and 15 of the line, in hundredths of a second.
fn processor_time(stat: &str) -> Option<Duration> {
    let mut times = fields(stat).skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some(Duration::from_millis((user + system) * 10))
}

/// Parses the line `VmRSS:   1234 kB`.
fn kibibytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        assert_eq!(kibibytes("Name:\tenvoy\nVmRSS:\t   64120 kB\nThreads:\t9\n"), Some(64120));
        assert_eq!(kibibytes("Name:\tenvoy\n"), None);
        let stat = "71 (a) R (b) S 1 71 71 0 -1 4194560 9 0 0 0 123 45 7 8 20 0 9 0 100\n";
        assert_eq!((fields(stat).next(), processor_time(stat)), (Some("S"), Some(Duration::from_millis(1680))));
        assert_eq!(processor_time("71 (a) S 1\n"), None);
    }
}
