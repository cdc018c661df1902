//! Every kind of gRPC call works through the proxy as it does without it.

use std::time::Duration;

use harness::agents::{self, streams};
use harness::proto::streams::Chunk;
use harness::proto::{self, ActionRequest, MESSAGE_LIMIT, request_to};
use harness::{Agent, Envoy, wait};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

const ROUNDS: u64 = 10_000;

async fn started() -> (Envoy, Agent, streams::Hanging) {
    let envoy = Envoy::builder().start().await.unwrap();
    let (agent, hanging) = streams::start("s").unwrap();
    envoy.routes().put_all([("s", agent.port())]).await.unwrap();
    (envoy, agent, hanging)
}

fn chunk(number: u64) -> Chunk {
    Chunk { number, data: number.to_le_bytes().to_vec() }
}

#[tokio::test]
async fn ten_thousand_messages_each_way() {
    let (envoy, _agent, _) = started().await;
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();

    let up = tokio_stream::iter((0..ROUNDS).map(chunk));
    let sum = client.upload(request_to("s", up).unwrap()).await.unwrap().into_inner();
    assert_eq!((sum.number, sum.data), (ROUNDS, chunk(ROUNDS - 1).data));

    let many = Chunk { number: ROUNDS, data: vec![7; 100] };
    let mut down = client.download(request_to("s", many).unwrap()).await.unwrap().into_inner();
    for number in 0..ROUNDS {
        assert_eq!(down.message().await.unwrap().unwrap().number, number);
    }
    assert_eq!(down.message().await.unwrap(), None);

    // Interleaved: the next message is sent once the response to the last one is here, so nothing may be held back.
    let (send, receive) = mpsc::channel(1);
    let mut chat = client.chat(request_to("s", ReceiverStream::new(receive)).unwrap()).await.unwrap().into_inner();
    for number in 0..ROUNDS {
        send.send(chunk(number)).await.unwrap();
        assert_eq!(chat.message().await.unwrap().unwrap(), chunk(number));
    }
    drop(send);
    assert_eq!(chat.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_message_of_100_mb_both_ways() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::grpc::start("big").unwrap();
    envoy.routes().put_all([("big", agent.port())]).await.unwrap();
    // As much as fits with the other fields.
    let text = "0123456789abcdef".repeat((MESSAGE_LIMIT - 1024) / 16);
    let request = ActionRequest { action: "echo".into(), parameters: [("text".into(), text.clone())].into(), ..<_>::default() };
    assert!(request.encoded_len() > 100_000_000);
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    let result = client.invoke(request_to("big", request).unwrap()).await.unwrap().into_inner().result;
    assert!(result == text, "{} other bytes came back", result.len());
}

#[tokio::test]
async fn deadline_and_cancellation_reach_the_agent() {
    let (envoy, _agent, hanging) = started().await;
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();
    let mut request = request_to("s", chunk(1)).unwrap();
    request.set_timeout(Duration::from_secs(4));
    let status = client.hang(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
    let cancelled = |number: usize| {
        let hanging = hanging.clone();
        wait::until("the agent to see the end of both calls", Duration::from_secs(5), move || {
            let call = hanging.calls().get(number).filter(|call| call.cancelled).cloned();
            async { Ok(call) }
        })
    };
    let first = cancelled(0).await.unwrap();
    assert_eq!(first.timeout.as_deref(), Some("4000m"), "the deadline reaches the agent, as Envoy writes it");

    // A client that gives up without a deadline.
    let given_up = client.hang(request_to("s", chunk(2)).unwrap());
    let arrived = wait::until("the agent to get the call", Duration::from_secs(20), || {
        let count = hanging.calls().len();
        async move { Ok((count == 2).then_some(())) }
    });
    tokio::select! {
        response = given_up => panic!("{response:?}"),
        arrived = arrived => arrived.unwrap(),
    }
    assert_eq!(cancelled(1).await.unwrap().timeout, None);
}

#[tokio::test]
async fn metadata_and_rich_errors_pass() {
    let (envoy, _agent, _) = started().await;
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    let mut request: Request<Chunk> = request_to("s", chunk(1)).unwrap();
    request.metadata_mut().append("x-echo-text", "one, two".parse().unwrap());
    request.metadata_mut().append("x-echo-text", "three".parse().unwrap());
    request.metadata_mut().append("x-echo-with_underscore", "kept".parse().unwrap());
    request.metadata_mut().append_bin("x-echo-raw-bin", MetadataValue::from_bytes(&bytes));
    let response = client.unary(request).await.unwrap();
    let texts: Vec<_> = response.metadata().get_all("x-echo-text").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(texts.join(","), "one, two,three");
    assert_eq!(response.metadata().get("x-echo-with_underscore").unwrap(), "kept");
    assert_eq!(response.metadata().get_bin("x-echo-raw-bin").unwrap().to_bytes().unwrap(), bytes);

    let agent = agents::grpc::start("g").unwrap();
    envoy.routes().put_all([("g", agent.port())]).await.unwrap();
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    for code in 1..=16 {
        let message = "50 % \u{e4}\n\u{1f980}";
        let parameters = [("code", code.to_string()), ("message", message.into()), ("details", "\u{0}\u{1}rich".into())];
        let parameters = parameters.map(|(key, value)| (key.to_owned(), value)).into();
        let failing = ActionRequest { action: "fail".into(), parameters, ..ActionRequest::default() };
        let status = client.invoke(request_to("g", failing).unwrap()).await.unwrap_err();
        assert_eq!((status.code(), status.message(), status.details()), (Code::from(code), message, &b"\0\x01rich"[..]));
        assert!(status.metadata().get("x-pixell-error").is_none());
    }
}
