//! Ids that no honest client sends are rejected, and no VM crashes.

use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents};
use reqwest::Client;
use reqwest::header::HeaderValue;

#[tokio::test]
async fn hostile_ids_are_rejected_and_no_vm_restarts() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let long = vec![b'a'; 8 * 1024];
    let mut cases: Vec<(Vec<&[u8]>, &str)> = vec![
        (vec![b"\xff"], "invalid_deployment_id"),
        (vec![b"a\xff"], "invalid_deployment_id"),
        (vec![b"\xc3\x28"], "invalid_deployment_id"),
        (vec![b""], "missing_deployment_id"),
        (vec![b" "], "missing_deployment_id"),
        (vec![&long], "invalid_deployment_id"),
        (vec![b"a", b"b"], "invalid_deployment_id"),
        (vec![b"a", b""], "invalid_deployment_id"),
        (vec![b"a,b"], "invalid_deployment_id"),
        (vec![b"a,\xff"], "invalid_deployment_id"),
        (vec![b"../a"], "invalid_deployment_id"),
        (vec![b"127.0.0.1:22"], "invalid_deployment_id"),
    ];
    // Equal values are one id.
    cases.push((vec![b"a"; 20], "none"));
    // Over many connections, so that both workers see each value.
    for round in 0..8 {
        for builder in [Client::builder().http1_only(), Client::builder().http2_prior_knowledge()] {
            let client = builder.no_proxy().build().unwrap();
            for (values, expected) in &cases {
                let mut request = client.get(envoy.data_url());
                for value in values {
                    request = request.header(DEPLOYMENT_ID, HeaderValue::from_bytes(value).unwrap());
                }
                let response = request.send().await.unwrap();
                let code = response.headers().get("x-pixell-error").map_or("none", |code| code.to_str().unwrap()).to_owned();
                assert_eq!(code, *expected, "round {round}: {values:?}");
            }
        }
    }
    let stats = envoy.stats().await.unwrap();
    assert!(stats.worker_connections("agents").unwrap().values().all(|count| *count > 0), "both workers got requests");
    assert_eq!(stats.crashes().unwrap(), 0);
}
