//! How much the access log tells of what went well; what was refused or failed is always told in full.

use harness::proto::{self, ActionRequest, DEPLOYMENT_ID};
use harness::{Envoy, EnvoyBuilder, agents};
use launcher::configuration;
use launcher::settings::Settings;
use reqwest::Client;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::access_log::{client, envoy_with};
use crate::wire;

/// The shipped configuration with what the image's entry point makes of these variables.
pub(crate) fn with_settings(vars: &[(&str, &str)]) -> EnvoyBuilder {
    let settings =
        Settings::resolve(|name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())).unwrap();
    configuration::edits(&settings).into_iter().fold(Envoy::builder(), |builder, edit| builder.edit(edit.place, &edit.text))
}

/// The lines about id `a`, once those of everything that `http` has asked are written: its requests go over one connection, and so
/// by one worker, whose lines keep their order.
async fn lines_of(envoy: &Envoy, http: &Client) -> Vec<Value> {
    let marks = |lines: Vec<Value>| lines.iter().filter(|line| line["path"] == "/no-id").count();
    let before = marks(envoy.access_log().unwrap());
    http.get(envoy.data_url() + "/no-id").send().await.unwrap().bytes().await.unwrap();
    envoy.logged(before + 1, |line| line["path"] == "/no-id").await.unwrap();
    envoy.access_log().unwrap().into_iter().filter(|line| line["deployment_id"] == "a").collect()
}

async fn ask(envoy: &Envoy, http: &Client, times: usize) {
    for _ in 0..times {
        let answer = http.get(envoy.data_url() + "/ok").header(DEPLOYMENT_ID, "a").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        // Only a connection whose answer was read is used again.
        answer.bytes().await.unwrap();
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

    // Nothing of what goes well; the request without an id, by which the test knows that it waited long enough, is a failure.
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
    assert_eq!(failures.len(), 3, "a failure is logged once, and in full");

    set(50, 0).await;
    ask(&envoy, &http, 400).await;
    let sampled = lines_of(&envoy, &http).await.len() - 8;
    // Six standard deviations (of 10) to either side.
    assert!((140..=260).contains(&sampled), "{sampled} of 400");
}

/// Each setting of the image: how many of 200 requests that went well are told in full and how many in brief; and of those that
/// did not go well all five, in full, whatever the setting.
#[tokio::test]
async fn the_images_settings_decide_how_much_is_told() {
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
        // An answer that breaks off has status 200, and a flag alone tells that it is no success.
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
        http.get(envoy.data_url() + "/refused").header(DEPLOYMENT_ID, "nobody").send().await.unwrap();
        http.get(envoy.data_url() + "/failed").header(DEPLOYMENT_ID, "gone").send().await.unwrap();
        let broken = http.get(envoy.data_url() + "/half").header(DEPLOYMENT_ID, "half").send().await.unwrap();
        assert_eq!(broken.status(), 200);
        broken.bytes().await.unwrap_err();
        let mut client = proto::connect(envoy.data_addr()).await.unwrap();
        let parameters = [("code".to_owned(), "7".to_owned())].into();
        let failing = ActionRequest { action: "fail".into(), parameters, request_id: String::new() };
        client.invoke(proto::request_to("g", failing).unwrap()).await.unwrap_err();

        let told = lines_of(&envoy, &http).await;
        let (long, short): (Vec<_>, Vec<_>) = told.iter().partition(|line| line.get("path").is_some());
        assert!(full.contains(&long.len()) && brief.contains(&short.len()), "{vars:?}: {} {}", long.len(), short.len());
        for (path, field, value) in [
            ("/refused", "rejection", "unknown_deployment"),
            ("/failed", "response_flags", "URX,UF"),
            ("/half", "response_flags", "UPE"),
            ("/pixell.agent.AgentService/Invoke", "grpc_status", "PERMISSION_DENIED"),
            ("/no-id", "rejection", "missing_deployment_id"),
        ] {
            let lines = envoy.logged(1, |line| line["path"] == path && line[field] == value).await.unwrap();
            assert_eq!(lines.len(), 1, "{vars:?} {path}");
        }
        let failed = envoy.access_log().unwrap();
        let failed = failed.iter().filter(|line| line["log"] == "access" && line["deployment_id"] != "a");
        assert_eq!(failed.count(), 5, "{vars:?}: a failure is told once");
    }
}
