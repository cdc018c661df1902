//! A failing agent affects only its own clients.

use std::error::Error;
use std::time::Duration;

use harness::agents::{self, streams};
use harness::proto::streams::Chunk;
use harness::proto::{self, DEPLOYMENT_ID, Empty, request_to};
use harness::{Agent, Envoy, wait};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::clients::{http1, http2};
use crate::wire;

fn chunk(number: u64) -> Chunk {
    Chunk { number, data: Vec::new() }
}

#[tokio::test]
async fn clients_of_a_killed_agent_get_unavailable_and_nobody_else_notices() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (mortal, _) = streams::start("mortal").unwrap();
    let (other, _) = streams::start("other").unwrap();
    envoy.routes().put_all([("mortal", mortal.port()), ("other", other.port())]).await.unwrap();
    // Both streams on one connection of the client.
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
    assert_eq!(unary_status.code(), Code::Unavailable, "a call without a response so far: {unary_status:?}");
    assert_eq!(unary_status.metadata().get("x-pixell-error").unwrap(), "agent_closed");
    // Once a response has started, Envoy can only reset the stream, which gRPC maps to INTERNAL.
    assert_eq!(status.code(), Code::Internal, "a stream in flight: {status:?}");
    let causes = std::iter::successors(status.source(), |&cause| cause.source());
    let resets: Vec<_> = causes.filter_map(|cause| cause.downcast_ref::<h2::Error>().and_then(h2::Error::reason)).collect();
    assert_eq!(resets, [h2::Reason::INTERNAL_ERROR], "{status:?}");
    for number in 0..10 {
        to_other.send(chunk(number)).await.unwrap();
        assert_eq!(with_other.message().await.unwrap(), Some(chunk(number)));
    }
}

/// A new agent takes the port of an agent that died. Once the map says so, no request for the old agent reaches the new one, not even
/// over connections that Envoy had open to the port.
#[tokio::test]
async fn a_reused_port_never_responds_for_its_old_owner() {
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
            let response = client.health(request_to("second", Empty {}).unwrap()).await.unwrap().into_inner();
            assert_eq!(response.message, second.name());
        }
    }
}

/// An HTTP/1.1 agent that responds with its name. When it is told to stop, it closes its listener and keeps its connections.
fn lingering(name: &'static str, port: u16) -> anyhow::Result<Agent> {
    Agent::start(name, port, move |mut seat| async move {
        loop {
            let (mut stream, _) = tokio::select! {
                accepted = seat.listener.accept() => accepted?,
                _ = &mut seat.stopped => break,
            };
            tokio::spawn(async move {
                while wire::head(&mut stream).await.is_ok() {
                    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                    stream.write_all(response.as_bytes()).await?;
                }
                std::io::Result::Ok(())
            });
        }
        drop(seat.listener);
        std::future::pending().await
    })
}

/// An agent that has lost its port may keep running, with connections from Envoy open. Envoy does not use them for the new owner.
#[tokio::test]
async fn connections_to_the_old_owner_of_a_port_are_not_used_for_the_new_owner() {
    let envoy = Envoy::builder().start().await.unwrap();
    let mut old = lingering("old", 0).unwrap();
    let port = old.port();
    envoy.routes().put_all([("old", port)]).await.unwrap();
    // Connections on both workers.
    let clients: Vec<_> = (0..16).map(|number| if number % 2 == 0 { http1() } else { http2() }).collect();
    let ask = async |client: &reqwest::Client, id: &str| {
        let response = client.get(envoy.data_url()).header(DEPLOYMENT_ID, id).send().await.unwrap();
        response.text().await.unwrap()
    };
    for client in &clients {
        assert_eq!(ask(client, "old").await, "old");
    }
    old.tell_to_stop();
    let new = wait::until("the port", Duration::from_secs(10), || async { Ok(lingering("new", port).ok()) }).await.unwrap();
    envoy.routes().put_route("new", &port.into()).await.unwrap();
    for client in &clients {
        assert_eq!(ask(client, "new").await, "new");
    }
    let open = envoy.stat("cluster.agents_http1.upstream_cx_active").await.unwrap().unwrap();
    let destroyed = envoy.stat("cluster.agents_http1.upstream_cx_destroy").await.unwrap().unwrap_or_default();
    assert!(open >= 2 && destroyed < 8, "the old owner's connections were open: {open} open, {destroyed} closed");
    drop((old, new));
}
