//! Several configurations of the router's filter in one VM, or in one process: each request goes by the configuration of its own plugin.

use harness::envoy::is_native;
use harness::envoy::modules::NATIVE;
use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents};
use serde_json::{Value, json};

use crate::clients::http1;

/// A filter as an item of `http_filters`.
fn filter(id_header: &str) -> String {
    let modules = harness::envoy::modules::locate().unwrap();
    let configuration = json!({
        "@type": "type.googleapis.com/google.protobuf.StringValue",
        "value": json!({ "role": "router", "id_headers": [id_header] }).to_string(),
    });
    let typed_config = if is_native() {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {
                "module": { "local": { "filename": modules.join(NATIVE) } },
                "do_not_close": true,
                "metrics_namespace": "wasmcustom",
            },
            "filter_name": "router",
            "filter_config": configuration,
        })
    } else {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                // Envoy runs one VM for each `vm_id`, configuration and code. These plugins share one, as after an update of a listener.
                "name": "router",
                "vm_config": {
                    "vm_id": "pixell",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": modules.join("router.wasm") } },
                },
                "configuration": configuration,
            },
        })
    };
    format!("- {}", json!({ "name": "router", "typed_config": typed_config }))
}

/// What the response to a request with these ids says: the agent's name, or the detail of the rejection.
async fn response(envoy: &Envoy, first: &str, second: &str) -> String {
    let request = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, first).header("x-second-id", second);
    let response: Value = request.send().await.unwrap().json().await.unwrap();
    response.get("agent").unwrap_or_else(|| &response["detail"]).as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_plugin_of_a_vm_goes_by_its_own_configuration() {
    let both = [filter(DEPLOYMENT_ID), filter("x-second-id")].join("\n                  ");
    let envoy = Envoy::builder().data_filter(&both).start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    // Several requests, so that both workers get some.
    for _ in 0..8 {
        assert_eq!(response(&envoy, "a", "a").await, "a");
        assert_eq!(response(&envoy, "one", "a").await, "Deployment one not found or not ready");
        assert_eq!(response(&envoy, "a", "two").await, "Deployment two not found or not ready");
    }
    let stats = envoy.stats().await.unwrap();
    assert_eq!(stats.crashes().unwrap(), 0);
}
