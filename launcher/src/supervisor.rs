//! Keeps one Envoy: reaps what dies, turns SIGTERM into a drain, and ends when Envoy has ended.

use crate::admin::{Admin, AdminError};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// How often the open streams are counted during a drain.
const POLL: Duration = Duration::from_millis(100);
/// How long Envoy may take to end after its SIGTERM; it needs milliseconds.
const END_GRACE: Duration = Duration::from_secs(5);

/// What the supervisor reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A child has ended.
    Child,
    /// SIGTERM or SIGINT: end.
    Terminate,
}

/// Turns the signals of this process into events, from now on.
///
/// # Errors
/// The signal handlers or the thread cannot be set up.
pub fn watch_signals() -> io::Result<Receiver<Event>> {
    let mut signals = Signals::new([SIGCHLD, SIGINT, SIGTERM])?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let event = if signal == SIGCHLD { Event::Child } else { Event::Terminate };
            if sender.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// How far the end has come.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Running,
    /// Envoy still serves; it ends when no stream is open, at the latest at `until`.
    Draining {
        since: Instant,
        until: Instant,
    },
    /// Envoy has got its SIGTERM; at `until` it gets SIGKILL.
    Ending {
        until: Instant,
    },
}

/// A running Envoy.
#[derive(Debug)]
pub struct Supervisor<A> {
    envoy: Pid,
    admin: A,
    drain: Duration,
}

impl<A: Admin> Supervisor<A> {
    /// Starts Envoy. `drain` is the longest wait for open streams.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(mut envoy: Command, admin: A, drain: Duration) -> io::Result<Self> {
        // A process group of its own: Ctrl-C at a terminal signals the whole foreground group, and Envoy would end without a drain.
        let child = envoy.process_group(0).spawn()?;
        let envoy = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        Ok(Self { envoy, admin, drain })
    }

    /// Waits until Envoy has ended; gives its exit code, or 128 plus the signal that ended it.
    ///
    /// # Errors
    /// Children cannot be waited for, or Envoy cannot be signalled.
    pub fn run(self, events: &Receiver<Event>) -> io::Result<u8> {
        let mut phase = Phase::Running;
        loop {
            match self.next(events, phase) {
                Some(Event::Child) => {
                    if let Some(code) = reap(self.envoy)? {
                        return Ok(code);
                    }
                }
                Some(Event::Terminate) => phase = self.terminate(phase)?,
                None => phase = self.tick(phase)?,
            }
        }
    }

    /// The next event, or `None` when it is time to look again.
    fn next(&self, events: &Receiver<Event>, phase: Phase) -> Option<Event> {
        let wait = match phase {
            // Without signals nothing could ever end this process in order, so their loss is a reason to end.
            Phase::Running => return Some(events.recv().unwrap_or(Event::Terminate)),
            Phase::Draining { .. } => POLL,
            Phase::Ending { until } => until.saturating_duration_since(Instant::now()),
        };
        events.recv_timeout(wait).ok()
    }

    /// The first request to end starts the drain, a second one cuts it short, a third one kills.
    fn terminate(&self, phase: Phase) -> io::Result<Phase> {
        match phase {
            Phase::Running => self.begin_drain(),
            Phase::Draining { .. } => {
                log("asked again to end: ending now");
                self.end()
            }
            Phase::Ending { .. } => self.kill(),
        }
    }

    fn begin_drain(&self) -> io::Result<Phase> {
        if self.drain.is_zero() {
            log("ending now: the drain time is 0");
            return self.end();
        }
        match self.admin.announce_end() {
            Ok(()) => {}
            // Envoy opens its admin socket before it serves: without the socket there is no stream to wait for.
            Err(error) if error.is_absent() => {
                log("ending now: Envoy was not serving yet");
                return self.end();
            }
            Err(error) => log(&format!("callers could not be told to leave: {error}")),
        }
        log(&format!("draining for at most {} s, open streams: {}", self.drain.as_secs(), count(&self.admin.open_streams())));
        let since = Instant::now();
        self.tick(Phase::Draining { since, until: since + self.drain })
    }

    /// Looks whether the time or the reason for waiting is over.
    fn tick(&self, phase: Phase) -> io::Result<Phase> {
        match phase {
            Phase::Running => Ok(phase),
            Phase::Draining { since, until } => {
                if self.is_idle() {
                    log(&format!("drained after {:.1} s", since.elapsed().as_secs_f32()));
                    self.end()
                } else if Instant::now() >= until {
                    log(&format!("the drain time is over, open streams: {}", count(&self.admin.open_streams())));
                    self.end()
                } else {
                    Ok(phase)
                }
            }
            Phase::Ending { .. } => self.kill(),
        }
    }

    /// Whether no stream is open and none can come: the listeners are closed in between, or a request that arrives after the
    /// first count would be cut.
    fn is_idle(&self) -> bool {
        let none_open = || matches!(self.admin.open_streams(), Ok(0));
        if !none_open() {
            return false;
        }
        if let Err(error) = self.admin.close_listeners() {
            log(&format!("the listeners could not be closed: {error}"));
        }
        none_open()
    }

    fn end(&self) -> io::Result<Phase> {
        signal(self.envoy, Signal::SIGTERM)?;
        Ok(Phase::Ending { until: Instant::now() + END_GRACE })
    }

    fn kill(&self) -> io::Result<Phase> {
        log("Envoy has not ended: killing it");
        signal(self.envoy, Signal::SIGKILL)?;
        Ok(Phase::Ending { until: Instant::now() + END_GRACE })
    }
}

/// Takes in every child that has ended. As process 1 of a container that includes strangers whose parent has died.
fn reap(envoy: Pid) -> io::Result<Option<u8>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(status) if status.pid() == Some(envoy) => {
                if let Some(code) = exit_code(status) {
                    return Ok(Some(code));
                }
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The exit code as a shell gives it: 128 plus the number of the signal for a process that a signal ended.
fn exit_code(status: WaitStatus) -> Option<u8> {
    let code = match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => return None,
    };
    Some(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Signals Envoy; one that has just ended needs no signal.
fn signal(envoy: Pid, signal: Signal) -> io::Result<()> {
    match kill(envoy, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn count(streams: &Result<u64, AdminError>) -> String {
    match streams {
        Ok(number) => number.to_string(),
        Err(error) => format!("unknown ({error})"),
    }
}

fn log(message: &str) {
    eprintln!("pixell-envoy: {message}");
}
