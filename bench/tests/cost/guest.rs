//! A built module in an interpreter that counts: the instructions it runs, the host calls it makes, the bytes that cross.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;
use wasmi::{Caller, Config, Engine, Error, Extern, Func, Instance, Linker, Module, Store, Val};

use crate::host::{CAS_MISMATCH, Host, NOT_FOUND, OK};

/// What one request cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost {
    /// Instructions, as the interpreter weighs them.
    pub(crate) fuel: u64,
    /// Host calls by name.
    pub(crate) calls: BTreeMap<String, u64>,
    /// Bytes of data that the host put into the module's memory.
    pub(crate) bytes_in: u64,
    /// Bytes of shared data that the module handed to the host.
    pub(crate) bytes_out: u64,
}

/// An answer that a module gave itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: i32,
    #[expect(dead_code, reason = "shown where a test fails")]
    pub(crate) body: String,
}

/// A module that runs.
pub(crate) struct Guest {
    store: Store<State>,
    instance: Instance,
    next_context: i32,
}

/// What the host knows of one module and its request under way.
struct State {
    host: Rc<RefCell<Host>>,
    configuration: Vec<u8>,
    properties: BTreeMap<Vec<u8>, Vec<u8>>,
    body: Vec<u8>,
    cost: Cost,
    answer: Answer,
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
        let state = State { host, configuration, properties, body, foreign, cost: Cost::default(), answer: Answer::default() };
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
        assert_eq!(guest.enter("proxy_on_configure", &[ROOT, length]), 1, "{name} refuses its configuration");
        guest
    }

    /// A request on the data path: what it cost, and the address it is forwarded to.
    pub(crate) fn forward(&mut self, id: &str) -> (Cost, Option<String>) {
        let cost = self.stream(&[("request\0headers\0x-deployment-id", id)], "");
        let argument = std::mem::take(&mut self.store.data_mut().foreign);
        // The argument names the filter state, then the address, then the span.
        let text = String::from_utf8_lossy(&argument).into_owned();
        let address = text.find("127.0.0.1:").map(|at| text[at..].trim_end_matches(['\u{18}', '\u{1}']).to_owned());
        (cost, address)
    }

    /// A request to the route API.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &str) -> (Cost, Answer) {
        let length = body.len().to_string();
        let properties = [
            ("request\0path", path),
            ("request\0method", method),
            ("request\0headers\0content-type", "application/json"),
            ("request\0headers\0content-length", length.as_str()),
        ];
        let cost = self.stream(&properties, body);
        (cost, std::mem::take(&mut self.store.data_mut().answer))
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
        // Envoy calls what is exported.
        if self.instance.get_func(&self.store, "proxy_on_delete").is_some() {
            self.enter("proxy_on_delete", &[context]);
        }
        let fuel = PLENTY - self.store.get_fuel().unwrap();
        Cost { fuel, ..std::mem::take(&mut self.store.data_mut().cost) }
    }

    /// Calls an export; gives its result, 0 where it has none.
    fn enter(&mut self, export: &str, arguments: &[i32]) -> i32 {
        let function = self.instance.get_func(&self.store, export).unwrap_or_else(|| panic!("no export {export}"));
        let arguments: Vec<_> = arguments.iter().copied().map(Val::I32).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        function.call(&mut self.store, &arguments, &mut results).unwrap_or_else(|error| panic!("{export}: {error}"));
        results.first().and_then(Val::i32).unwrap_or_default()
    }
}

/// One host call: counted, then carried out.
fn dispatch(name: &str, mut caller: Caller<'_, State>, arguments: &[Val], results: &mut [Val]) -> Result<(), Error> {
    *caller.data_mut().cost.calls.entry(name.to_owned()).or_default() += 1;
    let number = |at: usize| arguments.get(at).and_then(Val::i32).unwrap_or_default();
    let mut border = Border(caller);
    let status = match name {
        "proxy_log" => {
            println!("{}", String::from_utf8_lossy(&border.read(number(1), number(2))));
            OK
        }
        "proxy_get_property" => {
            let path = border.read(number(0), number(1));
            let value = border.0.data().properties.get(&path).cloned();
            border.give(value, number(2), number(3))
        }
        "proxy_get_header_map_value" => {
            let path = [b"request\0headers\0".to_vec(), border.read(number(1), number(2))].concat();
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
        "proxy_call_foreign_function" => {
            border.0.data_mut().foreign = border.read(number(2), number(3));
            OK
        }
        "proxy_send_local_response" => {
            let body = String::from_utf8_lossy(&border.read(number(3), number(4))).into_owned();
            border.0.data_mut().answer = Answer { status: number(0), body };
            OK
        }
        "environ_sizes_get" => {
            border.write(number(0), &[0; 4]);
            border.write(number(1), &[0; 4]);
            OK
        }
        // Access logs read it; nothing here does.
        "proxy_set_property" | "environ_get" => OK,
        "random_get" => {
            border.write(number(0), &vec![7; number(1) as usize]);
            OK
        }
        other => return Err(Error::new(format!("the stand-in for Envoy does not know {other}: teach it"))),
    };
    if let Some(result) = results.first_mut() {
        *result = Val::I32(status);
    }
    Ok(())
}

/// The module's memory, as host calls reach it.
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

    /// Hands `value` to the module, in memory that the module allocates for it.
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
