//! The supervisor with a shell in Envoy's place and a scripted admin interface; the drain of a real Envoy is a compose scenario.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use launcher::admin::{Admin, AdminError};
use launcher::http::ExchangeError;
use launcher::supervisor::{self, Supervisor};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The supervisor reaps every child of its process and takes its signals, so only one may run at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const LONG: Duration = Duration::from_secs(60);
/// Ends in order on SIGTERM, as Envoy does.
const OBEDIENT: &str = "trap 'exit 0' TERM; : > \"$READY\"; while :; do sleep 0.02; done";
/// Has to be killed.
const DEAF: &str = "trap '' TERM; : > \"$READY\"; while :; do sleep 0.02; done";

/// An admin interface with a settable number of open streams that records what it is told.
#[derive(Debug, Clone, Default)]
struct FakeAdmin(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    streams: u64,
    /// Streams that appear when the listeners are closed: they arrived between the two counts.
    late_streams: u64,
    absent: bool,
    silent: bool,
    told: Vec<&'static str>,
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

    fn tell(&self, what: &'static str) -> Result<MutexGuard<'_, State>, AdminError> {
        let mut state = self.state();
        if state.absent {
            return Err(AdminError::Exchange(ExchangeError::Io(std::io::ErrorKind::NotFound.into())));
        }
        if state.silent {
            return Err(AdminError::Exchange(ExchangeError::TimedOut));
        }
        state.told.push(what);
        Ok(state)
    }
}

impl Admin for FakeAdmin {
    fn announce_end(&self) -> Result<(), AdminError> {
        self.tell("announce").map(drop)
    }

    fn close_listeners(&self) -> Result<(), AdminError> {
        let mut state = self.tell("close")?;
        state.streams += std::mem::take(&mut state.late_streams);
        Ok(())
    }

    fn open_streams(&self) -> Result<u64, AdminError> {
        self.tell("count").map(|state| state.streams)
    }
}

/// Runs `script` under the supervisor and lets `actor` act once its traps are set; gives the exit code and the time it took.
fn supervise(script: &str, admin: &FakeAdmin, drain: Duration, actor: impl FnOnce() + Send + 'static) -> (u8, Duration) {
    static RUN: AtomicU32 = AtomicU32::new(0);
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let ready = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ready-{}", RUN.fetch_add(1, Ordering::Relaxed)));
    let _ = std::fs::remove_file(&ready);
    let events = supervisor::watch_signals().unwrap();
    let mut envoy = Command::new("sh");
    envoy.args(["-c", script]).env("READY", &ready);
    let supervisor = Supervisor::start(envoy, admin.clone(), drain).unwrap();
    let started = Instant::now();
    let actor = thread::spawn(move || {
        wait_until("traps", || ready.exists());
        actor();
    });
    let code = supervisor.run(&events).unwrap();
    actor.join().unwrap();
    (code, started.elapsed())
}

/// Signals this process, which is the supervisor's.
fn terminate() {
    nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGTERM).unwrap();
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
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
    let started = Supervisor::start(Command::new("/nonexistent/envoy"), FakeAdmin::default(), LONG);
    assert_eq!(started.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn without_open_streams_it_ends_at_once() {
    let admin = FakeAdmin::default();
    let (code, took) = supervise(OBEDIENT, &admin, LONG, terminate);
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(admin.state().told, ["announce", "count", "count", "close", "count"]);
}

#[test]
fn it_waits_for_the_last_stream() {
    let admin = FakeAdmin::with(|state| state.streams = 2);
    let scripted = admin.clone();
    let (code, took) = supervise(OBEDIENT, &admin, LONG, move || {
        terminate();
        wait_until("counts", || scripted.state().told.len() > 6);
        assert!(!scripted.state().told.contains(&"close"), "new callers are served while streams are open");
        scripted.state().streams = 0;
    });
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_stream_that_comes_between_count_and_close_is_waited_for() {
    let admin = FakeAdmin::with(|state| state.late_streams = 1);
    let scripted = admin.clone();
    let (code, _) = supervise(OBEDIENT, &admin, LONG, move || {
        terminate();
        wait_until("close", || scripted.state().told.contains(&"close"));
        let told = scripted.state().told.len();
        wait_until("counts after the close", || scripted.state().told.len() > told + 2);
        scripted.state().streams = 0;
    });
    assert_eq!(code, 0);
}

#[test]
fn the_drain_time_is_the_longest_wait() {
    let drain = Duration::from_secs(1);
    for admin in [FakeAdmin::with(|state| state.streams = 1), FakeAdmin::with(|state| state.silent = true)] {
        let (code, took) = supervise(OBEDIENT, &admin, drain, terminate);
        assert_eq!(code, 0);
        assert!(took >= drain && took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn a_second_signal_cuts_the_drain_short() {
    let admin = FakeAdmin::with(|state| state.streams = 1);
    let scripted = admin.clone();
    let (code, took) = supervise(OBEDIENT, &admin, LONG, move || {
        terminate();
        wait_until("drain", || scripted.state().told.len() > 3);
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
        let (code, took) = supervise(OBEDIENT, &admin, drain, terminate);
        assert_eq!(code, 0);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn a_deaf_envoy_is_killed() {
    let (code, took) = supervise(DEAF, &FakeAdmin::default(), Duration::ZERO, terminate);
    assert_eq!(code, 137);
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn strangers_are_reaped() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let events = supervisor::watch_signals().unwrap();
    let mut envoy = Command::new("sh");
    envoy.args(["-c", "sleep 1; exit 3"]);
    let supervisor = Supervisor::start(envoy, FakeAdmin::default(), LONG).unwrap();
    #[expect(clippy::zombie_processes, reason = "that nobody else waits for it is the point")]
    let stranger = Command::new("true").spawn().unwrap();
    assert_eq!(supervisor.run(&events).unwrap(), 3);
    let stat = std::path::PathBuf::from(format!("/proc/{}", stranger.id()));
    assert!(!stat.exists(), "{} is still there as a zombie", stranger.id());
}
