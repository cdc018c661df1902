//! The host names under which the route API can be called: a page in a browser on the same machine cannot reach it.

use std::time::Duration;

use harness::Envoy;
use reqwest::Method;

use crate::api::{Api, no_vm_fell_over, problem};
use crate::clients::http2;
use crate::wire::exchange;

const WRITE: &str = "Connection: close\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n2000";

/// Sends heads of a write as bytes, and checks the status of each response.
#[tokio::test]
async fn only_the_names_of_the_loopback_interface_reach_the_route_api() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let port = envoy.api_addr().port();
    let written = [
        "Host: localhost".to_owned(),
        format!("Host: 127.0.0.1:{port}"),
        "Host: [::1]:1".to_owned(),
        "Host: LocalHost".to_owned(),
        "Host: localhost\r\nOrigin: http://localhost:3000".to_owned(),
        "Host: localhost\r\nOrigin: https://127.0.0.1".to_owned(),
    ];
    let foreign = [
        "Host: evil.example",
        "Host: evil.example:9901",
        "Host: ",
        "Host: localhost.",
        "Host: localhost:",
        "Host: user@localhost",
        "Host: localhost@evil.example",
        "Host: 127.0.0.1.nip.io",
        "Host: 127.1",
        "Host: [::ffff:127.0.0.1]",
        "Host: 0.0.0.0",
        "Host: localhost\r\nOrigin: http://evil.example",
        "Host: localhost\r\nOrigin: null",
        "Host: localhost\r\nOrigin: ",
        "Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.example",
        // A proxy in front of Envoy would set these. There is none.
        "Host: evil.example\r\nX-Forwarded-Host: localhost",
        "Host: evil.example\r\nForwarded: host=localhost",
    ];
    let send = async |target: &str, headers: &str| {
        let request = format!("PUT {target} HTTP/1.1\r\n{headers}\r\n{WRITE}");
        let response = exchange(envoy.api_addr(), request.as_bytes(), Duration::from_secs(10)).await;
        String::from_utf8_lossy(&response).into_owned()
    };
    for headers in &written {
        let response = send("/v1/routes/a", headers).await;
        assert!(response.starts_with("HTTP/1.1 20"), "{headers}: {response}");
    }
    let before = api.map().await;
    for headers in foreign {
        let response = send("/v1/routes/b", headers).await;
        assert!(
            response.starts_with("HTTP/1.1 403 ") && response.contains("\"code\":\"foreign_origin\""),
            "{headers}: {response}"
        );
    }
    // Envoy itself rejects a request without any host, or with two.
    for headers in ["X-Nothing: 1", "Host: localhost\r\nHost: evil.example", "Host: localhost, evil.example"] {
        let response = send("/v1/routes/b", headers).await;
        assert!(response.starts_with("HTTP/1.1 40"), "{headers}: {response}");
    }
    // The host of an absolute target counts. A path that names the API in another way is also the API.
    assert!(send("http://evil.example/v1/routes/b", "Host: localhost").await.starts_with("HTTP/1.1 403 "));
    assert!(send("http://localhost/v1/routes/a", "Host: evil.example").await.starts_with("HTTP/1.1 200 "));
    assert!(send("//v1/./routes/b", "Host: evil.example").await.starts_with("HTTP/1.1 403 "));
    assert_eq!(api.map().await, before);

    // Reads, unknown paths, and HTTP/2, where the name is in `:authority`.
    for target in ["/v1/status", "/v1/routes", "/v1", "/v1/nothing", "/clusters", "/clusters?format=json"] {
        let response = api.call_with("GET", target, &[("host", "evil.example")], "").await;
        assert_eq!((response.status.as_u16(), &problem(&response)["code"]), (403, &"foreign_origin".into()), "{target}");
    }
    let client = http2();
    let url = |host: &str| format!("http://{host}:{port}/v1/status");
    assert_eq!(client.request(Method::GET, url("127.0.0.1")).send().await.unwrap().status(), 200);
    let foreign = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .resolve("evil.example", envoy.api_addr())
        .build()
        .unwrap();
    let rejected = foreign.get(url("evil.example")).send().await.unwrap();
    assert_eq!(rejected.status(), 403);
    // What everyone may read has no such rule: load balancers and scrapers call it by any name.
    for path in ["/ready", "/stats", "/"] {
        let url = format!("http://evil.example:{port}{path}");
        assert_eq!(foreign.get(url).send().await.unwrap().status(), 200, "{path}");
    }
    no_vm_fell_over(&envoy, &api).await;
}
