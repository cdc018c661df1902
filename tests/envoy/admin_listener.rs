//! What port 9901 allows: to read Envoy's readiness and stats, and nothing that stops or changes Envoy.

use harness::Envoy;
use reqwest::{Client, Method};

#[tokio::test]
async fn readiness_and_stats_are_read_only() {
    let envoy = Envoy::builder().start().await.unwrap();
    let client = Client::builder().no_proxy().build().unwrap();
    let ask = |method: Method, path: &str| client.request(method, envoy.api_url() + path).send();

    let ready = ask(Method::GET, "/ready").await.unwrap();
    assert_eq!((ready.status().as_u16(), ready.text().await.unwrap().trim()), (200, "LIVE"));
    let stats = ask(Method::GET, "/stats").await.unwrap().text().await.unwrap();
    assert!(stats.contains("\nserver.live: 1\n"), "{stats}");
    let json: serde_json::Value = ask(Method::GET, "/stats?format=json").await.unwrap().json().await.unwrap();
    assert!(json["stats"].as_array().is_some_and(|stats| !stats.is_empty()));
    let prometheus = ask(Method::GET, "/stats/prometheus").await.unwrap().text().await.unwrap();
    assert!(prometheus.contains("\nenvoy_server_live{} 1\n"), "{prometheus}");
    let info: serde_json::Value = ask(Method::GET, "/server_info").await.unwrap().json().await.unwrap();
    assert_eq!(info["state"], "LIVE");

    let commands = [
        "/quitquitquit",
        "/config_dump",
        "/healthcheck/fail",
        "/drain_listeners",
        "/logging",
        "/reset_counters",
        "/runtime_modify",
        "/reopen_logs",
        "/clusters/",
        "/clusters/add",
        "/listeners",
        "/certs",
        "/memory",
        "/cpuprofiler",
        "/heapprofiler",
        "/contention",
        "/help",
        "/init_dump",
        "/stats/recentlookups",
        "/stats/recentlookups/clear",
        "/hot_restart_version",
        "/",
        "/ready/",
        "/ready/../config_dump",
        "/ready%2f..%2fconfig_dump",
        "//config_dump",
        "/v1/../config_dump",
        "/stats/../quitquitquit",
        "/./quitquitquit",
    ];
    for path in commands {
        for method in [Method::GET, Method::POST] {
            let status = ask(method.clone(), path).await.unwrap().status().as_u16();
            let rejected = matches!(status, 400 | 403..=405) || (path == "/" && status == 200);
            assert!(rejected, "{method} {path}: {status}");
        }
    }
    for path in ["/ready", "/stats", "/stats/prometheus", "/server_info", "/stats?x", "/clusters"] {
        let head = ask(Method::HEAD, path).await.unwrap();
        assert_eq!((head.status().as_u16(), head.bytes().await.unwrap().len()), (200, 0), "HEAD {path}");
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let status = ask(method.clone(), path).await.unwrap().status().as_u16();
            assert!(matches!(status, 403..=405), "{method} {path}: {status}");
        }
    }
    assert_eq!(ask(Method::GET, "/ready").await.unwrap().status(), 200, "Envoy still runs");
}
