//! The supervisor with a shell in place of Envoy and a fake admin interface. A compose scenario tests the drain of a real Envoy.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use launcher::admin::{Admin, AdminError};
use launcher::http::ExchangeError;
use launcher::relay::Relay;
use launcher::supervisor::{self, Supervisor};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The supervisor reaps every child and takes every signal of its process, so only one may run at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const LONG: Duration = Duration::from_secs(60);
/// Ends with code 0 on SIGTERM, as Envoy does.
const ENDS_ON_SIGTERM: &str = "trap 'exit 0' TERM; : > \"$READY\"; while :; do sleep 0.02; done";
/// Ignores SIGTERM, so it must be killed.
const IGNORES_SIGTERM: &str = "trap '' TERM; : > \"$READY\"; while :; do sleep 0.02; done";

/// A fake admin interface: it has a settable number of open streams and records its commands.
#[derive(Debug, Clone, Default)]
struct FakeAdmin(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    streams: u64,
    /// Streams that arrive between the two counts: they appear when the listeners are closed.
    late_streams: u64,
    absent: bool,
    silent: bool,
    commands: Vec<&'static str>,
}

impl FakeAdmin {
    fn with(change: impl FnOnce(&mut State)) -> Self {
        let admin = Self::default();
        change(&mut admin.state());
        admin
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn command(&self, name: &'static str) -> Result<MutexGuard<'_, State>, AdminError> {
        let mut state = self.state();
        if state.absent {
            return Err(AdminError::Exchange(ExchangeError::Io(std::io::ErrorKind::NotFound.into())));
        }
        if state.silent {
            return Err(AdminError::Exchange(ExchangeError::TimedOut));
        }
        state.commands.push(name);
        Ok(state)
    }
}

impl Admin for FakeAdmin {
    fn announce_end(&self) -> Result<(), AdminError> {
        self.command("announce").map(drop)
    }

    fn close_listeners(&self) -> Result<(), AdminError> {
        let mut state = self.command("close")?;
        state.streams += std::mem::take(&mut state.late_streams);
        Ok(())
    }

    fn open_streams(&self) -> Result<u64, AdminError> {
        self.command("count").map(|state| state.streams)
    }
}

/// Runs `script` under the supervisor, and `actor` once the script has set its traps. Returns the exit code and the time it took.
fn supervise(script: &str, admin: &FakeAdmin, drain: Duration, actor: impl FnOnce() + Send + 'static) -> (u8, Duration) {
    static RUN: AtomicU32 = AtomicU32::new(0);
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let ready = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ready-{}", RUN.fetch_add(1, Ordering::Relaxed)));
    let _ = std::fs::remove_file(&ready);
    let events = supervisor::watch_signals().unwrap();
    let mut envoy = Command::new("sh");
    envoy.args(["-c", script]).env("READY", &ready);
    let supervisor = Supervisor::start(envoy, admin.clone(), drain, Relay::start().unwrap()).unwrap();
    let started = Instant::now();
    let actor = thread::spawn(move || {
        wait_until("traps", || ready.exists());
        actor();
    });
    let code = supervisor.run(&events).unwrap();
    actor.join().unwrap();
    (code, started.elapsed())
}

/// Sends SIGTERM to this process, in which the supervisor runs.
fn terminate() {
    nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGTERM).unwrap();
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_exit_code_is_passed_on() {
    for (script, expected) in [("exit 0", 0), ("exit 1", 1), ("exit 78", 78), ("kill -SEGV $$", 139)] {
        let script = format!(": > \"$READY\"; {script}");
        let (code, _) = supervise(&script, &FakeAdmin::default(), LONG, || {});
        assert_eq!(code, expected, "{script}");
    }
}

#[test]
fn a_program_that_cannot_be_started_is_an_error() {
    let started = Supervisor::start(Command::new("/nonexistent/envoy"), FakeAdmin::default(), LONG, Relay::start().unwrap());
    assert_eq!(started.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn without_open_streams_it_ends_at_once() {
    let admin = FakeAdmin::default();
    let (code, took) = supervise(ENDS_ON_SIGTERM, &admin, LONG, terminate);
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(admin.state().commands, ["announce", "count", "count", "close", "count"]);
}

#[test]
fn it_waits_for_the_last_stream() {
    let admin = FakeAdmin::with(|state| state.streams = 2);
    let fake = admin.clone();
    let (code, took) = supervise(ENDS_ON_SIGTERM, &admin, LONG, move || {
        terminate();
        wait_until("counts", || fake.state().commands.len() > 6);
        assert!(!fake.state().commands.contains(&"close"), "new clients are served while streams are open");
        fake.state().streams = 0;
    });
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_stream_that_comes_between_count_and_close_is_waited_for() {
    let admin = FakeAdmin::with(|state| state.late_streams = 1);
    let fake = admin.clone();
    let (code, _) = supervise(ENDS_ON_SIGTERM, &admin, LONG, move || {
        terminate();
        wait_until("close", || fake.state().commands.contains(&"close"));
        let before = fake.state().commands.len();
        wait_until("counts after the close", || fake.state().commands.len() > before + 2);
        fake.state().streams = 0;
    });
    assert_eq!(code, 0);
}

#[test]
fn the_drain_time_is_the_longest_wait() {
    let drain = Duration::from_secs(1);
    for admin in [FakeAdmin::with(|state| state.streams = 1), FakeAdmin::with(|state| state.silent = true)] {
        let (code, took) = supervise(ENDS_ON_SIGTERM, &admin, drain, terminate);
        assert_eq!(code, 0);
        assert!(took >= drain && took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn a_second_signal_cuts_the_drain_short() {
    let admin = FakeAdmin::with(|state| state.streams = 1);
    let fake = admin.clone();
    let (code, took) = supervise(ENDS_ON_SIGTERM, &admin, LONG, move || {
        terminate();
        wait_until("drain", || fake.state().commands.len() > 3);
        terminate();
    });
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn without_drain_time_or_admin_interface_it_ends_at_once() {
    let absent = FakeAdmin::with(|state| state.absent = true);
    let busy = FakeAdmin::with(|state| state.streams = 1);
    for (admin, drain) in [(absent, LONG), (busy, Duration::ZERO)] {
        let (code, took) = supervise(ENDS_ON_SIGTERM, &admin, drain, terminate);
        assert_eq!(code, 0);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn an_envoy_that_ignores_sigterm_is_killed() {
    let (code, took) = supervise(IGNORES_SIGTERM, &FakeAdmin::default(), Duration::ZERO, terminate);
    assert_eq!(code, 137);
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn other_children_are_reaped() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let events = supervisor::watch_signals().unwrap();
    let mut envoy = Command::new("sh");
    envoy.args(["-c", "sleep 1; exit 3"]);
    let supervisor = Supervisor::start(envoy, FakeAdmin::default(), LONG, Relay::start().unwrap()).unwrap();
    #[expect(clippy::zombie_processes, reason = "the supervisor must reap it")]
    let other = Command::new("true").spawn().unwrap();
    assert_eq!(supervisor.run(&events).unwrap(), 3);
    let process = std::path::PathBuf::from(format!("/proc/{}", other.id()));
    assert!(!process.exists(), "{} is still there as a zombie", other.id());
}
