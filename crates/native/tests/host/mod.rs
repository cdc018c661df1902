//! A stand-in for Envoy: the callbacks of the module, and streams that a test drives. With it the module's border runs under
//! AddressSanitizer, which Envoy itself is not built with.
#![allow(unsafe_code, reason = "the other side of the border to C")]
#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

mod callbacks;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::panic;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use pixell_native::abi::{self, Buffer};
use pixell_native::abi_types::{DataStatus, Status};

/// What the module has written to the log.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Streams that a scheduler was asked to call, by their number, and with which number.
static CALLS: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The module keeps its maps in the process, as Envoy's workers share them, so tests of one process have to take turns.
pub(crate) fn take_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    lock(&TURN)
}

/// Begins the module. Its hook keeps the message of a panic to itself; here the message is printed, too, or a failed test would not say
/// why it failed.
fn begin() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        abi::program_init();
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            eprintln!("{panic}");
            hook(panic);
        }));
    });
}

/// The lines of the log that tell of a panic.
pub(crate) fn panics() -> Vec<String> {
    lock(&LOG).iter().filter(|line| line.contains("panic")).cloned().collect()
}

fn buffer(bytes: &[u8]) -> Buffer {
    Buffer { ptr: bytes.as_ptr().cast(), length: bytes.len() }
}

/// Envoy's side of a configuration, and the module's.
pub(crate) struct Filter {
    envoy: *mut Config,
    module: *const c_void,
}

/// The metrics of a configuration, by the number that the module knows them by.
#[derive(Default)]
struct Config {
    metrics: Vec<(String, BTreeMap<String, u64>)>,
}

impl Filter {
    /// Configures a filter; `None` if the module rejects it.
    pub(crate) fn configure(name: &str, configuration: &str) -> Option<Self> {
        begin();
        let envoy = Box::into_raw(Box::<Config>::default());
        let module = abi::http_filter_config_new(envoy.cast(), buffer(name.as_bytes()), buffer(configuration.as_bytes()));
        let filter = Self { envoy, module };
        if module.is_null() { None } else { Some(filter) }
    }

    /// What a metric has counted, under whatever label.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        // SAFETY: it lives as long as the filter, and no hook runs.
        let config = unsafe { &*self.envoy };
        config.metrics.iter().filter(|(known, _)| known == name).flat_map(|(_, values)| values.values()).sum()
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if !self.module.is_null() {
            abi::http_filter_config_destroy(self.module);
        }
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(self.envoy) });
    }
}

/// A response that the module has sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u32,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Envoy's side of a stream.
#[derive(Default)]
struct Envoy {
    number: u64,
    config: Option<*mut Config>,
    module: Option<*const c_void>,
    headers: Vec<(String, Vec<u8>)>,
    kept: Vec<u8>,
    arrived: Vec<Vec<u8>>,
    response_headers: Vec<(String, Vec<u8>)>,
    response_trailers: Vec<(String, Vec<u8>)>,
    /// The part of the response's body that a hook is called for, in pieces.
    responded: Vec<Vec<u8>>,
    /// What the client has got of the response's body.
    response_body: Vec<u8>,
    state: BTreeMap<String, Vec<u8>>,
    upstream: Option<Vec<u8>>,
    response: Option<Response>,
    /// Whether a response ends the stream at once, while the hook that sent it still runs.
    ends_with_response: bool,
}

impl Envoy {
    /// The pieces of a body.
    fn body(&self, kind: u32) -> Vec<&[u8]> {
        match kind {
            0 => self.arrived.iter().map(Vec::as_slice).collect(),
            1 if self.kept.is_empty() => Vec::new(),
            1 => vec![&self.kept],
            2 => self.responded.iter().map(Vec::as_slice).collect(),
            _ => Vec::new(),
        }
    }
}

/// A stream that a test drives.
pub(crate) struct Stream(*mut Envoy);

impl Stream {
    /// Begins a stream with these headers.
    pub(crate) fn open(filter: &Filter, number: u64, headers: Vec<(String, Vec<u8>)>, ends_with_response: bool) -> Self {
        let envoy = Envoy { number, config: Some(filter.envoy), headers, ends_with_response, ..Envoy::default() };
        let envoy = Box::into_raw(Box::new(envoy));
        let module = abi::http_filter_new(filter.module, envoy.cast());
        assert!(!module.is_null());
        let stream = Self(envoy);
        stream.with(|envoy| envoy.module = Some(module));
        stream
    }

    fn with<T>(&self, change: impl FnOnce(&mut Envoy) -> T) -> T {
        // SAFETY: it lives as long as the stream, and no other reference is held across a hook.
        change(unsafe { &mut *self.0 })
    }

    /// The module's side; `None` once the stream has ended.
    fn module(&self) -> Option<*const c_void> {
        self.with(|envoy| envoy.module)
    }

    /// Has an agent's address as the upstream.
    pub(crate) fn set_upstream(&self, address: &str) {
        self.with(|envoy| envoy.upstream = Some(address.into()));
    }

    pub(crate) fn head(&self, ends: bool) -> Option<Status> {
        Some(abi::http_filter_request_headers(self.0.cast(), self.module()?, ends))
    }

    /// A part of the body, in pieces.
    pub(crate) fn part(&self, pieces: &[&[u8]], ends: bool) -> Option<DataStatus> {
        let module = self.module()?;
        self.with(|envoy| envoy.arrived = pieces.iter().map(|piece| piece.to_vec()).collect());
        let status = abi::http_filter_request_body(self.0.cast(), module, ends);
        self.with(|envoy| {
            let arrived = std::mem::take(&mut envoy.arrived).concat();
            if status == DataStatus::StopAndKeep {
                envoy.kept.extend(arrived);
            }
        });
        Some(status)
    }

    pub(crate) fn trailers(&self) -> Option<Status> {
        Some(abi::http_filter_request_trailers(self.0.cast(), self.module()?))
    }

    /// The head of the agent's response.
    pub(crate) fn response_head_of(&self, headers: Vec<(String, Vec<u8>)>) -> Option<Status> {
        self.with(|envoy| envoy.response_headers = headers);
        self.response_head()
    }

    /// A part of the body of the agent's response, in pieces.
    pub(crate) fn response_part(&self, pieces: &[&[u8]], ends: bool) {
        let Some(module) = self.module() else { return };
        self.with(|envoy| envoy.responded = pieces.iter().map(|piece| piece.to_vec()).collect());
        abi::http_filter_response_body(self.0.cast(), module, ends);
        self.with(|envoy| {
            let sent = std::mem::take(&mut envoy.responded).concat();
            envoy.response_body.extend(sent);
        });
    }

    pub(crate) fn response_trailers(&self) {
        if let Some(module) = self.module() {
            abi::http_filter_response_trailers(self.0.cast(), module);
        }
    }

    /// The trailers of the agent's response; returns what the filter makes of them.
    pub(crate) fn response_trailers_of(&self, trailers: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
        self.with(|envoy| envoy.response_trailers = trailers);
        self.response_trailers();
        self.with(|envoy| envoy.response_trailers.clone())
    }

    /// What the client gets of the agent's response: its headers and its body.
    pub(crate) fn received(&self) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
        self.with(|envoy| (envoy.response_headers.clone(), envoy.response_body.clone()))
    }

    /// Sets a filter state object, as another filter does.
    pub(crate) fn set_state(&self, key: &str, value: Vec<u8>) {
        self.with(|envoy| envoy.state.insert(key.to_owned(), value));
    }

    pub(crate) fn response_head(&self) -> Option<Status> {
        Some(abi::http_filter_response_headers(self.0.cast(), self.module()?, false))
    }

    /// The call that a scheduler was asked for, with its number.
    pub(crate) fn scheduled(&self, number: u64) {
        if let Some(module) = self.module() {
            abi::http_filter_scheduled(self.0.cast(), module, number);
        }
    }

    pub(crate) fn response(&self) -> Option<Response> {
        self.with(|envoy| envoy.response.clone())
    }

    /// A filter state object.
    pub(crate) fn state(&self, key: &str) -> Option<Vec<u8>> {
        self.with(|envoy| envoy.state.get(key).cloned())
    }

    /// The value of a request header as the next filter sees it.
    pub(crate) fn header(&self, name: &str) -> Option<Vec<u8>> {
        self.with(|envoy| envoy.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    }

    /// Ends the stream, as Envoy does whenever it likes.
    pub(crate) fn end(&self) {
        end(self.0);
    }
}

/// Ends a stream, at most once.
fn end(envoy: *mut Envoy) {
    // SAFETY: it lives as long as the `Stream`.
    if let Some(module) = unsafe { (*envoy).module.take() } {
        abi::http_filter_stream_complete(envoy.cast(), module);
        abi::http_filter_destroy(module);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// The streams that were to be called since the last time, each with the number of the call.
pub(crate) fn take_calls() -> Vec<(u64, u64)> {
    std::mem::take(&mut *lock(&CALLS))
}
