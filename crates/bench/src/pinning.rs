//! Pins processes to cores: the proxy under test has a core of its own, and load and agents share another.

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::cpu_time::threads;

/// The two cores of a run.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The core of clients and agents.
    pub load: usize,
    /// The core of the proxy.
    pub proxy: usize,
}

impl Cores {
    /// The first and the last core that this program may use.
    ///
    /// # Errors
    /// If it may use only one core.
    pub fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("asking for the cores of this process")?;
        let cores: Vec<_> = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect();
        match cores.as_slice() {
            [load, .., proxy] => Ok(Self { load: *load, proxy: *proxy }),
            _ => bail!("the bench needs two cores, but this process may use {}: allow it more (taskset, cgroup)", cores.len()),
        }
    }

    /// Moves the calling thread, and everything it starts from now on, to the load's core.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn take_load(self) -> Result<()> {
        pin(Pid::from_raw(0), self.load)
    }

    /// Moves the calling thread, and everything it starts from now on, to the proxy's core.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn take_proxy(self) -> Result<()> {
        pin(Pid::from_raw(0), self.proxy)
    }

    /// Moves all threads of the process `pid` to the proxy's core.
    ///
    /// # Errors
    /// If the process has ended, or the system does not allow it.
    pub fn give_proxy(self, pid: u32) -> Result<()> {
        for thread in threads(pid)? {
            pin(Pid::from_raw(i32::try_from(thread)?), self.proxy)?;
        }
        Ok(())
    }
}

fn pin(thread: Pid, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(thread, &cores).with_context(|| format!("moving thread {thread} to core {core}"))
}
