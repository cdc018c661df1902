//! gRPC and gRPC-Web through a hop: the four kinds of calls, deadlines, and how clients learn of failures.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::agents::{self, http as agent, streams};
use harness::fleet::Peers;
use harness::proto::streams::Chunk;
use harness::proto::{self, ActionRequest, MESSAGE_LIMIT, request_to};
use harness::{Agent, wait};
use http_body_util::{BodyExt, Full};
use hyper::Response;
use prost::Message;
use serde_json::json;

use crate::both::request;
use crate::tasks::Tasks;

/// What a client sees of calls of all four kinds at this task.
async fn calls(address: SocketAddr) -> Vec<String> {
    let mut client = streams::connect(address).await.unwrap();
    let mut seen = Vec::new();
    // A message of 30 MB, and metadata, of bytes, too.
    let mut request = request_to("s", Chunk { number: 7, data: vec![7; 30_000_000].into() }).unwrap();
    request.metadata_mut().append("x-echo-twice", "1".parse().unwrap());
    request.metadata_mut().append("x-echo-twice", "2".parse().unwrap());
    request.metadata_mut().insert_bin("x-echo-bytes-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255, 7]));
    let response = client.unary(request).await.unwrap();
    let twice: Vec<_> = response.metadata().get_all("x-echo-twice").iter().map(|value| value.to_str().unwrap()).collect();
    let bytes = response.metadata().get_bin("x-echo-bytes-bin").unwrap().to_bytes().unwrap();
    seen.push(format!("{twice:?} {bytes:?} {}", response.get_ref().data.len()));
    let chunks = || tokio_stream::iter((0..100).map(|number| Chunk { number, data: vec![1; 10_000].into() }));
    let sum = client.upload(request_to("s", chunks()).unwrap()).await.unwrap().into_inner();
    seen.push(format!("{} {}", sum.number, sum.data.len()));
    let downloaded = client.download(request_to("s", Chunk { number: 100, data: vec![2; 10_000].into() }).unwrap()).await;
    for (kind, response) in [("download", downloaded), ("chat", client.chat(request_to("s", chunks()).unwrap()).await)] {
        let mut stream = response.unwrap().into_inner();
        let mut count = 0;
        while let Some(chunk) = stream.message().await.unwrap() {
            assert_eq!((chunk.number, chunk.data.len()), (count, 10_000));
            count += 1;
        }
        seen.push(format!("{kind} {count} {:?}", stream.trailers().await.unwrap().map(|trailers| trailers.len())));
    }
    // Each chunk is sent when the previous one has come back, so that a chunk which is held back stops the stream.
    let (talk, chunks) = tokio::sync::mpsc::channel(1);
    let chunk = |number| Chunk { number, data: vec![3; 10].into() };
    talk.send(chunk(0)).await.unwrap();
    let chunks = tokio_stream::wrappers::ReceiverStream::new(chunks);
    let mut responses = client.chat(request_to("s", chunks).unwrap()).await.unwrap().into_inner();
    for number in 0..20 {
        let response = tokio::time::timeout(Duration::from_secs(10), responses.message()).await.expect("the chunk comes back");
        assert_eq!(response.unwrap(), Some(chunk(number)));
        talk.send(chunk(number + 1)).await.unwrap();
    }
    drop(talk);
    assert_eq!((responses.message().await.unwrap(), responses.message().await.unwrap()), (Some(chunk(20)), None));
    let mut client = proto::connect(address).await.unwrap();
    let parameters = [("code", "9"), ("message", "no: ä %"), ("details", "\u{1}\u{2}")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let failing = ActionRequest { action: "fail".into(), parameters, request_id: String::new() };
    let status = client.invoke(request_to("g", failing).unwrap()).await.unwrap_err();
    seen.push(format!("{:?} {} {:?}", status.code(), status.message(), status.details()));
    for id in ["nobody", "drains", "gone", "down"] {
        let status = client.health(request_to(id, proto::Empty {}).unwrap()).await.unwrap_err();
        let code = status.metadata().get("x-pixell-error").unwrap().to_str().unwrap();
        seen.push(format!("{:?} {} {code}", status.code(), status.message()));
    }
    seen
}

#[tokio::test]
async fn all_kinds_of_calls_are_the_same_through_another_task() {
    all_kinds_of_calls_are_the_same(Peers::ByAddress).await;
}

#[tokio::test]
async fn all_kinds_of_calls_are_the_same_with_certificates() {
    all_kinds_of_calls_are_the_same(Peers::ByCertificate).await;
}

async fn all_kinds_of_calls_are_the_same(peers: Peers) {
    let tasks = Tasks::by(peers, Vec::new()).await;
    let streams = tasks.agent(1, || Ok(streams::start("s")?.0)).await;
    let grpc = tasks.agent(1, || agents::grpc::start("g")).await;
    let drains = json!({ "port": 5000, "state": "draining" });
    tasks.routes(0, json!({ "drains": drains })).await;
    tasks.routes(1, json!({ "s": streams.port(), "g": grpc.port(), "drains": drains, "down": 1024 })).await;
    tasks.fleet(0, &[("s", &[1]), ("g", &[1]), ("down", &[1]), ("gone", &[2])]).await;
    tasks.fleet(1, &[("gone", &[2])]).await;
    let mut all = Vec::new();
    for task in 0..2 {
        let address = tasks.data(task);
        all.push(tasks.fabric.outside().run(move || calls(address)).await.unwrap());
    }
    assert_eq!(all[0], all[1]);
    assert!(all[0][0].starts_with(r#"["1", "2"] b"\0\xff\x07" 30000000"#), "{all:?}");
    assert!(all[0][4].starts_with("FailedPrecondition no: ä %"), "{all:?}");
    tasks.have_met().await;
}

#[tokio::test]
async fn a_message_of_100_mb_hops_both_ways() {
    a_message_of_100_mb_hops(Peers::ByAddress).await;
}

#[tokio::test]
async fn a_message_of_100_mb_hops_both_ways_with_certificates() {
    a_message_of_100_mb_hops(Peers::ByCertificate).await;
}

async fn a_message_of_100_mb_hops(peers: Peers) {
    let tasks = Tasks::by(peers, Vec::new()).await;
    let agent = tasks.agent(1, || agents::grpc::start("big")).await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "big": agent.port() })).await;
    tasks.fleet(0, &[("big", &[1])]).await;
    let address = tasks.data(0);
    let call = move || async move {
        // As much as fits with the other fields.
        let text = "0123456789abcdef".repeat((MESSAGE_LIMIT - 1024) / 16);
        let parameters = [("text".to_owned(), text.clone())].into();
        let request = ActionRequest { action: "echo".into(), parameters, ..<_>::default() };
        assert!(request.encoded_len() > 100_000_000);
        let mut client = proto::connect(address).await.unwrap();
        let result = client.invoke(request_to("big", request).unwrap()).await.unwrap().into_inner().result;
        assert!(result == text, "{} other bytes came back", result.len());
    };
    tasks.fabric.outside().run(call).await.unwrap();
    assert_eq!(tasks.count(1, "wasmcustom.pixell_fleet_requests_total.hop.in").await, 1);
    tasks.have_met().await;
}

/// A call of a client that sends its deadline and does not enforce it: what it is told, and after how long.
async fn deadline(tasks: &Tasks, task: usize, headers: &'static [(&str, &str)]) -> (String, String, Duration) {
    let url = format!("http://{}/pixell.test.Streams/Hang", tasks.data(task));
    let call = move || async move {
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let call = client.post(url).header("x-deployment-id", "s").body(vec![0; 5]);
        let call = headers.iter().fold(call, |call, (name, value)| call.header(*name, *value));
        let started = Instant::now();
        let response = call.send().await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let status = header("grpc-status").unwrap_or_else(|| response.status().as_u16().to_string());
        (status, header("x-pixell-error").unwrap_or_default(), started.elapsed())
    };
    tasks.fabric.outside().run(call).await.unwrap()
}

/// The `grpc-timeout` of each call that an agent got, and whether its stream was reset.
pub(crate) type Hung = Arc<Mutex<Vec<(String, bool)>>>;

/// An agent that never responds.
pub(crate) async fn hung(tasks: &Tasks) -> (Agent, Hung) {
    let calls = Hung::default();
    let noted = calls.clone();
    let serve = move |stream| {
        let noted = noted.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.map_err(std::io::Error::other)?;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let noted = noted.clone();
                let timeout = request.headers().get("grpc-timeout").map_or("", |value| value.to_str().unwrap()).to_owned();
                tokio::spawn(async move {
                    let number = noted.lock().unwrap().len();
                    noted.lock().unwrap().push((timeout, false));
                    let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    noted.lock().unwrap()[number].1 = reset.is_ok();
                });
            }
            Ok(())
        }
    };
    (tasks.agent(1, move || agents::raw::start("hung", serve)).await, calls)
}

#[tokio::test]
async fn deadlines_end_calls_in_both_tasks() {
    let tasks = Tasks::with(2, |_| vec![("PIXELL_CALL_TIMEOUT_SECONDS", "2".to_owned())]).await;
    let (agent, calls) = hung(&tasks).await;
    let silent = tasks.agent(1, || {
        agent::start("silent", 0, agent::Version::Http1, |_| async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Response::new(agent::whole(""))
        })
    });
    let silent = silent.await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "s": agent.port(), "http": silent.port() })).await;
    tasks.fleet(0, &[("s", &[1]), ("http", &[1])]).await;
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    // What clients of Envoy could set elsewhere has no effect.
    const OURS: (&str, &str) = ("x-envoy-upstream-rq-timeout-ms", "1");
    for (headers, least) in [
        (&[GRPC, OURS, ("grpc-timeout", "700m")][..], 700),
        (&[GRPC, OURS, ("grpc-timeout", "3S")], 3_000),
        (&[GRPC, OURS], 2_000),
    ] {
        for task in 0..2 {
            let (status, code, took) = deadline(&tasks, task, headers).await;
            assert_eq!((&*status, &*code), ("4", "deadline_exceeded"), "{headers:?}");
            let least = Duration::from_millis(least);
            assert!(took + Duration::from_millis(20) >= least && took < Duration::from_secs(10), "{took:?}");
        }
    }
    // The agent has the deadline, in the words of Envoy, and learns that nobody waits any more.
    let told = || async {
        let calls = calls.lock().unwrap().clone();
        Ok((calls.len() == 6 && calls.iter().all(|(_, is_reset)| *is_reset)).then_some(calls))
    };
    let told = wait::until("the agent to learn of it", Duration::from_secs(10), told).await.unwrap();
    let timeouts: Vec<_> = told.iter().map(|(timeout, _)| timeout.as_str()).collect();
    assert_eq!(timeouts, ["700m", "700m", "3000m", "3000m", "2000m", "2000m"]);
    let response = tasks.ask(0, "http").await;
    assert_eq!((response.status, response.header("x-pixell-error")), (504, Some("deadline_exceeded")), "{response:?}");
    let exceeded = |line: &serde_json::Value| line["error"] == "deadline_exceeded" && line["hop"] == "out";
    tasks.envoys[0].logged(4, exceeded).await.unwrap();
}

#[tokio::test]
async fn grpc_web_is_the_same_through_another_task() {
    let tasks = Tasks::start(2).await;
    let respond = |request: http::Request<hyper::body::Incoming>| async move {
        let header = |name| request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let names = ["content-type", "te", "x-pixell-grpc-web", "x-deployment-id", "x-forwarded-prefix", "x-forwarded-for"];
        let seen = format!("{} {:?}", request.uri().path(), names.map(header));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let seen = format!("{seen} {}", body.len());
        let mut frame = vec![0, 0, 0, 0, u8::try_from(seen.len()).unwrap()];
        frame.extend_from_slice(seen.as_bytes());
        let trailers = [("grpc-status", "9"), ("grpc-message", "no"), ("x-more", "1")];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let body = Full::new(Bytes::from(frame)).with_trailers(async { Some(Ok(http::HeaderMap::from_iter(trailers))) });
        let body = body.map_err(|never: std::convert::Infallible| match never {}).boxed();
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    };
    let agent = tasks.agent(1, move || agent::start("g", 0, agent::Version::Http2, respond)).await;
    let mute = tasks.agent(1, || agents::raw::start("mute", |_| async { Ok(()) })).await;
    let drains = json!({ "port": 5000, "state": "draining" });
    tasks.routes(0, json!({ "drains": drains })).await;
    tasks.routes(1, json!({ "g": agent.port(), "mute": mute.port(), "drains": drains, "down": 1024 })).await;
    tasks.fleet(0, &[("g", &[1]), ("mute", &[1]), ("down", &[1]), ("stale", &[1]), ("gone", &[2])]).await;
    tasks.fleet(1, &[("gone", &[2])]).await;
    let call = |path: &str, id: &str, content_type: &str| {
        let mut headers = vec![("content-type", content_type), ("content-length", "5"), ("x-grpc-web", "1")];
        headers.extend((!id.is_empty()).then_some(("x-deployment-id", id)));
        request("POST", path, &headers) + "\0\0\0\0\0"
    };
    for content_type in ["application/grpc-web", "application/grpc-web+proto"] {
        for (path, id) in [("/x.Y/Z", "g"), ("/agents/g/a2a/x.Y/Z", ""), ("/agents/g/x.Y/Z", "")] {
            let seen = tasks.both(call(path, id, content_type)).await;
            assert_eq!((seen.status(), seen.header("content-type")), (200, Some("application/grpc-web+proto")), "{seen:?}");
            for part in ["/x.Y/Z [Some(\"application/grpc\"), Some(\"trailers\"), Some(\"1\")", "grpc-status:9", "x-more:1"] {
                assert!(seen.body.contains(part), "{part} in {seen:?}");
            }
        }
        for (id, status, code) in [
            ("nobody", "5", "unknown_deployment"),
            ("a b", "3", "invalid_deployment_id"),
            ("drains", "14", "deployment_draining"),
            ("down", "14", "agent_unreachable"),
            ("mute", "14", "agent_closed"),
            ("gone", "14", "peer_unreachable"),
        ] {
            let seen = tasks.both(call("/x.Y/Z", id, content_type)).await;
            assert_eq!((seen.header("grpc-status"), seen.header("x-pixell-error")), (Some(status), Some(code)), "{seen:?}");
        }
        let of_stale = move |request: reqwest::RequestBuilder| {
            request.header("x-deployment-id", "stale").header("content-type", content_type).body(vec![0; 5])
        };
        let response = tasks.send(0, "/x.Y/Z", of_stale).await;
        response.is_rejected("deployment_moved");
        assert_eq!(response.header("grpc-status"), Some("14"), "{response:?}");
    }
}
