//! What the module calls, each call made safe.

use super::{Buffer, HttpHeader, Ptr};
use crate::abi_types::{Attribute, LogLevel};
use std::marker::PhantomData;

const REQUEST_HEADER: u32 = 0;
const RESPONSE_HEADER: u32 = 2;
const RESPONSE_TRAILER: u32 = 3;
const RECEIVED_REQUEST_BODY: u32 = 0;
const BUFFERED_REQUEST_BODY: u32 = 1;
const RECEIVED_RESPONSE_BODY: u32 = 2;
const BUFFERED_RESPONSE_BODY: u32 = 3;
const METRIC_SUCCESS: u32 = 0;

/// What the module calls.
macro_rules! callbacks {
    ($(fn $name:ident($($type:ty),*) $(-> $result:ty)?;)*) => {
        unsafe extern "C" {
            $(#[link_name = concat!("envoy_dynamic_module_callback_", stringify!($name))]
            fn $name($(_: $type),*) $(-> $result)?;)*
        }
    };
}

callbacks! {
    fn log(u32, Buffer);
    fn is_validation_mode() -> bool;
    fn http_get_header(Ptr, u32, Buffer, *mut Buffer, usize, *mut usize) -> bool;
    fn http_get_headers_size(Ptr, u32) -> usize;
    fn http_get_headers(Ptr, u32, *mut HttpHeader) -> bool;
    fn http_set_header(Ptr, u32, Buffer, Buffer) -> bool;
    fn http_add_header(Ptr, u32, Buffer, Buffer) -> bool;
    fn http_set_filter_state_typed(Ptr, Buffer, Buffer) -> bool;
    fn http_set_filter_state_bytes(Ptr, Buffer, Buffer) -> bool;
    fn http_get_filter_state_bytes(Ptr, Buffer, *mut Buffer) -> bool;
    fn http_filter_get_attribute_string(Ptr, u32, *mut Buffer) -> bool;
    fn http_filter_get_attribute_int(Ptr, u32, *mut u64) -> bool;
    fn http_clear_route_cache(Ptr);
    fn http_send_response(Ptr, u32, *mut HttpHeader, usize, Buffer, Buffer);
    fn http_get_body_size(Ptr, u32) -> usize;
    fn http_get_body_chunks_size(Ptr, u32) -> usize;
    fn http_get_body_chunks(Ptr, u32, *mut Buffer) -> bool;
    fn http_append_body(Ptr, u32, Buffer) -> bool;
    fn http_drain_body(Ptr, u32, usize) -> bool;
    fn http_filter_config_define_counter(Ptr, Buffer, *mut Buffer, usize, *mut usize) -> u32;
    fn http_filter_config_define_gauge(Ptr, Buffer, *mut Buffer, usize, *mut usize) -> u32;
    fn http_filter_increment_counter(Ptr, usize, *mut Buffer, usize, u64) -> u32;
    fn http_filter_increment_gauge(Ptr, usize, *mut Buffer, usize, u64) -> u32;
    fn http_filter_set_gauge(Ptr, usize, *mut Buffer, usize, u64) -> u32;
    fn http_filter_scheduler_new(Ptr) -> Ptr;
    fn http_filter_scheduler_commit(Ptr, u64);
    fn http_filter_scheduler_delete(Ptr);
}

/// Writes a line to Envoy's log, from any thread.
pub(crate) fn write_log(level: LogLevel, message: &str) {
    // SAFETY: Envoy copies the message.
    unsafe { log(level as u32, Buffer::of(message.as_bytes())) };
}

/// Whether Envoy only checks its configuration (`--mode validate`). To be called on the main thread.
pub(crate) fn only_validates() -> bool {
    // SAFETY: it takes nothing.
    unsafe { is_validation_mode() }
}

/// A counter or gauge of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric(usize);

/// Envoy's side of a configuration, while it is made.
#[derive(Debug)]
pub(crate) struct ConfigHost(Ptr);

impl ConfigHost {
    pub(super) const fn of(config: Ptr) -> Self {
        Self(config)
    }

    /// Defines a counter, with a label or without; `None` if Envoy does not.
    pub(crate) fn counter(&self, name: &str, label: Option<&str>) -> Option<Metric> {
        self.define(http_filter_config_define_counter, name, label)
    }

    /// Defines a gauge without labels; `None` if Envoy does not.
    pub(crate) fn gauge(&self, name: &str) -> Option<Metric> {
        self.define(http_filter_config_define_gauge, name, None)
    }

    fn define(&self, define: DefineMetric, name: &str, label: Option<&str>) -> Option<Metric> {
        let mut labels = label.map(|label| Buffer::of(label.as_bytes()));
        let pointer = labels.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
        let mut id = 0;
        // SAFETY: the configuration is being made; Envoy copies the names.
        let result = unsafe { define(self.0, Buffer::of(name.as_bytes()), pointer, labels.iter().len(), &raw mut id) };
        (result == METRIC_SUCCESS).then_some(Metric(id))
    }
}

type DefineMetric = unsafe extern "C" fn(Ptr, Buffer, *mut Buffer, usize, *mut usize) -> u32;
type ChangeMetric = unsafe extern "C" fn(Ptr, usize, *mut Buffer, usize, u64) -> u32;

/// Headers of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Map {
    Request,
    Response,
    ResponseTrailers,
}

impl Map {
    const fn number(self) -> u32 {
        match self {
            Self::Request => REQUEST_HEADER,
            Self::Response => RESPONSE_HEADER,
            Self::ResponseTrailers => RESPONSE_TRAILER,
        }
    }
}

/// Envoy's side of a stream, during a hook.
#[derive(Debug)]
pub(crate) struct Host<'hook> {
    stream: Ptr,
    hook: PhantomData<&'hook ()>,
}

impl Host<'_> {
    pub(super) const fn of(stream: Ptr) -> Self {
        Self { stream, hook: PhantomData }
    }

    /// A value of a request header by its name in lower case, and how many values there are.
    pub(crate) fn header(&self, name: &str, index: usize) -> (Option<&[u8]>, usize) {
        self.value(Map::Request, name, index)
    }

    /// A value of a header by its name in lower case, and how many values there are.
    pub(crate) fn value(&self, map: Map, name: &str, index: usize) -> (Option<&[u8]>, usize) {
        let (mut value, mut size) = (Buffer::EMPTY, 0);
        // SAFETY: the results are written before Envoy returns. The value lives until something is set, which takes `&mut self`.
        unsafe {
            let key = Buffer::of(name.as_bytes());
            let found = http_get_header(self.stream, map.number(), key, &raw mut value, index, &raw mut size);
            (found.then(|| value.bytes()), size)
        }
    }

    /// The names, in lower case, of all headers that begin with `prefix`, once for each field. Nearly always there is none.
    pub(crate) fn names_beginning(&self, map: Map, prefix: &[u8]) -> Vec<Vec<u8>> {
        // SAFETY: Envoy fills as many headers as it has told. Names live until something is set, and are copied before.
        unsafe {
            let count = http_get_headers_size(self.stream, map.number());
            let mut headers: Vec<HttpHeader> = Vec::with_capacity(count);
            if count == 0 || !http_get_headers(self.stream, map.number(), headers.as_mut_ptr()) {
                return Vec::new();
            }
            headers.set_len(count);
            let names = headers.iter().map(|header| header.key.bytes());
            names.filter(|name| name.starts_with(prefix)).map(<[u8]>::to_vec).collect()
        }
    }

    /// Sets a request header, in place of all fields of that name; `false` if Envoy does not.
    pub(crate) fn set_header(&mut self, name: &str, value: &[u8]) -> bool {
        self.set_in(Map::Request, name, value)
    }

    /// Sets a header, in place of all fields of that name; `false` if Envoy does not.
    pub(crate) fn set_in(&mut self, map: Map, name: &str, value: &[u8]) -> bool {
        let (key, value) = (Buffer::of(name.as_bytes()), Buffer::of(value));
        // SAFETY: Envoy copies both.
        unsafe { http_set_header(self.stream, map.number(), key, value) }
    }

    /// Adds a header beside all fields of that name; `false` if Envoy does not.
    pub(crate) fn add_to(&mut self, map: Map, name: &str, value: &[u8]) -> bool {
        let (key, value) = (Buffer::of(name.as_bytes()), Buffer::of(value));
        // SAFETY: Envoy copies both.
        unsafe { http_add_header(self.stream, map.number(), key, value) }
    }

    /// Removes all fields of a header; `false` if Envoy does not.
    pub(crate) fn remove_from(&mut self, map: Map, name: &[u8]) -> bool {
        // SAFETY: Envoy removes what is set to a null pointer.
        unsafe { http_set_header(self.stream, map.number(), Buffer::of(name), Buffer::EMPTY) }
    }

    /// Sets a filter state object of the type that Envoy has for `key`; `false` if Envoy does not.
    pub(crate) fn set_typed_state(&mut self, key: &str, value: &[u8]) -> bool {
        let (key, value) = (Buffer::of(key.as_bytes()), Buffer::of(value));
        // SAFETY: Envoy copies both.
        unsafe { http_set_filter_state_typed(self.stream, key, value) }
    }

    /// Sets a filter state object of bytes; `false` if Envoy does not.
    pub(crate) fn set_state(&mut self, key: &str, value: &[u8]) -> bool {
        let (key, value) = (Buffer::of(key.as_bytes()), Buffer::of(value));
        // SAFETY: Envoy copies both.
        unsafe { http_set_filter_state_bytes(self.stream, key, value) }
    }

    /// A filter state object of bytes; `None` if it is absent.
    pub(crate) fn state(&self, key: &str) -> Option<&[u8]> {
        let mut value = Buffer::EMPTY;
        // SAFETY: as for `header`.
        unsafe { http_get_filter_state_bytes(self.stream, Buffer::of(key.as_bytes()), &raw mut value).then(|| value.bytes()) }
    }

    /// Has Envoy choose the request's route again.
    pub(crate) fn choose_route_again(&mut self) {
        // SAFETY: the stream is alive.
        unsafe { http_clear_route_cache(self.stream) };
    }

    /// An attribute that is a text; `None` if it is absent.
    pub(crate) fn text(&self, attribute: Attribute) -> Option<&[u8]> {
        let mut value = Buffer::EMPTY;
        // SAFETY: as for `header`.
        unsafe {
            let id = attribute as u32;
            let found = http_filter_get_attribute_string(self.stream, id, &raw mut value);
            found.then(|| value.bytes())
        }
    }

    /// An attribute that is a number; `None` if it is absent.
    pub(crate) fn number(&self, attribute: Attribute) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the result is written before Envoy returns.
        let found = unsafe { http_filter_get_attribute_int(self.stream, attribute as u32, &raw mut value) };
        found.then_some(value)
    }

    /// Responds. `details` are the response code details; Envoy writes some of its own if they are empty.
    pub(crate) fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8], details: &str) {
        let bytes = |text: &str| Buffer::of(text.as_bytes());
        let mut pairs: Vec<_> =
            headers.iter().map(|(key, value)| HttpHeader { key: bytes(key), value: bytes(value) }).collect();
        let (pointer, count, body) = (pairs.as_mut_ptr(), pairs.len(), Buffer::of(body));
        // SAFETY: Envoy copies everything.
        unsafe { http_send_response(self.stream, status.into(), pointer, count, body, bytes(details)) };
    }

    /// How many bytes of the request's body have arrived: those that are kept, and those that this hook is called for.
    pub(crate) fn body_size(&self) -> usize {
        // SAFETY: it takes numbers only.
        let size = |kind| unsafe { http_get_body_size(self.stream, kind) };
        size(BUFFERED_REQUEST_BODY).saturating_add(size(RECEIVED_REQUEST_BODY))
    }

    /// The first bytes of the request's body, at most `most` of those that are there.
    pub(crate) fn body(&self, most: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(most.min(self.body_size()));
        for kind in [BUFFERED_REQUEST_BODY, RECEIVED_REQUEST_BODY] {
            self.read(kind, most, &mut body);
        }
        body
    }

    /// Drops what Envoy keeps of the request's body.
    pub(crate) fn drop_kept_body(&mut self) {
        // SAFETY: Envoy drains no more than there is.
        let _ = unsafe { http_drain_body(self.stream, BUFFERED_REQUEST_BODY, usize::MAX) };
    }

    /// Appends a body to `read`, until that has `most` bytes.
    fn read(&self, kind: u32, most: usize, read: &mut Vec<u8>) {
        // SAFETY: Envoy fills as many chunks as it has told; each lives until the hook returns.
        unsafe {
            let size = http_get_body_chunks_size(self.stream, kind);
            let mut chunks = vec![Buffer::EMPTY; size];
            if size > 0 && http_get_body_chunks(self.stream, kind, chunks.as_mut_ptr()) {
                for chunk in chunks {
                    let bytes = chunk.bytes();
                    let left = most.saturating_sub(read.len());
                    read.extend_from_slice(bytes.get(..left).unwrap_or(bytes));
                }
            }
        }
    }

    /// The part of the response's body that this hook is called for.
    pub(crate) fn response_part(&self) -> Vec<u8> {
        let mut part = Vec::new();
        self.read(RECEIVED_RESPONSE_BODY, usize::MAX, &mut part);
        part
    }

    /// Replaces the part of the response's body that this hook is called for by `new`.
    pub(crate) fn replace_response_part(&mut self, new: &[u8]) {
        // SAFETY: Envoy copies the bytes, and drains no more than there are.
        unsafe {
            let _ = http_drain_body(self.stream, RECEIVED_RESPONSE_BODY, usize::MAX);
            if !new.is_empty() {
                let _ = http_append_body(self.stream, RECEIVED_RESPONSE_BODY, Buffer::of(new));
            }
        }
    }

    /// Adds `new` to the response's body, before its trailers, which this hook is called for.
    pub(crate) fn add_response_body(&mut self, new: &[u8]) {
        // SAFETY: Envoy copies the bytes.
        let _ = unsafe { http_append_body(self.stream, BUFFERED_RESPONSE_BODY, Buffer::of(new)) };
    }

    /// Adds 1 to a counter.
    pub(crate) fn count(&self, metric: Metric, label: Option<&str>) {
        self.change(http_filter_increment_counter, metric, label, 1);
    }

    /// Adds 1 to a gauge.
    pub(crate) fn raise(&self, metric: Metric) {
        self.change(http_filter_increment_gauge, metric, None, 1);
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, metric: Metric, value: u64) {
        self.change(http_filter_set_gauge, metric, None, value);
    }

    fn change(&self, change: ChangeMetric, Metric(id): Metric, label: Option<&str>, value: u64) {
        let mut labels = label.map(|label| Buffer::of(label.as_bytes()));
        let pointer = labels.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
        // SAFETY: the metric is one of the stream's configuration; Envoy copies the label. It can only fail where `define` has.
        let _ = unsafe { change(self.stream, id, pointer, labels.iter().len(), value) };
    }

    /// A scheduler, which calls [`crate::filter::Stream::on_scheduled`] from any thread; `None` if Envoy has none for this stream.
    pub(crate) fn scheduler(&self) -> Option<Scheduler> {
        // SAFETY: the stream is alive.
        let scheduler = unsafe { http_filter_scheduler_new(self.stream) };
        (!scheduler.is_null()).then_some(Scheduler(scheduler))
    }
}

/// Calls a stream on its worker. It may outlive the stream, and does nothing then.
#[derive(Debug)]
pub(crate) struct Scheduler(Ptr);

// SAFETY: Envoy allows a commit from any thread, and it is dropped once.
unsafe impl Send for Scheduler {}

impl Scheduler {
    /// Has the stream's worker call it soon, with this number.
    pub(crate) fn call(&self, number: u64) {
        // SAFETY: it is deleted only when it is dropped.
        unsafe { http_filter_scheduler_commit(self.0, number) };
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // SAFETY: it was made by `Host::scheduler` and is no longer used.
        unsafe { http_filter_scheduler_delete(self.0) };
    }
}
