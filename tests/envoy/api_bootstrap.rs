//! Bootstrap routes, and an admin VM that crashes and loses nothing.

use std::path::Path;
use std::time::Duration;

use harness::proto::{self, DEPLOYMENT_ID, Empty};
use harness::{RouteApi, agents, wait};
use http_body_util::{BodyExt, Full};
use reqwest::{Body, Method};
use serde_json::{Value, json};

use crate::api::Api;
use crate::api_configuration::with_admin;
use crate::clients::http2;

#[tokio::test]
async fn bootstrap_routes_are_loaded_at_the_start_and_replaced_by_a_push() {
    let agent = agents::echo::start("a").unwrap();
    let settings = format!(r#""bootstrap_routes": {{"a": {}, "b": {{"port": 2001, "state": "draining"}}}}"#, agent.port());
    let mut envoy = with_admin(&settings).start().await.unwrap();
    let api = Api::open(&envoy).await;
    let status = api.call("GET", "/v1/status", "").await.json().unwrap();
    // Each VM has them in its configuration. Only the first one stored them.
    assert_eq!((&status["generation"], &status["routes"], &status["loaded"]), (&1.into(), &2.into(), &true.into()));
    let response: Value = http2().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap().json().await.unwrap();
    assert_eq!(response["agent"], "a");

    assert_eq!(api.call("PUT", "/v1/routes", r#"{"routes":{"c":2002}}"#).await.status, 200);
    assert_eq!(api.map().await["routes"], json!({"c": {"port": 2002, "state": "active"}}));
    // A new process has no map, so they are stored again.
    envoy.restart().await.unwrap();
    let map = Api::open(&envoy).await.map().await;
    let routes = json!({"a": {"port": agent.port(), "state": "active"}, "b": {"port": 2001, "state": "draining"}});
    assert_eq!((&map["routes"], &map["generation"]), (&routes, &1.into()));
    assert_ne!(map["epoch"], status["epoch"]);
}

/// A map without routes is not the same as no map.
#[tokio::test]
async fn an_empty_bootstrap_map_counts_as_loaded() {
    let envoy = with_admin("\"bootstrap_routes\": {}").start().await.unwrap();
    assert_eq!(envoy.routes().status().await.unwrap().json().unwrap()["loaded"], true);
    let response = http2().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap();
    assert_eq!(response.headers()["x-pixell-error"], "unknown_deployment");
}

#[tokio::test]
async fn a_crash_of_the_admin_vm_loses_nothing() {
    let modules = tempfile::tempdir().unwrap();
    trap_on_trailers(modules.path());
    let agent = agents::grpc::start("a").unwrap();
    let envoy = with_admin("\"bootstrap_routes\": {\"boot\": 2000}").modules(modules.path()).start().await.unwrap();
    let api = Api::open(&envoy).await;
    let pushed = json!({"routes": {"a": agent.port()}}).to_string();
    assert_eq!(api.call("PUT", "/v1/routes", &pushed).await.status, 200);
    let before = api.map().await;
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    let health = async |client: &mut proto::AgentServiceClient<_>| {
        client.health(proto::request_to("a", Empty {}).unwrap()).await.unwrap().into_inner().message
    };
    assert_eq!(health(&mut client).await, "a");

    // Until the VMs of both workers have crashed.
    let reloads = async || envoy.stats().await.unwrap().sum(r"^wasm\..*\.vm_reload_success$").unwrap();
    for lost in 1..=20 {
        let trailers = async {
            Some(Ok(http::HeaderMap::from_iter([(
                http::HeaderName::from_static("x-end"),
                http::HeaderValue::from_static("1"),
            )])))
        };
        let body = Body::wrap(Full::new(bytes::Bytes::from(r#"{"routes":{}}"#)).with_trailers(trailers));
        let request = http2().request(Method::PUT, envoy.api_url() + "/v1/routes").header("content-type", "application/json");
        let response = RouteApi::send(request.body(body)).await;
        assert!(response.is_err() || response.is_ok_and(|response| response.status.as_u16() == 503), "the VM crashed");
        assert_eq!(health(&mut client).await, "a", "the data path has its own VMs");
        // The API comes back by itself, on both workers.
        wait::until("the route API", Duration::from_secs(20), async || {
            let responses = [api.next().routes().await, api.next().routes().await];
            Ok(responses.into_iter().all(|response| response.is_ok_and(|response| response.status == 200)).then_some(()))
        })
        .await
        .unwrap();
        assert_eq!(api.map().await, before, "the map is neither lost nor replaced by the bootstrap routes");
        if reloads().await >= 4 {
            break;
        }
        assert!(lost < 20, "no VM was reloaded");
    }
    assert_eq!(api.call("PUT", "/v1/routes/b", "2001").await.status, 201);
    assert_eq!(api.map().await["generation"], before["generation"].as_u64().unwrap() + 1);
}

/// Writes the modules to `directory`. The admin module there traps at a request with trailers.
fn trap_on_trailers(directory: &Path) {
    const CALLBACK: &str = "proxy_on_request_trailers";
    let built = harness::envoy::modules::locate().unwrap();
    for name in harness::envoy::modules::NAMES {
        std::fs::copy(built.join(name), directory.join(name)).unwrap();
    }
    let mut module = walrus::Module::from_file(built.join("admin.wasm")).unwrap();
    let callback = module.exports.get_func(CALLBACK).unwrap();
    let (parameters, results) = module.types.params_results(module.funcs.get(callback).ty());
    let (parameters, results) = (parameters.to_vec(), results.to_vec());
    let mut trap = walrus::FunctionBuilder::new(&mut module.types, &parameters, &results);
    trap.func_body().unreachable();
    let arguments = parameters.iter().map(|kind| module.locals.add(*kind)).collect();
    let trap = trap.finish(arguments, &mut module.funcs);
    module.exports.remove(CALLBACK).unwrap();
    module.exports.add(CALLBACK, trap);
    module.emit_wasm_file(directory.join("admin.wasm")).unwrap();
}
