//! The route API on a route map in memory.

use pixell_core::admin::call::Head;
use pixell_core::admin::response::Response;
use pixell_core::admin::{Begun, RouteApi};
use pixell_core::config::AdminConfig;
use pixell_core::store::memory::{MemoryData, MemorySignal};
use pixell_core::store::{Backend, ChangeSignal, ROUTE_MAP, prepare};
use pixell_core::timestamp::Timestamp;
use serde_json::Value;

/// The route API with small limits, and its route map.
pub(crate) struct Server {
    api: RouteApi,
    data: MemoryData,
    signal: MemorySignal,
}

impl Server {
    pub(crate) fn new() -> Self {
        let config = AdminConfig::parse(br#"{"role":"admin","max_routes":8,"max_body_bytes":4096}"#).unwrap();
        let server =
            Self { api: RouteApi { config, token: None }, data: MemoryData::default(), signal: MemorySignal::default() };
        prepare(&server.data, &ROUTE_MAP);
        server
    }

    pub(crate) fn call(&self, head: &Head<'_>, body: &[u8]) -> Response {
        let backend = Backend { data: &self.data, signal: &self.signal, new_epoch: || 1, now: Timestamp::default };
        match self.api.begin(head, &backend) {
            Begun::Done(response) => response,
            Begun::NeedsBody(call) => self.api.finish(&call, body, &backend),
        }
    }

    /// Sends a request with a JSON body.
    pub(crate) fn send(&self, method: &str, target: &str, body: &[u8]) -> Response {
        let content_type = Some(b"application/json".as_slice());
        self.call(
            &Head {
                method: method.as_bytes(),
                target: target.as_bytes(),
                host: Some(b"localhost"),
                content_type,
                ..Head::default()
            },
            body,
        )
    }

    /// The whole route map, as the API returns it.
    pub(crate) fn map(&self) -> Value {
        let response = self.send("GET", "/v1/routes", b"");
        assert_eq!(response.status, 200);
        serde_json::from_str(&response.body).unwrap()
    }

    pub(crate) fn signal(&self) -> u64 {
        self.signal.read()
    }
}
