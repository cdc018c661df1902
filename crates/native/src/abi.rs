//! Envoy's C interface for dynamic modules, as far as it is used here, and all unsafe code of the module: what Envoy calls; in `calls`, what
//! the module calls.
//!
//! The declarations follow Envoy's header `source/extensions/dynamic_modules/abi/abi.h`; `abi.txt` lists them, and a test compares
//! both. Only what Envoy 1.38, 1.39 and 1.40 have in common is declared: a module that names a callback which Envoy lacks does not load.
#![allow(unsafe_code, reason = "this is the border to C; the rest of the crate has none")]

use crate::abi_types::{DataStatus, LogLevel, Status};
use crate::fault;
use crate::filter::{Filter, Stream};
use crate::waits::Call;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

mod calls;

pub(crate) use calls::{ConfigHost, Host, Map, Metric, Scheduler, only_validates, write_log};

/// The version of the interface. Envoy compares it with its own, and warns if they differ.
const ABI_VERSION: &CStr = c"v0.2.0";

/// Envoy's pointer to an object of its own.
type Ptr = *mut c_void;

/// Bytes that Envoy or the module owns, by pointer and length.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Where they are; null if there are none.
    pub ptr: *const c_char,
    /// How many.
    pub length: usize,
}

/// A header that the module owns, or Envoy.
#[repr(C)]
#[derive(Debug)]
pub struct HttpHeader {
    /// Its name.
    pub key: Buffer,
    /// Its value.
    pub value: Buffer,
}

impl Buffer {
    const EMPTY: Self = Self { ptr: std::ptr::null(), length: 0 };

    const fn of(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr().cast(), length: bytes.len() }
    }

    /// # Safety
    /// Envoy made the buffer, and `'a` ends before the hook returns and before the bytes change.
    const unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.length == 0 {
            return &[];
        }
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.length) }
    }
}

/// A stream as Envoy knows it: this module's part, and whether a hook of it runs. Envoy may destroy a stream while it sends the response
/// that a hook asked for, so the stream has to outlive the hook.
struct Slot {
    busy: Cell<bool>,
    doomed: Cell<bool>,
    stream: UnsafeCell<Stream>,
}

/// Runs a hook of a stream, which responds for a hook that panics.
fn run<T>(name: &str, host: Ptr, slot: *const c_void, otherwise: T, hook: impl FnOnce(&mut Stream, &mut Host<'_>) -> T) -> T {
    run_or(name, host, slot, otherwise, hook, Stream::on_panic)
}

/// Runs a hook of a stream, and `on_panic` if it panics. A panic must not reach Envoy, which is C++: it would end the process.
fn run_or<T>(
    name: &str,
    host: Ptr,
    slot: *const c_void,
    otherwise: T,
    hook: impl FnOnce(&mut Stream, &mut Host<'_>) -> T,
    on_panic: impl FnOnce(&mut Stream, &mut Host<'_>),
) -> T {
    // SAFETY: Envoy gives what `envoy_dynamic_module_on_http_filter_new` returned, and has not destroyed it.
    let slot_ref = unsafe { &*slot.cast::<Slot>() };
    let mut host = Host::of(host);
    // One hook of a stream at a time; what a response of ours calls on the way needs nothing of the stream.
    if slot_ref.busy.replace(true) {
        return otherwise;
    }
    // SAFETY: `busy` makes this the only reference.
    let stream = unsafe { &mut *slot_ref.stream.get() };
    let guarded = || {
        fault::point(|| stream.filter_name(), name);
        hook(stream, &mut host)
    };
    let result = catch_unwind(AssertUnwindSafe(guarded)).unwrap_or_else(|_| {
        if catch_unwind(AssertUnwindSafe(|| on_panic(stream, &mut host))).is_err() {
            write_log(LogLevel::Error, "the filter panicked while it reported a panic");
        }
        otherwise
    });
    slot_ref.busy.set(false);
    if slot_ref.doomed.get() {
        free(slot);
    }
    result
}

/// Frees a stream, to be called once.
fn free(slot: *const c_void) {
    run_alone("http_filter_destroy", || {
        // SAFETY: made by `Box::into_raw`, and Envoy is done with it.
        let mut slot = unsafe { Box::from_raw(slot.cast::<Slot>().cast_mut()) };
        fault::point(|| slot.stream.get_mut().filter_name(), "http_filter_destroy");
    });
}

/// Runs code that has no stream to count a panic.
fn run_alone<T>(what: &str, hook: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(hook)).inspect_err(|_| fault::tell(what)).ok()
}

/// What Envoy calls. A hook has its own name as `HOOK`.
macro_rules! hooks {
    ($($(#[$doc:meta])* fn $name:ident($($argument:tt: $type:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$doc])*
        #[unsafe(export_name = concat!("envoy_dynamic_module_on_", stringify!($name)))]
        pub extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            #[allow(dead_code, reason = "a hook that has nothing to do does not need it")]
            const HOOK: &str = stringify!($name);
            $body
        }
    )*};
}

hooks! {
    /// The module has been loaded.
    fn program_init() -> *const c_char {
        let begun = run_alone(HOOK, || {
            fault::catch_reasons();
            fault::point(|| "module", HOOK);
        });
        begun.map_or(std::ptr::null(), |()| ABI_VERSION.as_ptr())
    }

    /// A filter is configured.
    fn http_filter_config_new(host: Ptr, name: Buffer, config: Buffer) -> *const c_void {
        let made = run_alone(HOOK, || {
            // SAFETY: both live until the hook returns.
            let (name, config) = unsafe { (name.bytes(), config.bytes()) };
            Filter::new(&ConfigHost::of(host), name, config).inspect(|filter| fault::point(|| filter.name(), HOOK))
        });
        match made {
            Some(Ok(filter)) => Box::into_raw(Box::new(filter)).cast_const().cast(),
            Some(Err(error)) => {
                write_log(LogLevel::Error, &error);
                std::ptr::null()
            }
            None => std::ptr::null(),
        }
    }

    /// A configuration is no longer used.
    fn http_filter_config_destroy(filter: *const c_void) {
        run_alone(HOOK, || {
            // SAFETY: made by `Box::into_raw`, and Envoy is done with it.
            let filter = unsafe { Box::from_raw(filter.cast::<Filter>().cast_mut()) };
            fault::point(|| filter.name(), HOOK);
        });
    }

    /// A stream begins.
    fn http_filter_new(filter: *const c_void, _: Ptr) -> *const c_void {
        // SAFETY: Envoy keeps a configuration until its last stream is gone.
        let filter: &'static Filter = unsafe { &*filter.cast::<Filter>() };
        let made = run_alone(HOOK, || {
            fault::point(|| filter.name(), HOOK);
            Stream::new(filter)
        });
        let stream = made.unwrap_or(Stream::Broken { filter });
        let slot = Slot { busy: false.into(), doomed: false.into(), stream: stream.into() };
        Box::into_raw(Box::new(slot)).cast_const().cast()
    }

    /// A stream has ended.
    fn http_filter_destroy(slot: *const c_void) {
        // SAFETY: as in `run_or`; nobody uses it afterwards but a hook that still runs, which then frees it.
        let slot_ref = unsafe { &*slot.cast::<Slot>() };
        if slot_ref.busy.get() {
            slot_ref.doomed.set(true);
        } else {
            free(slot);
        }
    }

    /// The head of a request.
    fn http_filter_request_headers(host: Ptr, slot: *const c_void, ends: bool) -> Status {
        fault::arm(&mut Host::of(host));
        run(HOOK, host, slot, Status::Stop, |stream, host| stream.on_request_headers(host, ends))
    }

    /// A part of a request's body.
    fn http_filter_request_body(host: Ptr, slot: *const c_void, ends: bool) -> DataStatus {
        run(HOOK, host, slot, DataStatus::StopAndDrop, |stream, host| stream.on_request_body(host, ends))
    }

    /// The trailers of a request.
    fn http_filter_request_trailers(host: Ptr, slot: *const c_void) -> Status {
        run(HOOK, host, slot, Status::Stop, Stream::on_request_trailers)
    }

    /// The head of a response.
    fn http_filter_response_headers(host: Ptr, slot: *const c_void, _: bool) -> Status {
        run(HOOK, host, slot, (), Stream::on_response_headers);
        Status::Continue
    }

    /// A part of a response's body.
    fn http_filter_response_body(host: Ptr, slot: *const c_void, ends: bool) -> DataStatus {
        run(HOOK, host, slot, (), |stream, host| stream.on_response_body(host, ends));
        DataStatus::Continue
    }

    /// The trailers of a response.
    fn http_filter_response_trailers(host: Ptr, slot: *const c_void) -> Status {
        run(HOOK, host, slot, (), Stream::on_response_trailers);
        Status::Continue
    }

    /// A stream is complete, and its attributes can still be read.
    fn http_filter_stream_complete(host: Ptr, slot: *const c_void) {
        // After a panic here there is no client left to respond to.
        run_or(HOOK, host, slot, (), |stream, host| stream.on_end(host), |_, _| fault::tell(HOOK));
    }

    /// What was asked of a `Scheduler`.
    fn http_filter_scheduled(host: Ptr, slot: *const c_void, number: u64) {
        run(HOOK, host, slot, (), |stream, host| stream.on_scheduled(host, Call::of(number)));
    }
}

/// Hooks that Envoy requires, although they have nothing to do.
macro_rules! idle_hooks {
    ($(fn $name:ident($($type:ty),*) $(-> $result:ident)?;)*) => {
        hooks! { $(#[doc = "Nothing to do."] fn $name($(_: $type),*) $(-> $result)? { $($result::Continue)? })* }
    };
}

idle_hooks! {
    fn http_filter_http_callout_done(Ptr, *const c_void, u64, u32, *mut HttpHeader, usize, *mut Buffer, usize);
    fn http_filter_http_stream_headers(Ptr, *const c_void, u64, *mut HttpHeader, usize, bool);
    fn http_filter_http_stream_data(Ptr, *const c_void, u64, *const Buffer, usize, bool);
    fn http_filter_http_stream_trailers(Ptr, *const c_void, u64, *mut HttpHeader, usize);
    fn http_filter_http_stream_complete(Ptr, *const c_void, u64);
    fn http_filter_http_stream_reset(Ptr, *const c_void, u64, u32);
    fn http_filter_downstream_above_write_buffer_high_watermark(Ptr, *const c_void);
    fn http_filter_downstream_below_write_buffer_low_watermark(Ptr, *const c_void);
}
