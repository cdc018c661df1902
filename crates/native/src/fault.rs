//! A panic of the module: its message, and the places where a test makes one.

use crate::host;
use std::cell::RefCell;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// The message of the last panic of this thread.
    static REASON: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the message of a panic for [`reason`], instead of writing it to standard error, which is not Envoy's log.
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

/// Logs and counts a panic that no stream can report.
pub(crate) fn tell(place: &str) {
    UNCOUNTED.fetch_add(1, Ordering::Relaxed);
    host::error(&format!("the filter panicked in {place}: {}", reason()));
}

/// How many panics a stream has to count for others.
pub(crate) fn take_uncounted() -> u64 {
    // Nearly always there are none, and a load costs less than a swap.
    if UNCOUNTED.load(Ordering::Relaxed) == 0 { 0 } else { UNCOUNTED.swap(0, Ordering::Relaxed) }
}

#[cfg(not(feature = "test-trap"))]
pub(crate) use idle::{arm, point};
#[cfg(feature = "test-trap")]
pub(crate) use live::{arm, point};

/// What ships: no request can make a hook panic.
#[cfg(not(feature = "test-trap"))]
mod idle {
    pub(crate) const fn arm(_: &mut crate::abi::Host<'_>) {}

    pub(crate) fn point(_: impl FnOnce() -> &'static str, _: &str) {}
}

/// A request with the header `x-test-trap: <filter>.<hook>` makes the next call of that hook of that filter panic, on whatever stream. With
/// another value the request itself panics. So does each call of a place that the variable `PIXELL_TEST_TRAP` names.
#[cfg(feature = "test-trap")]
mod live {
    use crate::abi::{Host, Map};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    static ARMED: Mutex<Option<Vec<u8>>> = Mutex::new(None);

    fn armed() -> MutexGuard<'static, Option<Vec<u8>>> {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const HEADER: &str = "x-test-trap";

    /// To be called before the hook for the head of a request. Filters that it meets later do not see the header.
    pub(crate) fn arm(envoy: &mut Host<'_>) {
        let (Some(wanted), _) = envoy.header(HEADER, 0) else { return };
        *armed() = Some(if wanted.contains(&b'.') { wanted.to_vec() } else { b"http_filter_request_headers".to_vec() });
        envoy.remove_from(Map::Request, HEADER.as_bytes());
    }

    #[expect(clippy::panic, reason = "this is what it is for")]
    pub(crate) fn point(filter: impl FnOnce() -> &'static str, hook: &str) {
        let place = format!("{}.{hook}", filter());
        let hit = armed().take_if(|wanted| *wanted == place.as_bytes() || *wanted == hook.as_bytes()).is_some()
            || std::env::var("PIXELL_TEST_TRAP").is_ok_and(|wanted| wanted == place);
        if hit {
            panic!("asked for in {place}");
        }
    }
}
