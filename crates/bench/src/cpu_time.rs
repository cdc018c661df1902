//! CPU time of processes and threads, as the kernel counts it (`/proc/<pid>/task/*/schedstat`, proc_pid_schedstat(5)).

use std::fs;

use anyhow::{Context, Result};

/// Nanoseconds that all threads of the processes `pids` have run.
///
/// # Errors
/// If one of them has ended, or the kernel does not count this (`CONFIG_SCHED_INFO`).
pub fn of(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        for thread in threads(*pid)? {
            sum += of_thread(*pid, thread)?;
        }
    }
    Ok(sum)
}

/// Nanoseconds that one thread has run.
///
/// # Errors
/// As [`of`].
pub fn of_thread(pid: u32, thread: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/task/{thread}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let running = text.split_whitespace().next().context("schedstat is empty")?;
    running.parse().with_context(|| format!("{path}: {text:?}"))
}

/// The ids of the threads of the process `pid`.
///
/// # Errors
/// If it has ended.
pub fn threads(pid: u32) -> Result<Vec<u32>> {
    let directory = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&directory).with_context(|| format!("reading {directory}"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?)).collect()
}

/// The threads of the process `pid` whose name begins with `prefix`, in order of their names.
///
/// # Errors
/// If it has ended.
pub fn threads_named(pid: u32, prefix: &str) -> Result<Vec<u32>> {
    let mut named = Vec::new();
    for thread in threads(pid)? {
        // A thread that has ended since is left out.
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm")) else { continue };
        if name.starts_with(prefix) {
            named.push((name, thread));
        }
    }
    named.sort();
    Ok(named.into_iter().map(|(_, thread)| thread).collect())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn work_is_counted_and_sleep_is_not() {
        // Only this thread is measured, because other tests run in this process, too.
        let this = fs::read_link("/proc/thread-self").unwrap();
        let thread = this.file_name().unwrap().to_string_lossy().parse().unwrap();
        let time = || of_thread(std::process::id(), thread).unwrap();
        let start = time();
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {}
        let worked = time() - start;
        assert!(worked > 1_000_000, "{worked} ns");
        assert!(!threads_named(std::process::id(), "").unwrap().is_empty());
    }
}
