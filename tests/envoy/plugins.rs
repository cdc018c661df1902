//! Several configurations of the router's filter in one VM: each request is judged by that of its own plugin.

use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents};
use serde_json::{Value, json};

use crate::clients::http1;

/// A filter as an item of `http_filters`. VMs are told apart by `vm_id`, their configuration and their code: all of these share one.
fn filter(id_header: &str) -> String {
    let module = harness::envoy::modules::locate().unwrap().join("router.wasm");
    let filter = json!({
        "name": "router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                // The same for all, as after a listener was updated.
                "name": "router",
                "vm_config": {
                    "vm_id": "pixell",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": module } },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": json!({ "role": "router", "id_headers": [id_header] }).to_string(),
                },
            },
        },
    });
    format!("- {filter}")
}

/// What a request with these ids is answered: the agent's name, or the detail of the refusal.
async fn answer(envoy: &Envoy, first: &str, second: &str) -> String {
    let request = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, first).header("x-second-id", second);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer.get("agent").unwrap_or_else(|| &answer["detail"]).as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_plugin_of_a_vm_goes_by_its_own_configuration() {
    let both = [filter(DEPLOYMENT_ID), filter("x-second-id")].join("\n                  ");
    let envoy = Envoy::builder().data_filter(&both).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    // Several requests, so that both workers get some.
    for _ in 0..8 {
        assert_eq!(answer(&envoy, "a", "a").await, "a");
        assert_eq!(answer(&envoy, "one", "a").await, "Deployment one not found or not ready");
        assert_eq!(answer(&envoy, "a", "two").await, "Deployment two not found or not ready");
    }
    let stats = envoy.stats().await.unwrap();
    assert_eq!(stats.vm_reloads().unwrap(), 0);
}
