//! How much memory an Envoy uses and how many files it has open.

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
    }
}
