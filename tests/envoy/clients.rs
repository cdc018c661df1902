//! Callers of the data path: what each kind sends, and what it sees of a refusal.

use harness::Envoy;
use harness::proto::{self, DEPLOYMENT_ID, Empty};
use reqwest::Client;
use serde_json::Value;
use tonic::Code;

/// A client of HTTP/1.1 with connections of its own.
pub(crate) fn http1() -> Client {
    Client::builder().no_proxy().http1_only().build().unwrap()
}

/// A client of HTTP/2 with a connection of its own.
pub(crate) fn http2() -> Client {
    Client::builder().no_proxy().http2_prior_knowledge().build().unwrap()
}

/// What a caller that does not speak gRPC sees of a refusal: status, code, and the problem document.
pub(crate) async fn refusal(client: &Client, envoy: &Envoy, id: &str) -> (u16, String, Value) {
    let answer = client.get(envoy.data_url() + "/any").header(DEPLOYMENT_ID, id).send().await.unwrap();
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let (status, code, content_type) = (answer.status().as_u16(), header("x-pixell-error"), header("content-type"));
    let body = answer.text().await.unwrap();
    assert_eq!(content_type, "application/problem+json", "{status} {body}");
    (status, code, serde_json::from_str(&body).unwrap())
}

/// What a gRPC caller sees of a refusal: status, `x-pixell-error`, message.
pub(crate) async fn grpc_refusal(envoy: &Envoy, id: &str) -> (Code, String, String) {
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    let status = client.health(proto::request_to(id, Empty {}).unwrap()).await.unwrap_err();
    let code = status.metadata().get("x-pixell-error").map(|code| code.to_str().unwrap().to_owned()).unwrap_or_default();
    (status.code(), code, status.message().to_owned())
}
