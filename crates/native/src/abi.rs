//! Envoy's C interface for dynamic modules, as far as it is used here, and all unsafe code of the module: what Envoy calls; in `calls`, what
//! the module calls.
//!
//! The declarations follow Envoy's header `source/extensions/dynamic_modules/abi/abi.h`; `abi.txt` lists them, and a test compares
//! both. Only what Envoy 1.38, 1.39 and 1.40 have alike is declared: a module that names a callback which Envoy lacks does not load.
#![allow(unsafe_code, reason = "this is the border to C; the rest of the crate has none")]

use crate::abi_types::{DataStatus, LogLevel, Status};
use crate::fault;
use crate::filter::{Filter, Stream};
use crate::router::owes;
use crate::waits::Call;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

mod calls;

pub(crate) use calls::{ConfigHost, Host, Map, Metric, Scheduler, only_validates, write_log};

/// The version of the interface. Envoy compares it with its own, and warns if they differ.
const ABI_VERSION: &CStr = c"v0.2.0";

/// What Envoy knows an object of its own by.
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
pub struct ModuleHttpHeader {
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
    /// Whether the hooks of the response are for this stream, as far as its last hook knew.
    reads_response: Cell<bool>,
    /// Whether the hook of its end is for this stream, likewise.
    reads_end: Cell<bool>,
    busy: Cell<bool>,
    doomed: Cell<bool>,
    stream: UnsafeCell<Stream>,
}

/// Runs a hook of a stream. A panic must not reach Envoy, which is C++: it would end the process.
fn run<T>(host: Ptr, slot: *const c_void, otherwise: T, hook: impl FnOnce(&mut Stream, &mut Host<'_>) -> T) -> T {
    // SAFETY: Envoy gives what `envoy_dynamic_module_on_http_filter_new` returned, and has not destroyed it.
    let slot_ref = unsafe { &*slot.cast::<Slot>() };
    let mut host = Host::of(host);
    // One hook of a stream at a time; what a response of ours calls on the way needs nothing of the stream.
    if slot_ref.busy.replace(true) {
        return otherwise;
    }
    // SAFETY: `busy` makes this the only reference.
    let stream = unsafe { &mut *slot_ref.stream.get() };
    let result = catch_unwind(AssertUnwindSafe(|| hook(stream, &mut host))).unwrap_or_else(|_| {
        let reason = fault::reason();
        let told = catch_unwind(AssertUnwindSafe(|| stream.on_panic(&mut host, &reason)));
        if told.is_err() {
            write_log(LogLevel::Error, "the filter panicked while it told of a panic");
        }
        otherwise
    });
    slot_ref.reads_response.set(stream.reads_response());
    slot_ref.reads_end.set(stream.reads_end());
    slot_ref.busy.set(false);
    if slot_ref.doomed.get() {
        free(slot);
    }
    result
}

/// Whether the hooks of the response are for this stream. (Most have nothing to do in them.)
fn reads_response(slot: *const c_void) -> bool {
    // SAFETY: as in `run`.
    unsafe { (*slot.cast::<Slot>()).reads_response.get() }
}

/// Whether the hook of its end is for this stream. (Most have nothing to do in it.)
fn reads_end(slot: *const c_void) -> bool {
    // SAFETY: as in `run`.
    unsafe { (*slot.cast::<Slot>()).reads_end.get() }
}

/// Frees a stream, to be called once.
fn free(slot: *const c_void) {
    // SAFETY: made by `Box::into_raw`, and Envoy is done with it.
    run_alone("filter_destroy", || drop(unsafe { Box::from_raw(slot.cast::<Slot>().cast_mut()) }));
}

/// Runs code that has no stream which could count a panic.
fn run_alone<T>(what: &str, hook: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(hook)).inspect_err(|_| fault::tell(what)).ok()
}

/// What Envoy calls.
macro_rules! hooks {
    ($($(#[$doc:meta])* fn $name:ident($($argument:tt: $type:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$doc])*
        #[unsafe(export_name = concat!("envoy_dynamic_module_on_", stringify!($name)))]
        pub extern "C" fn $name($($argument: $type),*) $(-> $result)? $body
    )*};
}

hooks! {
    /// The module has been loaded.
    fn program_init() -> *const c_char {
        run_alone("program_init", fault::catch_reasons).map_or(std::ptr::null(), |()| ABI_VERSION.as_ptr())
    }

    /// A filter is configured.
    fn http_filter_config_new(host: Ptr, name: Buffer, config: Buffer) -> *const c_void {
        let made = run_alone("config_new", || {
            // SAFETY: both live until the hook returns.
            let (name, config) = unsafe { (name.bytes(), config.bytes()) };
            Filter::new(&ConfigHost::of(host), name, config)
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

    /// A configuration is not used any more.
    fn http_filter_config_destroy(filter: *const c_void) {
        // SAFETY: made by `Box::into_raw`, and Envoy is done with it.
        run_alone("config_destroy", || drop(unsafe { Box::from_raw(filter.cast::<Filter>().cast_mut()) }));
    }

    /// A stream begins.
    fn http_filter_new(filter: *const c_void, _: Ptr) -> *const c_void {
        // SAFETY: Envoy keeps a configuration until its last stream is gone.
        let filter: &'static Filter = unsafe { &*filter.cast::<Filter>() };
        let stream = run_alone("filter_new", || Stream::new(filter)).unwrap_or_else(|| Stream::Broken { filter });
        let reads_response = stream.reads_response();
        let flag = Cell::new;
        let (reads_response, reads_end) = (flag(reads_response), flag(false));
        let slot = Slot { reads_response, reads_end, busy: flag(false), doomed: flag(false), stream: stream.into() };
        Box::into_raw(Box::new(slot)).cast_const().cast()
    }

    /// A stream has ended.
    fn http_filter_destroy(slot: *const c_void) {
        // SAFETY: as in `run`; nobody uses it afterwards but a hook that still runs, which then frees it.
        let slot_ref = unsafe { &*slot.cast::<Slot>() };
        if slot_ref.busy.get() {
            slot_ref.doomed.set(true);
        } else {
            free(slot);
        }
    }

    /// The head of a request.
    fn http_filter_request_headers(host: Ptr, slot: *const c_void, ends: bool) -> Status {
        run(host, slot, Status::Stop, |stream, host| stream.on_request_headers(host, ends))
    }

    /// A part of a request's body.
    fn http_filter_request_body(host: Ptr, slot: *const c_void, ends: bool) -> DataStatus {
        run(host, slot, DataStatus::StopAndDrop, |stream, host| stream.on_request_body(host, ends))
    }

    /// The trailers of a request.
    fn http_filter_request_trailers(host: Ptr, slot: *const c_void) -> Status {
        run(host, slot, Status::Stop, Stream::on_request_trailers)
    }

    /// The head of a response.
    fn http_filter_response_headers(host: Ptr, slot: *const c_void, _: bool) -> Status {
        if owes() || reads_response(slot) {
            run(host, slot, (), Stream::on_response_headers);
        }
        Status::Continue
    }

    /// A part of a response's body.
    fn http_filter_response_body(host: Ptr, slot: *const c_void, ends: bool) -> DataStatus {
        if reads_response(slot) {
            run(host, slot, (), |stream, host| stream.on_response_body(host, ends));
        }
        DataStatus::Continue
    }

    /// The trailers of a response.
    fn http_filter_response_trailers(host: Ptr, slot: *const c_void) -> Status {
        if reads_response(slot) {
            run(host, slot, (), Stream::on_response_trailers);
        }
        Status::Continue
    }

    /// A stream is complete, and what is known of it can still be asked for.
    fn http_filter_stream_complete(host: Ptr, slot: *const c_void) {
        if reads_end(slot) {
            // After a panic there is no client to respond to any more.
            run(host, slot, (), |stream, host| run_alone("stream_complete", || stream.on_end(host)).unwrap_or_default());
        }
    }

    /// What was asked of a `Scheduler`.
    fn http_filter_scheduled(host: Ptr, slot: *const c_void, number: u64) {
        run(host, slot, (), |stream, host| stream.on_scheduled(host, Call::of(number)));
    }
}

/// What Envoy insists on, though there is nothing to do.
macro_rules! idle_hooks {
    ($(fn $name:ident($($type:ty),*) $(-> $result:ident)?;)*) => {
        hooks! { $(#[doc = "Nothing to do."] fn $name($(_: $type),*) $(-> $result)? { $($result::Continue)? })* }
    };
}

idle_hooks! {
    fn http_filter_http_callout_done(Ptr, *const c_void, u64, u32, Ptr, usize, Ptr, usize);
    fn http_filter_http_stream_headers(Ptr, *const c_void, u64, Ptr, usize, bool);
    fn http_filter_http_stream_data(Ptr, *const c_void, u64, *const c_void, usize, bool);
    fn http_filter_http_stream_trailers(Ptr, *const c_void, u64, Ptr, usize);
    fn http_filter_http_stream_complete(Ptr, *const c_void, u64);
    fn http_filter_http_stream_reset(Ptr, *const c_void, u64, u32);
    fn http_filter_downstream_above_write_buffer_high_watermark(Ptr, *const c_void);
    fn http_filter_downstream_below_write_buffer_low_watermark(Ptr, *const c_void);
}
