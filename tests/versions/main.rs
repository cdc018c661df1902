//! A smoke test on the older Envoy releases that are supported: it pushes routes, sends requests that are routed or rejected, and streams.
//!
//! Not part of a plain `cargo test`, because each release is a download: `cargo xtask test versions`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

mod image;

use harness::agents::{self, streams};
use harness::proto::streams::Chunk;
use harness::proto::{self, DEPLOYMENT_ID, Empty, request_to};
use harness::{Envoy, routes::RouteApi};
use image::Image;
use launcher::EXIT_CONFIG;
use launcher::filter::{Filter, TESTED};
use serde_json::{Value, json};
use tonic::Code;
use workspace::envoy as binary;

/// Whether the filter decides about a retry by the current map. Envoy calls an upstream Wasm filter from 1.39 on, and a native one in every
/// release that the native filter works with.
fn judges_retries(filter: Filter, version: &str) -> bool {
    filter == Filter::Native || !["1.37.0", "1.38.2"].contains(&version)
}

async fn smoke(filter: Filter, version: &str) {
    let builder = Envoy::builder().filter(filter).binary(binary::release(version).unwrap());
    let envoy = builder.start().await.unwrap();
    assert!(envoy.admin("/server_info").await.unwrap().contains(&format!("/{version}/")));
    let (g, h) = (agents::grpc::start("g").unwrap(), agents::echo::start("h").unwrap());
    let (s, _) = streams::start("s").unwrap();

    // Push.
    let api: RouteApi = envoy.routes();
    assert_eq!(api.status().await.unwrap().json().unwrap()["loaded"], false);
    let pushed = api.put_all([("g", g.port()), ("h", h.port()), ("s", s.port())]).await.unwrap().json().unwrap();
    assert_eq!((&pushed["added"], &pushed["generation"]), (&3.into(), &1.into()));
    let invalid = api.patch_routes(&json!({"routes": {"bad id": 5000, "e": 50051}})).await.unwrap();
    assert_eq!((invalid.status.as_u16(), invalid.json().unwrap()["errors"].as_array().unwrap().len()), (422, 2));
    let drained = api.patch_routes(&json!({"routes": {"d": {"port": 5000, "state": "draining"}}})).await.unwrap();
    assert_eq!(drained.json().unwrap()["generation"], 2);

    // Route.
    let mut grpc = proto::connect(envoy.data_addr()).await.unwrap();
    assert_eq!(grpc.health(request_to("g", Empty {}).unwrap()).await.unwrap().into_inner().message, "g");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = http.get(envoy.data_url() + "/p").header(DEPLOYMENT_ID, "h").send().await.unwrap();
    assert_eq!(response.json::<Value>().await.unwrap()["agent"], "h");

    // Reject.
    for (id, code, error) in [
        ("nobody", Code::NotFound, "unknown_deployment"),
        ("d", Code::Unavailable, "deployment_draining"),
        ("?", Code::InvalidArgument, "invalid_deployment_id"),
    ] {
        let status = grpc.health(request_to(id, Empty {}).unwrap()).await.unwrap_err();
        assert_eq!((status.code(), status.metadata().get("x-pixell-error").unwrap().to_str().unwrap()), (code, error));
    }
    let g_port = g.port();
    g.kill();
    let status = grpc.health(request_to("g", Empty {}).unwrap()).await.unwrap_err();
    assert_eq!(status.metadata().get("x-pixell-error").unwrap(), "agent_unreachable", "{status:?}");
    // Displaced while a request waits for it.
    let retries = async || envoy.stat("cluster.agents_http2.upstream_rq_retry").await;
    let before = retries().await.unwrap();
    let waiting = tokio::spawn(async move { grpc.health(request_to("g", Empty {}).unwrap()).await.unwrap_err() });
    let retried = || async { Ok((retries().await? > before).then_some(())) };
    harness::wait::until("a second request to wait", std::time::Duration::from_secs(10), retried).await.unwrap();
    api.put_route("next", &g_port.into()).await.unwrap();
    let status = waiting.await.unwrap();
    let expected = if judges_retries(filter, version) { "unknown_deployment" } else { "agent_unreachable" };
    assert_eq!(status.metadata().get("x-pixell-error").unwrap(), expected, "{status:?}");
    // Envoy ignores the headers by which a client could choose the upstream.
    let spoofed = http.get(envoy.data_url()).header("x-envoy-original-dst-host", format!("127.0.0.1:{}", h.port()));
    assert_eq!(spoofed.send().await.unwrap().status(), 400);

    // Stream.
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(receive);
    let mut chat = client.chat(request_to("s", outgoing).unwrap()).await.unwrap().into_inner();
    for number in 0..1_000 {
        send.send(Chunk { number, data: vec![1; 100] }).await.unwrap();
        assert_eq!(chat.message().await.unwrap().unwrap().number, number);
    }
    assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
}

#[tokio::test]
async fn older_envoys_do_the_main_job() {
    for version in binary::OLDER {
        println!("Envoy {version}");
        smoke(Filter::Wasm, version).await;
    }
}

#[tokio::test]
async fn the_native_filter_does_the_main_job_on_releases_it_is_tested_on() {
    let mut worked = 0;
    for version in binary::releases().unwrap() {
        println!("Envoy {version}");
        if Filter::Native.check_envoy(&version).is_ok() {
            smoke(Filter::Native, &version).await;
            worked += 1;
        } else {
            let old = Envoy::builder().filter(Filter::Native).binary(binary::release(&version).unwrap());
            let error = old.start().await.unwrap_err().to_string();
            assert!(error.contains("the native filter is not tested on Envoy 1.37.0, only on 1.38, 1.39, 1.40"), "{error}");
        }
    }
    assert_eq!(worked, TESTED.len());
}

/// The entry point as in the image: it does not start an Envoy on which the native filter is not tested, and starts every other one. Envoy
/// only validates the configuration that the entry point has made for it.
#[test]
fn the_entry_point_starts_only_releases_that_the_filter_is_tested_on() {
    let mut rejected = 0;
    for version in binary::releases().unwrap() {
        println!("Envoy {version}");
        let image = Image::with(&version);
        let (code, said) = image.validate(Filter::Native);
        if Filter::Native.check_envoy(&version).is_ok() {
            assert!(code == Some(0) && said.contains("configuration '/run/pixell-envoy/envoy.yaml' OK"), "{code:?}: {said}");
            continue;
        }
        let line = format!(
            "pixell-envoy: PIXELL_FILTER is \"native\": the native filter is not tested on Envoy {version}, only on 1.38, 1.39, 1.40: use one \
             of these, or the Wasm filter\n"
        );
        assert_eq!((code, said), (Some(EXIT_CONFIG.into()), line));
        // As the line says.
        let (code, said) = image.validate(Filter::Wasm);
        assert!(code == Some(0) && said.contains("configuration '/etc/envoy/envoy.yaml' OK"), "{code:?}: {said}");
        rejected += 1;
    }
    assert_eq!(rejected, 1);
}
