//! Supervises one Envoy: reaps ended processes, turns SIGTERM into a drain, and ends when Envoy has ended.

use crate::admin::{Admin, AdminError};
use crate::relay::Relay;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// How often the open streams are counted during a drain.
const POLL: Duration = Duration::from_millis(100);
/// How long Envoy may take to end after its SIGTERM; it needs milliseconds.
const END_GRACE: Duration = Duration::from_secs(5);
/// How long to wait until the last log lines are written after Envoy has ended.
const LAST_LINES: Duration = Duration::from_secs(1);

/// An event that the supervisor reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A child has ended.
    Child,
    /// SIGTERM or SIGINT.
    Terminate,
}

/// Turns the signals of this process into events, from now on.
///
/// # Errors
/// If the signal handlers or the thread cannot be set up.
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

/// How far the shutdown has come.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Running,
    /// Envoy still serves. It gets SIGTERM when no stream is open, at the latest at `until`.
    Draining {
        since: Instant,
        until: Instant,
    },
    /// Envoy has got SIGTERM. If it has not ended at `until`, it gets SIGKILL.
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
    relay: Relay,
}

impl<A: Admin> Supervisor<A> {
    /// Starts Envoy and relays its output through `relay`. `drain` is the longest wait for open streams.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(mut envoy: Command, admin: A, drain: Duration, relay: Relay) -> io::Result<Self> {
        // Envoy gets its own process group: Ctrl-C signals the whole foreground group, which would end Envoy without a drain.
        let mut child = envoy.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        relay.take(child.stdout.take(), child.stderr.take())?;
        let envoy = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        Ok(Self { envoy, admin, drain, relay })
    }

    /// Waits until Envoy has ended. Returns its exit code, or 128 plus the number of the signal that ended it.
    ///
    /// # Errors
    /// If the system does not let this process wait for children, or signal Envoy.
    pub fn run(self, events: &Receiver<Event>) -> io::Result<u8> {
        let mut phase = Phase::Running;
        loop {
            match self.next(events, phase) {
                Some(Event::Child) => {
                    if let Some(code) = reap(self.envoy)? {
                        self.relay.finish(LAST_LINES);
                        return Ok(code);
                    }
                }
                Some(Event::Terminate) => phase = self.terminate(phase)?,
                None => phase = self.tick(phase)?,
            }
        }
    }

    /// The next event, or `None` when it is time for [`Self::tick`].
    fn next(&self, events: &Receiver<Event>, phase: Phase) -> Option<Event> {
        let wait = match phase {
            // Without signals nothing could ever end this process in an orderly way, so it ends when their sender is lost.
            Phase::Running => return Some(events.recv().unwrap_or(Event::Terminate)),
            Phase::Draining { .. } => POLL,
            Phase::Ending { until } => until.saturating_duration_since(Instant::now()),
        };
        events.recv_timeout(wait).ok()
    }

    /// The first signal starts the drain, a second one cuts it short, and a third one kills Envoy.
    fn terminate(&self, phase: Phase) -> io::Result<Phase> {
        match phase {
            Phase::Running => self.begin_drain(),
            Phase::Draining { .. } => {
                self.relay.say("ending now: a second signal cuts the drain short");
                self.end()
            }
            Phase::Ending { .. } => self.kill(),
        }
    }

    fn begin_drain(&self) -> io::Result<Phase> {
        if self.drain.is_zero() {
            self.relay.say("ending now: the drain time is 0");
            return self.end();
        }
        match self.admin.announce_end() {
            Ok(()) => {}
            // Envoy opens its admin socket before it serves, so without the socket there is no stream to wait for.
            Err(error) if error.is_absent() => {
                self.relay.say("ending now: Envoy was not serving yet");
                return self.end();
            }
            Err(error) => self.relay.say(&format!("could not tell clients to leave: {error}")),
        }
        self.relay.say(&format!(
            "draining for at most {} s, open streams: {}",
            self.drain.as_secs(),
            count(&self.admin.open_streams())
        ));
        let since = Instant::now();
        self.tick(Phase::Draining { since, until: since + self.drain })
    }

    /// Goes to the next phase if the wait of this one is over.
    fn tick(&self, phase: Phase) -> io::Result<Phase> {
        match phase {
            Phase::Running => Ok(phase),
            Phase::Draining { since, until } => {
                if self.is_idle() {
                    self.relay.say(&format!("drained after {:.1} s", since.elapsed().as_secs_f32()));
                    self.end()
                } else if Instant::now() >= until {
                    self.relay.say(&format!("the drain time is over, open streams: {}", count(&self.admin.open_streams())));
                    self.end()
                } else {
                    Ok(phase)
                }
            }
            Phase::Ending { .. } => self.kill(),
        }
    }

    /// Whether no stream is open and none can be opened. The listeners are closed between two counts: a request that arrived after
    /// a single count would be cut.
    fn is_idle(&self) -> bool {
        let none_open = || matches!(self.admin.open_streams(), Ok(0));
        if !none_open() {
            return false;
        }
        if let Err(error) = self.admin.close_listeners() {
            self.relay.say(&format!("could not close the listeners: {error}"));
        }
        none_open()
    }

    fn end(&self) -> io::Result<Phase> {
        signal(self.envoy, Signal::SIGTERM)?;
        Ok(Phase::Ending { until: Instant::now() + END_GRACE })
    }

    fn kill(&self) -> io::Result<Phase> {
        self.relay.say("Envoy has not ended: killing it");
        signal(self.envoy, Signal::SIGKILL)?;
        Ok(Phase::Ending { until: Instant::now() + END_GRACE })
    }
}

/// Reaps every child that has ended; returns the exit code if Envoy is among them. Process 1 of a container also inherits processes
/// whose parent has died.
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

/// The exit code as a shell gives it: 128 plus the number of the signal if a signal ended the process.
fn exit_code(status: WaitStatus) -> Option<u8> {
    let code = match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => return None,
    };
    Some(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Signals Envoy, unless it has just ended.
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
