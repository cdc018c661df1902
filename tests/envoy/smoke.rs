//! The main path, once: Envoy gets ready, a map is pushed, and requests reach the agents that they name.

use harness::proto::{self, Empty};
use harness::{Envoy, agents};
use serde_json::Value;

#[tokio::test]
async fn requests_reach_the_agents_they_name() {
    let envoy = Envoy::builder().start().await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ready = http.get(envoy.api_url() + "/ready").send().await.unwrap();
    assert_eq!((ready.status().as_u16(), ready.text().await.unwrap().trim()), (200, "LIVE"));

    let [a, b] = ["a", "b"].map(|name| agents::grpc::start(name).unwrap());
    let c = agents::echo::start("c").unwrap();
    let pushed = envoy.routes().put_all([&a, &b, &c].map(|agent| (agent.name(), agent.port()))).await.unwrap();
    assert_eq!(pushed.json().unwrap()["added"], 3);

    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    for agent in [&a, &b, &a] {
        let request = proto::request_to(agent.name(), Empty {}).unwrap();
        assert_eq!(client.health(request).await.unwrap().into_inner().message, agent.name());
    }

    let url = envoy.data_url() + "/some/path?q=1";
    let response = http.get(url).header(proto::DEPLOYMENT_ID, "c").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let seen: Value = response.json().await.unwrap();
    assert_eq!((&seen["agent"], &seen["path"]), (&"c".into(), &"/some/path?q=1".into()));
    assert!(seen["headers"].as_array().unwrap().contains(&serde_json::json!([proto::DEPLOYMENT_ID, "c"])), "{seen}");
    assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
}

#[tokio::test]
async fn a_restarted_envoy_has_its_old_ports_and_no_map() {
    let mut envoy = Envoy::builder().start().await.unwrap();
    let addresses = (envoy.data_addr(), envoy.api_addr());
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    envoy.restart().await.unwrap();
    assert_eq!((envoy.data_addr(), envoy.api_addr()), addresses);
    assert_eq!(envoy.routes().status().await.unwrap().json().unwrap()["loaded"], false);
    assert!(envoy.sigterm().await.unwrap().success());
}

/// A test run that is killed leaves no Envoy behind. (To Linux, the end of the thread that started a process is the same.)
#[tokio::test]
async fn an_envoy_does_not_outlive_the_thread_that_started_it() {
    let start = async { Envoy::builder().start().await.map(std::mem::ManuallyDrop::new) };
    let starter = move || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(start);
    let envoy = std::thread::spawn(starter).join().unwrap().unwrap();
    let gone = || async {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", envoy.pid()))?;
        // `pid (name) state`. It stays a zombie, because nobody waits for it.
        Ok(status.contains(") Z ").then_some(()))
    };
    harness::wait::until("Envoy to end", std::time::Duration::from_secs(10), gone).await.unwrap();
    drop(std::mem::ManuallyDrop::into_inner(envoy));
}

#[tokio::test]
async fn an_envoy_that_rejects_its_configuration_says_why() {
    let error =
        Envoy::builder().edit("\"role\": \"router\"", "\"role\": \"router\", \"unheard_of\": 1").start().await.unwrap_err();
    assert!(error.to_string().contains("unheard_of"), "{error}");
}
