//! How much of the successful requests is logged. Rejections and failures are always logged in full.

use harness::proto::{self, ActionRequest, DEPLOYMENT_ID};
use harness::{Envoy, EnvoyBuilder, agents};
use launcher::settings::Settings;
use reqwest::Client;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::access_log::{client, envoy_with};
use crate::wire;

/// The shipped configuration, changed as the image's entry point changes it for these variables.
pub(crate) fn with_settings(vars: &[(&str, &str)]) -> EnvoyBuilder {
    let settings =
        Settings::resolve(|name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())).unwrap();
    Envoy::builder().settings(&settings)
}

/// The lines for id `a`, once all requests of `http` are logged. It uses one connection and so one worker, whose lines keep their
/// order: this sends one more request, and waits for its line.
async fn lines_of(envoy: &Envoy, http: &Client) -> Vec<Value> {
    let marks = |lines: Vec<Value>| lines.iter().filter(|line| line["path"] == "/no-id").count();
    let before = marks(envoy.access_log().unwrap());
    http.get(envoy.data_url() + "/no-id").send().await.unwrap().bytes().await.unwrap();
    envoy.logged(before + 1, |line| line["path"] == "/no-id").await.unwrap();
    envoy.access_log().unwrap().into_iter().filter(|line| line["deployment_id"] == "a").collect()
}

async fn ask(envoy: &Envoy, http: &Client, times: usize) {
    for _ in 0..times {
        let response = http.get(envoy.data_url() + "/ok").header(DEPLOYMENT_ID, "a").send().await.unwrap();
        assert_eq!(response.status(), 200);
        // The client reuses a connection only after it has read the response.
        response.bytes().await.unwrap();
    }
}

#[tokio::test]
async fn successes_are_sampled_and_failures_always_logged() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let set = async |full: u32, brief: u32| {
        let path = format!("/runtime_modify?pixell.access_log.full={full}&pixell.access_log.brief={brief}");
        envoy.admin_post(&path).await.unwrap();
    };
    let http = client();
    ask(&envoy, &http, 3).await;
    assert_eq!(lines_of(&envoy, &http).await.len(), 3);

    // No success is logged. The request without an id, whose line `lines_of` waits for, is a failure.
    set(0, 0).await;
    ask(&envoy, &http, 20).await;
    assert_eq!(lines_of(&envoy, &http).await.len(), 3);

    set(0, 100).await;
    ask(&envoy, &http, 5).await;
    let lines = lines_of(&envoy, &http).await;
    assert_eq!(lines.len(), 8);
    let brief = lines.last().unwrap();
    let mut fields: Vec<_> = brief.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["deployment_id", "duration_us", "grpc_status", "log", "request_id", "status", "time"]);
    let failures: Vec<_> = envoy.access_log().unwrap().into_iter().filter(|line| line["rejection"].is_string()).collect();
    assert_eq!(failures.len(), 3, "each failure is logged once, in full");

    set(50, 0).await;
    ask(&envoy, &http, 400).await;
    let sampled = lines_of(&envoy, &http).await.len() - 8;
    // Six standard deviations (of 10) to either side.
    assert!((140..=260).contains(&sampled), "{sampled} of 400");
}

/// For each setting of the image: how many of 200 successes are logged in full, and how many in brief. Under each setting, all five
/// failures are logged in full.
#[tokio::test]
async fn the_images_settings_decide_how_much_is_logged() {
    const SENT: usize = 200;
    // Six standard deviations (of 7) to either side of a half.
    const HALF: std::ops::RangeInclusive<usize> = 58..=142;
    let (all, none) = (SENT..=SENT, 0..=0);
    for (vars, full, brief) in [
        (&[("PIXELL_ACCESS_LOG", "full")][..], all.clone(), none.clone()),
        (&[("PIXELL_ACCESS_LOG", "brief")], none.clone(), all),
        (&[("PIXELL_ACCESS_LOG", "failures")], none.clone(), none.clone()),
        (&[("PIXELL_ACCESS_LOG_PERCENT", "0")], none.clone(), none.clone()),
        (&[("PIXELL_ACCESS_LOG_PERCENT", "50")], HALF, none.clone()),
        (&[("PIXELL_ACCESS_LOG", "brief"), ("PIXELL_ACCESS_LOG_PERCENT", "50")], none, HALF),
    ] {
        let (agent, gone, grpc) =
            (agents::echo::start("a").unwrap(), agents::echo::start("gone").unwrap(), agents::grpc::start("g").unwrap());
        let envoy = with_settings(vars).start().await.unwrap();
        // A response that breaks off has status 200. Only its flag says that it failed.
        let half = agents::raw::start("half", |mut stream| async move {
            wire::head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await
        });
        let half = half.unwrap();
        let routes = [&agent, &gone, &grpc, &half].map(|agent| (agent.name(), agent.port()));
        envoy.routes().put_all(routes).await.unwrap();
        gone.kill();
        let http = client();
        ask(&envoy, &http, SENT).await;
        http.get(envoy.data_url() + "/rejected").header(DEPLOYMENT_ID, "nobody").send().await.unwrap();
        http.get(envoy.data_url() + "/failed").header(DEPLOYMENT_ID, "gone").send().await.unwrap();
        let broken = http.get(envoy.data_url() + "/half").header(DEPLOYMENT_ID, "half").send().await.unwrap();
        assert_eq!(broken.status(), 200);
        broken.bytes().await.unwrap_err();
        let mut client = proto::connect(envoy.data_addr()).await.unwrap();
        let parameters = [("code".to_owned(), "7".to_owned())].into();
        let failing = ActionRequest { action: "fail".into(), parameters, request_id: String::new() };
        client.invoke(proto::request_to("g", failing).unwrap()).await.unwrap_err();

        let successes = lines_of(&envoy, &http).await;
        let (long, short): (Vec<_>, Vec<_>) = successes.iter().partition(|line| line.get("path").is_some());
        assert!(full.contains(&long.len()) && brief.contains(&short.len()), "{vars:?}: {} {}", long.len(), short.len());
        for (path, field, value) in [
            ("/rejected", "rejection", "unknown_deployment"),
            ("/failed", "rejection", "agent_unreachable"),
            ("/half", "response_flags", "UPE"),
            ("/pixell.agent.AgentService/Invoke", "grpc_status", "PERMISSION_DENIED"),
            ("/no-id", "rejection", "missing_deployment_id"),
        ] {
            let lines = envoy.logged(1, |line| line["path"] == path && line[field] == value).await.unwrap();
            assert_eq!(lines.len(), 1, "{vars:?} {path}");
        }
        let failed = envoy.access_log().unwrap();
        let failed = failed.iter().filter(|line| line["log"] == "access" && line["deployment_id"] != "a");
        assert_eq!(failed.count(), 5, "{vars:?}: each failure is logged once");
    }
}
