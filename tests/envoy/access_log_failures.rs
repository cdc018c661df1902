//! The access log says which side caused a failure, and which side took the time.

use std::time::Duration;

use harness::Agent;
use harness::agents::{self, streams};
use harness::proto::streams::Chunk;
use harness::proto::{self, DEPLOYMENT_ID};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::access_log::{at, check, envoy_with, filter_details, line_of, number};
use crate::clients::http1;
use crate::wire;

/// An agent that responds to each request with these bytes and closes the connection.
pub(crate) fn says(name: &'static str, words: &'static [u8]) -> Agent {
    let agent = agents::raw::start(name, move |mut stream| async move {
        wire::head(&mut stream).await?;
        stream.write_all(words).await
    });
    agent.unwrap()
}

/// An HTTP/2 agent that starts each response and then resets its stream.
pub(crate) fn resets() -> Agent {
    let agent = agents::raw::start("resets", |stream| async move {
        let mut connection = h2::server::handshake(stream).await.map_err(std::io::Error::other)?;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut body = respond.send_response(head, false).map_err(std::io::Error::other)?;
            body.send_reset(h2::Reason::CANCEL);
        }
        Ok(())
    });
    agent.unwrap()
}

/// The failures of the first table of docs/operations.md: caused by an agent, by a client, or by neither.
#[tokio::test]
async fn each_failure_says_which_side_caused_it() {
    let gone = agents::echo::start("gone").unwrap();
    let silent = says("ends", b"");
    let half = says("half", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    let chunk = says("chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    let babble = says("babble", b"this is no HTTP\r\n\r\n");
    let (hanging, calls) = streams::start("hangs").unwrap();
    let envoy = envoy_with(&[&gone, &silent, &half, &chunk, &babble, &hanging]).await;
    let gone_at = at(&gone);
    gone.kill();
    let get = async |id: &str| {
        let response = http1().get(format!("{}/{id}", envoy.data_url())).header(DEPLOYMENT_ID, id).send().await.unwrap();
        // If the agent breaks off, so does Envoy.
        let _ = response.bytes().await;
    };
    for id in ["gone", "ends", "half", "chunk", "babble"] {
        get(id).await;
    }
    let details = "upstream_reset_before_response_started";
    let case = json!({
        "deployment_id": "gone", "status": 503, "response_flags": "-", "upstream": gone_at, "error": "agent_unreachable",
        "code_details": filter_details(), "rejection": "agent_unreachable", "known": [],
    });
    check(&envoy, "/gone", case).await;
    let case = json!({
        "deployment_id": "ends", "status": 502, "response_flags": "UC", "upstream": at(&silent), "error": "agent_closed",
        "code_details": format!("{details}{{connection_termination}}"), "known": ["proxy_request_us"],
    });
    check(&envoy, "/ends", case).await;
    for (id, agent) in [("half", &half), ("chunk", &chunk)] {
        let case = json!({
            "deployment_id": id, "status": 200, "response_flags": "UPE", "upstream": at(agent), "bytes_sent": 4,
            "code_details": "upstream_reset_after_response_started{protocol_error}", "duration_us": null,
            "known": ["proxy_request_us", "agent_first_byte_us"],
        });
        check(&envoy, &format!("/{id}"), case).await;
    }
    let case = json!({
        "deployment_id": "babble", "status": 502, "response_flags": "UPE", "upstream": at(&babble),
        "error": "agent_protocol_error", "code_details": format!("{details}{{protocol_error}}"), "known": ["proxy_request_us"],
    });
    check(&envoy, "/babble", case).await;

    // A client that does not wait, and one that does not speak HTTP.
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();
    let call = client.hang(proto::request_to("hangs", Chunk::default()).unwrap());
    tokio::select! {
        response = call => panic!("{response:?}"),
        () = async { while calls.calls().is_empty() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    let case = json!({
        "deployment_id": "hangs", "method": "POST", "protocol": "HTTP/2", "status": 0, "response_flags": "DR",
        "upstream": at(&hanging), "user_agent": "tonic/0.14.9", "bytes_received": 5, "bytes_sent": 0,
        "code_details": "http2.remote_reset", "duration_us": null, "known": ["proxy_request_us"],
    });
    check(&envoy, "/pixell.test.Streams/Hang", case).await;
    wire::exchange(envoy.data_addr(), b"this is no HTTP\r\n\r\n", Duration::from_secs(5)).await;
    let wrong = envoy.logged(1, |line| line["response_flags"] == "DPE").await.unwrap().remove(0);
    assert_eq!((&wrong["status"], &wrong["upstream"]), (&json!(400), &Value::Null), "{wrong}");
}

/// An agent resets a stream, and a client closes its connection: each line names the right side, over HTTP/2 and HTTP/1.1.
#[tokio::test]
async fn resets_by_agents_and_by_clients_differ() {
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let hangs = agents::raw::start("hangs", move |mut stream| {
        let arrived = arrived.clone();
        async move {
            wire::head(&mut stream).await?;
            arrived.send(()).map_err(std::io::Error::other)?;
            // Until Envoy gives up.
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }
    });
    let (resets, hangs) = (resets(), hangs.unwrap());
    let envoy = envoy_with(&[&resets, &hangs]).await;

    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    client.ping(proto::request_to("resets", proto::Empty {}).unwrap()).await.unwrap_err();
    let line = line_of(&envoy, "/pixell.agent.AgentService/Ping").await;
    assert_eq!((&line["response_flags"], &line["upstream"]), (&json!("UR"), &json!(at(&resets))), "{line}");
    assert_eq!(line["deployment_id"], "resets");

    let mut client = tokio::net::TcpStream::connect(envoy.data_addr()).await.unwrap();
    client.write_all(b"GET /gives-up HTTP/1.1\r\nhost: h\r\nx-deployment-id: hangs\r\n\r\n").await.unwrap();
    arrivals.recv().await.unwrap();
    drop(client);
    let line = line_of(&envoy, "/gives-up").await;
    assert_eq!((&line["response_flags"], &line["upstream"]), (&json!("DC"), &json!(at(&hangs))), "{line}");
    assert_eq!(line["status"], 0);
}

/// The agent's time and the proxy's time are separate fields, and add up to the whole.
#[tokio::test]
async fn the_agents_time_and_the_proxys_time_are_separate() {
    const SLOW: Duration = Duration::from_millis(300);
    let agent = agents::raw::start("slow", |mut stream| async move {
        stream.read_u8().await?;
        tokio::time::sleep(SLOW).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
    });
    let agent = agent.unwrap();
    let envoy = envoy_with(&[&agent]).await;
    http1().get(envoy.data_url() + "/slow").header(DEPLOYMENT_ID, "slow").send().await.unwrap();
    let line = line_of(&envoy, "/slow").await;
    let [total, before, agent, first_byte, after] =
        ["duration_us", "proxy_request_us", "agent_us", "agent_first_byte_us", "proxy_response_us"]
            .map(|field| number(&line, field));
    let slow = u64::try_from(SLOW.as_micros()).unwrap();
    assert!(agent >= slow && first_byte >= slow && first_byte <= agent, "{line}");
    assert!(before + after < slow, "the proxy's time includes the agent's: {line}");
    assert!(total.abs_diff(before + agent + after) <= 3, "the parts add up to the whole, except for rounding: {line}");
    assert!(number(&line, "duration_ms").abs_diff(total / 1000) <= 1, "{line}");
}
