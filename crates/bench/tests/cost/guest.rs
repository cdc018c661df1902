//! Runs a built module in an interpreter that counts its instructions, its host calls and the bytes between it and the host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pixell_core::filter_state::{self, in_wasm};
use serde_json::Value;
use wasmi::{Caller, Config, Engine, Error, Extern, Func, Instance, Linker, Module, Store, Val};

use crate::host::{CAS_MISMATCH, Host, NOT_FOUND, OK};

/// What the filter of responses gets from the router's.
const NOTE: &str = in_wasm(filter_state::ROUTE);

/// The cost of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost {
    /// Instructions, as the interpreter counts them.
    pub(crate) fuel: u64,
    /// Host calls by name.
    pub(crate) calls: BTreeMap<String, u64>,
    /// Bytes that the host wrote into memory that the module allocated.
    pub(crate) bytes_in: u64,
    /// Bytes of shared data that the module passed to the host.
    pub(crate) bytes_out: u64,
}

/// A response that the module made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: i32,
    #[expect(dead_code, reason = "shown if a test fails")]
    pub(crate) body: String,
}

/// A running module.
pub(crate) struct Guest {
    store: Store<State>,
    instance: Instance,
    next_context: i32,
}

/// The host's state of one module and of its request in flight.
struct State {
    host: Rc<RefCell<Host>>,
    configuration: Vec<u8>,
    properties: BTreeMap<Vec<u8>, Vec<u8>>,
    body: Vec<u8>,
    /// Headers of an agent's response, as the ABI hands them over.
    sent: Vec<u8>,
    /// What the router's filter leaves to that of responses.
    note: Vec<u8>,
    cost: Cost,
    response: Response,
    foreign: Vec<u8>,
}

const ROOT: i32 = 1;
const PLENTY: u64 = u64::MAX / 2;

/// The bytes of a built module.
pub(crate) fn module(name: &str) -> Vec<u8> {
    let directory = harness::envoy::modules::locate().unwrap();
    std::fs::read(directory.join(name)).unwrap()
}

impl Guest {
    /// Loads the module `name` and configures it.
    pub(crate) fn start(name: &str, configuration: &Value, host: Rc<RefCell<Host>>) -> Self {
        let mut config = Config::default();
        config.consume_fuel(true);
        let engine = Engine::new(&config);
        let module = Module::new(&engine, module(name)).unwrap();
        let configuration = configuration.to_string().into_bytes();
        let (properties, body, foreign) = (BTreeMap::new(), Vec::new(), Vec::new());
        let (sent, note, cost, response) = (Vec::new(), Vec::new(), Cost::default(), Response::default());
        let state = State { host, configuration, properties, body, sent, note, foreign, cost, response };
        let mut store = Store::new(&engine, state);
        store.set_fuel(PLENTY).unwrap();
        let mut linker = Linker::new(&engine);
        for import in module.imports() {
            let name = import.name().to_owned();
            let kind = import.ty().func().unwrap().clone();
            let function =
                Func::new(&mut store, kind, move |caller, arguments, results| dispatch(&name, caller, arguments, results));
            linker.define(import.module(), import.name(), function).unwrap();
        }
        let instance = linker.instantiate_and_start(&mut store, &module).unwrap();
        let mut guest = Self { store, instance, next_context: ROOT + 1 };
        guest.enter("_initialize", &[]);
        guest.enter("proxy_on_context_create", &[ROOT, 0]);
        assert_eq!(guest.enter("proxy_on_vm_start", &[ROOT, 0]), 1);
        let length = i32::try_from(guest.store.data().configuration.len()).unwrap();
        assert_eq!(guest.enter("proxy_on_configure", &[ROOT, length]), 1, "{name} does not accept its configuration");
        guest
    }

    /// Sends a request on the data path. Returns its cost, and the address that it is forwarded to.
    pub(crate) fn forward(&mut self, id: &str) -> (Cost, Option<String>) {
        let cost = self.stream(&[("request\0headers\0x-deployment-id", id)], "");
        let argument = std::mem::take(&mut self.store.data_mut().foreign);
        // The argument holds the filter state's name, the address and the span. No other part of it looks like an address.
        let text = String::from_utf8_lossy(&argument).into_owned();
        let mut parts = text.split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':')));
        let address = parts.find(|part| part.contains(':')).map(str::to_owned);
        (cost, address)
    }

    /// A request on the data path that its path addresses: what it cost, and the note for the filter of responses.
    pub(crate) fn forward_by_path(&mut self, path: &str) -> (Cost, Vec<u8>) {
        let cost = self.stream(
            &[
                ("request\0path", path),
                ("request\0host", "agents.example.com"),
                ("request\0method", "GET"),
                ("request\0headers\0x-forwarded-proto", "http"),
            ],
            "",
        );
        (cost, std::mem::take(&mut self.store.data_mut().note))
    }

    /// A response with these headers, in the filter of responses: what it cost.
    pub(crate) fn respond(&mut self, note: &[u8], headers: &[(&str, &str)]) -> Cost {
        let state = self.store.data_mut();
        let of_response = |(name, value): &(&str, &str)| (format!("response\0headers\0{name}").into(), (*value).into());
        state.properties = headers.iter().map(of_response).chain([(NOTE.into(), note.to_vec())]).collect();
        state.sent = pairs(headers);
        state.cost = Cost::default();
        self.store.set_fuel(PLENTY).unwrap();
        let context = self.next_context;
        self.next_context += 1;
        self.enter("proxy_on_context_create", &[context, ROOT]);
        self.enter("proxy_on_response_headers", &[context, i32::try_from(headers.len()).unwrap(), 1]);
        self.enter("proxy_on_delete", &[context]);
        let fuel = PLENTY - self.store.get_fuel().unwrap();
        Cost { fuel, ..std::mem::take(&mut self.store.data_mut().cost) }
    }

    /// Sends a request to the route API. Returns its cost and the response.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &str) -> (Cost, Response) {
        let length = body.len().to_string();
        let properties = [
            ("request\0path", path),
            ("request\0method", method),
            ("request\0host", "127.0.0.1"),
            ("request\0headers\0content-type", "application/json"),
            ("request\0headers\0content-length", length.as_str()),
        ];
        let cost = self.stream(&properties, body);
        (cost, std::mem::take(&mut self.store.data_mut().response))
    }

    fn stream(&mut self, properties: &[(&str, &str)], body: &str) -> Cost {
        let state = self.store.data_mut();
        state.properties =
            properties.iter().map(|(path, value)| (path.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        state.body = body.as_bytes().to_vec();
        state.cost = Cost::default();
        self.store.set_fuel(PLENTY).unwrap();
        let context = self.next_context;
        self.next_context += 1;
        self.enter("proxy_on_context_create", &[context, ROOT]);
        let headers = i32::try_from(properties.len()).unwrap();
        self.enter("proxy_on_request_headers", &[context, headers, i32::from(body.is_empty())]);
        if !body.is_empty() {
            self.enter("proxy_on_request_body", &[context, i32::try_from(body.len()).unwrap(), 1]);
        }
        // Like Envoy, call this only if the module exports it.
        if self.instance.get_func(&self.store, "proxy_on_delete").is_some() {
            self.enter("proxy_on_delete", &[context]);
        }
        let fuel = PLENTY - self.store.get_fuel().unwrap();
        Cost { fuel, ..std::mem::take(&mut self.store.data_mut().cost) }
    }

    /// Calls an export and returns its result, or 0 if it has none.
    fn enter(&mut self, export: &str, arguments: &[i32]) -> i32 {
        let function = self.instance.get_func(&self.store, export).unwrap_or_else(|| panic!("no export {export}"));
        let arguments: Vec<_> = arguments.iter().copied().map(Val::I32).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        function.call(&mut self.store, &arguments, &mut results).unwrap_or_else(|error| panic!("{export}: {error}"));
        results.first().and_then(Val::i32).unwrap_or_default()
    }
}

/// Headers as the ABI hands them over: their number, the lengths of each name and value, and these, each with a NUL.
fn pairs(headers: &[(&str, &str)]) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).unwrap().to_le_bytes();
    let mut bytes = u32::try_from(headers.len()).unwrap().to_le_bytes().to_vec();
    for (name, value) in headers {
        bytes.extend([length(name), length(value)].concat());
    }
    for (name, value) in headers {
        bytes.extend(format!("{name}\0{value}\0").bytes());
    }
    bytes
}

/// Counts a host call and carries it out.
fn dispatch(name: &str, mut caller: Caller<'_, State>, arguments: &[Val], results: &mut [Val]) -> Result<(), Error> {
    *caller.data_mut().cost.calls.entry(name.to_owned()).or_default() += 1;
    let number = |at: usize| arguments.get(at).and_then(Val::i32).unwrap_or_default();
    let mut border = Border(caller);
    let status = match name {
        "proxy_log" => {
            println!("{}", String::from_utf8_lossy(&border.read(number(1), number(2))));
            OK
        }
        // There are no ticks here.
        "proxy_set_tick_period_milliseconds" => OK,
        "proxy_get_property" => {
            let path = border.read(number(0), number(1));
            let value = border.0.data().properties.get(&path).cloned();
            border.give(value, number(2), number(3))
        }
        "proxy_get_header_map_value" => {
            const REQUEST: i32 = 0;
            let side: &[u8] = if number(0) == REQUEST { b"request\0" } else { b"response\0" };
            let name = border.read(number(1), number(2));
            let path = match name.as_slice() {
                b":path" => [side, b"path"].concat(),
                b":method" => [side, b"method"].concat(),
                b":authority" => [side, b"host"].concat(),
                name => [side, b"headers\0", name].concat(),
            };
            let value = border.0.data().properties.get(&path).cloned();
            border.give(value, number(3), number(4))
        }
        "proxy_get_buffer_bytes" => {
            const BODY: i32 = 0;
            let state = border.0.data();
            let whole = if number(0) == BODY { &state.body } else { &state.configuration };
            let part = whole.iter().skip(number(1) as u32 as usize).take(number(2) as u32 as usize).copied().collect();
            border.give(Some(part), number(3), number(4))
        }
        "proxy_get_shared_data" => {
            let key = border.read(number(0), number(1));
            let found = border.host(|host| host.get(&key));
            if let Some((_, cas)) = &found {
                border.write(number(4), &cas.to_le_bytes());
            }
            border.give(found.map(|(value, _)| value), number(2), number(3))
        }
        "proxy_set_shared_data" => {
            let (key, value) = (border.read(number(0), number(1)), border.read(number(2), number(3)));
            border.0.data_mut().cost.bytes_out += value.len() as u64;
            let status = border.host(|host| host.set(key, value, number(4) as u32));
            assert!(status != CAS_MISMATCH, "there is one writer");
            status
        }
        "proxy_define_metric" => {
            let metric = border.read(number(1), number(2));
            let id = border.host(|host| host.define(&metric));
            border.write(number(3), &id.to_le_bytes());
            OK
        }
        "proxy_get_metric" => {
            let value = border.host(|host| *host.metric(number(0) as u32));
            border.write(number(1), &value.to_le_bytes());
            OK
        }
        "proxy_increment_metric" => {
            let by = arguments.get(1).and_then(Val::i64).unwrap_or_default();
            border.host(|host| *host.metric(number(0) as u32) += by as u64);
            OK
        }
        "proxy_record_metric" => {
            let value = arguments.get(1).and_then(Val::i64).unwrap_or_default();
            border.host(|host| *host.metric(number(0) as u32) = value as u64);
            OK
        }
        "proxy_get_current_time_nanoseconds" => {
            let now = border.host(Host::now);
            border.write(number(0), &now.to_le_bytes());
            OK
        }
        "clock_time_get" => {
            let now = border.host(Host::now);
            border.write(number(2), &now.to_le_bytes());
            OK
        }
        "proxy_call_foreign_function" => {
            let argument = border.read(number(2), number(3));
            // The other call of this function sets the deployment, for the connection pools.
            if argument.windows(17).any(|part| part == b"original_dst_addr") {
                border.0.data_mut().foreign = argument;
            }
            OK
        }
        "proxy_send_local_response" => {
            let body = String::from_utf8_lossy(&border.read(number(3), number(4))).into_owned();
            border.0.data_mut().response = Response { status: number(0), body };
            OK
        }
        "environ_sizes_get" => {
            border.write(number(0), &[0; 4]);
            border.write(number(1), &[0; 4]);
            OK
        }
        "proxy_get_header_map_pairs" => {
            let pairs = border.0.data().sent.clone();
            border.give(Some(pairs), number(1), number(2))
        }
        "proxy_set_property" => {
            // Only Envoy's access log reads the others.
            if border.read(number(0), number(1)).starts_with(NOTE.as_bytes()) {
                border.0.data_mut().note = border.read(number(2), number(3));
            }
            OK
        }
        "proxy_replace_header_map_value" | "proxy_add_header_map_value" | "proxy_remove_header_map_value" | "environ_get" => OK,
        "random_get" => {
            border.write(number(0), &vec![7; number(1) as usize]);
            OK
        }
        other => return Err(Error::new(format!("the stand-in for Envoy does not have the host call {other}: add it"))),
    };
    if let Some(result) = results.first_mut() {
        *result = Val::I32(status);
    }
    Ok(())
}

/// Access to the module's memory for host calls.
struct Border<'a>(Caller<'a, State>);

impl Border<'_> {
    fn host<T>(&mut self, act: impl FnOnce(&mut Host) -> T) -> T {
        act(&mut self.0.data().host.borrow_mut())
    }

    fn read(&self, at: i32, length: i32) -> Vec<u8> {
        let mut bytes = vec![0; length as u32 as usize];
        self.memory().read(&self.0, at as u32 as usize, &mut bytes).unwrap();
        bytes
    }

    fn write(&mut self, at: i32, bytes: &[u8]) {
        self.memory().write(&mut self.0, at as u32 as usize, bytes).unwrap();
    }

    /// Passes `value` to the module, in memory that the module allocates for it.
    fn give(&mut self, value: Option<Vec<u8>>, pointer_at: i32, length_at: i32) -> i32 {
        let Some(value) = value else { return NOT_FOUND };
        self.0.data_mut().cost.bytes_in += value.len() as u64;
        let mut pointer = 0;
        if !value.is_empty() {
            let allocate = self.0.get_export("proxy_on_memory_allocate").and_then(Extern::into_func).unwrap();
            let mut results = [Val::I32(0)];
            allocate.call(&mut self.0, &[Val::I32(i32::try_from(value.len()).unwrap())], &mut results).unwrap();
            pointer = results[0].i32().unwrap();
            self.write(pointer, &value);
        }
        self.write(pointer_at, &pointer.to_le_bytes());
        self.write(length_at, &u32::try_from(value.len()).unwrap().to_le_bytes());
        OK
    }

    fn memory(&self) -> wasmi::Memory {
        self.0.get_export("memory").and_then(Extern::into_memory).unwrap()
    }
}
