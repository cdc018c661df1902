//! Shared data and a signal in memory, and the route API over them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use pixell_router::admin::call::Head;
use pixell_router::admin::reply::Reply;
use pixell_router::admin::{Backend, Begun, RouteApi};
use pixell_router::config::AdminConfig;
use pixell_router::store::{CasMismatch, ChangeSignal, SharedData, prepare};
use serde_json::Value;

#[derive(Default)]
struct Memory(RefCell<BTreeMap<String, (Vec<u8>, u32)>>);

impl SharedData for Memory {
    fn get(&self, key: &str) -> (Vec<u8>, u32) {
        self.0.borrow().get(key).cloned().unwrap_or_default()
    }

    fn now(&self) -> u64 {
        0
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch> {
        let mut entries = self.0.borrow_mut();
        let entry = entries.entry(key.to_owned()).or_default();
        if cas != 0 && cas != entry.1 {
            return Err(CasMismatch);
        }
        *entry = (value.to_vec(), entry.1 + 1);
        Ok(())
    }
}

#[derive(Default)]
struct Signal(Cell<u64>);

impl ChangeSignal for Signal {
    fn read(&self) -> u64 {
        self.0.get()
    }

    fn raise(&self) {
        self.0.set(self.0.get() + 1);
    }
}

/// The route API with small limits, and its map.
pub(crate) struct Server {
    api: RouteApi,
    data: Memory,
    signal: Signal,
}

impl Server {
    pub(crate) fn new() -> Self {
        let config = AdminConfig::parse(br#"{"role":"admin","max_routes":8,"max_body_bytes":4096}"#).unwrap();
        let server = Self { api: RouteApi { config, token: None }, data: Memory::default(), signal: Signal::default() };
        prepare(&server.data);
        server
    }

    pub(crate) fn call(&self, head: &Head<'_>, body: &[u8]) -> Reply {
        let backend = Backend { data: &self.data, signal: &self.signal, new_epoch: || 1 };
        match self.api.begin(head, &backend) {
            Begun::Answered(reply) => reply,
            Begun::NeedsBody(call) => self.api.finish(&call, body, &backend),
        }
    }

    /// A call with a body of JSON.
    pub(crate) fn send(&self, method: &str, target: &str, body: &[u8]) -> Reply {
        let content_type = Some(b"application/json".as_slice());
        self.call(&Head { method: method.as_bytes(), target: target.as_bytes(), content_type, ..Head::default() }, body)
    }

    /// The whole map, as the API gives it.
    pub(crate) fn map(&self) -> Value {
        let reply = self.send("GET", "/v1/routes", b"");
        assert_eq!(reply.status, 200);
        serde_json::from_str(&reply.body).unwrap()
    }

    pub(crate) fn signal(&self) -> u64 {
        self.signal.0.get()
    }
}
