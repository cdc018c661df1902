//! A panic of the module: what it said, and the places where a test makes one.

use crate::host;
use std::cell::RefCell;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// What the last panic of this thread said of itself.
    static REASON: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what a panic says of itself for [`reason`], in place of writing it to standard error, which is not Envoy's log.
pub(crate) fn catch_reasons() {
    panic::set_hook(Box::new(|panic| {
        let said = panic.to_string();
        // A panic while the thread ends has nobody to tell.
        let _ = REASON.try_with(|reason| reason.try_borrow_mut().map(|mut reason| *reason = Some(said)));
    }));
}

/// Why this thread panicked, in one line.
pub(crate) fn reason() -> String {
    let said = REASON.try_with(|reason| reason.try_borrow_mut().ok()?.take()).ok().flatten();
    said.map_or_else(|| "unknown reason".to_owned(), |said| said.replace('\n', " "))
}

/// Panics that no stream has counted.
static UNCOUNTED: AtomicU64 = AtomicU64::new(0);

/// Tells of a panic that no stream can tell of.
pub(crate) fn tell(place: &str) {
    UNCOUNTED.fetch_add(1, Ordering::Relaxed);
    host::error(&format!("the filter panicked in {place}: {}", reason()));
}

/// How many panics a stream has to count for others.
pub(crate) fn take_uncounted() -> u64 {
    // Reading is cheap, and there are none.
    if UNCOUNTED.load(Ordering::Relaxed) == 0 { 0 } else { UNCOUNTED.swap(0, Ordering::Relaxed) }
}

#[cfg(not(feature = "test-trap"))]
pub(crate) use idle::{arm, point};
#[cfg(feature = "test-trap")]
pub(crate) use live::{arm, point};

/// What ships: no request can make a hook panic.
#[cfg(not(feature = "test-trap"))]
mod idle {
    pub(crate) const fn arm(_: &crate::abi::Host<'_>) {}

    pub(crate) const fn point(_: &str) {}
}

/// A request with the header `x-test-trap: <hook>` makes the next call of that hook panic, on whatever stream; with another value it
/// panics itself.
#[cfg(feature = "test-trap")]
mod live {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    static ARMED: Mutex<Option<String>> = Mutex::new(None);

    /// What a trap can be set for.
    const POINTS: [&str; 13] = [
        "new",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
        "scheduled",
        "end",
        "destroy",
        "clock",
        "judge",
        "admin_request_body",
        "admin_request_trailers",
    ];

    fn armed() -> MutexGuard<'static, Option<String>> {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::panic, reason = "this is what it is for")]
    pub(crate) fn arm(envoy: &crate::abi::Host<'_>) {
        let (Some(wanted), _) = envoy.header("x-test-trap", 0) else { return };
        match POINTS.iter().find(|point| point.as_bytes() == wanted) {
            Some(point) => *armed() = Some((*point).to_owned()),
            None => panic!("asked for by a header"),
        }
    }

    #[expect(clippy::panic, reason = "this is what it is for")]
    pub(crate) fn point(hook: &str) {
        let hit = armed().take_if(|armed| armed == hook).is_some()
            || std::env::var("PIXELL_TEST_TRAP").is_ok_and(|wanted| wanted == hook);
        if hit {
            panic!("asked for in {hook}");
        }
    }
}
