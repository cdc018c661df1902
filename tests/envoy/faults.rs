//! What goes wrong around an agent stays with that agent.

use std::error::Error;
use std::time::Duration;

use harness::agents::{self, streams};
use harness::proto::streams::Chunk;
use harness::proto::{self, Empty, request_to};
use harness::{Envoy, wait};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn chunk(number: u64) -> Chunk {
    Chunk { number, data: Vec::new() }
}

#[tokio::test]
async fn a_killed_agents_callers_get_unavailable_and_nobody_else_notices() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (mortal, _) = streams::start("mortal").unwrap();
    let (other, _) = streams::start("other").unwrap();
    envoy.routes().put_all([("mortal", mortal.port()), ("other", other.port())]).await.unwrap();
    // Both streams on one connection of the caller.
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();
    let (to_mortal, receive) = mpsc::channel(1);
    let mut with_mortal = client.chat(request_to("mortal", ReceiverStream::new(receive)).unwrap()).await.unwrap().into_inner();
    let (to_other, receive) = mpsc::channel(1);
    let mut with_other = client.chat(request_to("other", ReceiverStream::new(receive)).unwrap()).await.unwrap().into_inner();
    let mut unary = client.clone();
    let hanging = tokio::spawn(async move { unary.hang(request_to("mortal", chunk(0)).unwrap()).await });
    for number in 0..10 {
        to_mortal.send(chunk(number)).await.unwrap();
        assert_eq!(with_mortal.message().await.unwrap(), Some(chunk(number)));
        to_other.send(chunk(number)).await.unwrap();
        assert_eq!(with_other.message().await.unwrap(), Some(chunk(number)));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    mortal.kill();
    let status = with_mortal.message().await.unwrap_err();
    let unary_status = hanging.await.unwrap().unwrap_err();
    assert_eq!(unary_status.code(), Code::Unavailable, "a call without an answer so far: {unary_status:?}");
    assert_eq!(unary_status.metadata().get("x-pixell-error").unwrap(), "agent_unreachable");
    // Once an answer has begun, Envoy can only reset the stream, and gRPC's mapping of resets makes INTERNAL of that.
    assert_eq!(status.code(), Code::Internal, "a stream that was under way: {status:?}");
    let causes = std::iter::successors(status.source(), |&cause| cause.source());
    let resets: Vec<_> = causes.filter_map(|cause| cause.downcast_ref::<h2::Error>().and_then(h2::Error::reason)).collect();
    assert_eq!(resets, [h2::Reason::INTERNAL_ERROR], "{status:?}");
    for number in 0..10 {
        to_other.send(chunk(number)).await.unwrap();
        assert_eq!(with_other.message().await.unwrap(), Some(chunk(number)));
    }
}

/// The port of an agent that died is taken by another one. Once the map says so, nobody who asks for the first reaches the second,
/// also over connections that Envoy had open to the port.
#[tokio::test]
async fn a_reused_port_never_answers_for_its_old_owner() {
    let envoy = Envoy::builder().start().await.unwrap();
    let first = agents::grpc::start("first").unwrap();
    let port = first.port();
    envoy.routes().put_all([("first", port)]).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = proto::connect(envoy.data_addr()).await.unwrap();
        client.health(request_to("first", Empty {}).unwrap()).await.unwrap();
        clients.push(client);
    }
    first.kill();
    let second = wait::until("the port", Duration::from_secs(10), || async { Ok(agents::grpc::start_on("second", port).ok()) });
    let second = second.await.unwrap();
    let pushed = envoy.routes().put_route("second", &port.into()).await.unwrap();
    assert_eq!(pushed.json().unwrap()["displaced"], serde_json::json!(["first"]));
    for _ in 0..20 {
        for client in &mut clients {
            let status = client.health(request_to("first", Empty {}).unwrap()).await.unwrap_err();
            assert_eq!(status.code(), Code::NotFound);
            let answer = client.health(request_to("second", Empty {}).unwrap()).await.unwrap().into_inner();
            assert_eq!(answer.message, second.name());
        }
    }
}
