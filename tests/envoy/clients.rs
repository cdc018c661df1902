//! Clients of the data path: what each kind sends, and what it sees of a rejection.

use std::time::Duration;

use harness::Envoy;
use harness::proto::{self, DEPLOYMENT_ID, Empty};
use reqwest::{Client, ClientBuilder};
use serde_json::Value;
use tonic::Code;

/// A client that gives up on a response that does not come, so that the test fails instead of hanging.
fn patient() -> ClientBuilder {
    Client::builder().no_proxy().connect_timeout(Duration::from_secs(60)).read_timeout(Duration::from_secs(120))
}

/// A client of HTTP/1.1 with connections of its own.
pub(crate) fn http1() -> Client {
    patient().http1_only().build().unwrap()
}

/// A client of HTTP/2 with a connection of its own.
pub(crate) fn http2() -> Client {
    patient().http2_prior_knowledge().build().unwrap()
}

/// What a client that does not speak gRPC sees of a rejection: status, code, and the problem document.
pub(crate) async fn rejection(client: &Client, envoy: &Envoy, id: &str) -> (u16, String, Value) {
    let response = client.get(envoy.data_url() + "/any").header(DEPLOYMENT_ID, id).send().await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let (status, code, content_type) = (response.status().as_u16(), header("x-pixell-error"), header("content-type"));
    let body = response.text().await.unwrap();
    assert_eq!(content_type, "application/problem+json", "{status} {body}");
    (status, code, serde_json::from_str(&body).unwrap())
}

/// What a gRPC client sees of a rejection: status, `x-pixell-error`, message.
pub(crate) async fn grpc_rejection(envoy: &Envoy, id: &str) -> (Code, String, String) {
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    let status = client.health(proto::request_to(id, Empty {}).unwrap()).await.unwrap_err();
    let code = status.metadata().get("x-pixell-error").map(|code| code.to_str().unwrap().to_owned()).unwrap_or_default();
    (status.code(), code, status.message().to_owned())
}
