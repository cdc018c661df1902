//! Streams of events: SSE and WebSocket, each event as it is sent, and silence for as long as the two sides like.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use harness::agents::{self, http as agent};
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy};
use http_body_util::{BodyExt, Channel};
use hyper::Response;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::clients::{http1, http2};

/// An agent that answers with the events that are put into the channel, each at once.
fn events(source: &broadcast::Sender<Bytes>) -> Agent {
    let source = source.clone();
    let agent = agent::start("events", 0, agent::Version::Http1, move |_| {
        let mut events = source.subscribe();
        async move {
            let (mut send, body) = Channel::<Bytes, std::io::Error>::new(1);
            tokio::spawn(async move {
                while let Ok(event) = events.recv().await {
                    if send.send_data(event).await.is_err() {
                        break;
                    }
                }
            });
            Response::builder().header("content-type", "text/event-stream").body(body.boxed()).unwrap()
        }
    });
    agent.unwrap()
}

#[tokio::test]
async fn each_event_arrives_as_it_is_sent() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (source, _) = broadcast::channel(1);
    let agent = events(&source);
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for client in [http1(), http2()] {
        let mut answer = client.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        for number in 0..100 {
            // The next one is sent when this one is here: nothing may be held back.
            let event = Bytes::from(format!("id: {number}\ndata: {{}}\n\n"));
            source.send(event.clone()).unwrap();
            let arrived = tokio::time::timeout(Duration::from_secs(5), answer.chunk()).await;
            assert_eq!(arrived.unwrap().unwrap().unwrap(), event);
        }
    }
}

/// How a stream fares that is silent for three seconds and then goes on.
async fn silence(envoy: &Envoy) -> Option<Bytes> {
    let (source, _) = broadcast::channel(1);
    let agent = events(&source);
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let mut answer = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Nobody listens any more where the stream was cut.
    let _ = source.send("data: still here\n\n".into());
    tokio::time::timeout(Duration::from_secs(5), answer.chunk()).await.unwrap().ok().flatten()
}

/// Envoy's own setting would cut a silent stream after 5 minutes. With the setting at one second that is seen to happen, and
/// without it, as shipped, the same stream lives.
#[tokio::test]
async fn a_silent_stream_lives() {
    let short = Envoy::builder().edit("stream_idle_timeout: 0s", "stream_idle_timeout: 1s").start().await.unwrap();
    let shipped = Envoy::builder().start().await.unwrap();
    let (cut, lives) = tokio::join!(silence(&short), silence(&shipped));
    assert_eq!(cut, None);
    assert_eq!(lives, Some("data: still here\n\n".into()));
}

#[tokio::test]
async fn websockets_talk_both_ways() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::raw::start("ws", |stream| async {
        let mut socket = tokio_tungstenite::accept_async(stream).await.map_err(std::io::Error::other)?;
        socket.send("first, unasked".into()).await.map_err(std::io::Error::other)?;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.map_err(std::io::Error::other)?;
            }
        }
        Ok(())
    });
    let agent = agent.unwrap();
    envoy.routes().put_all([("ws", agent.port())]).await.unwrap();
    let mut request = format!("ws://{}/chat?x=1", envoy.data_addr()).into_client_request().unwrap();
    request.headers_mut().insert(DEPLOYMENT_ID, "ws".parse().unwrap());
    let stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::from("first, unasked"));
    for number in 0..500_usize {
        let message =
            if number % 2 == 0 { Message::from(format!("text {number}")) } else { Message::from(vec![7; number * 100]) };
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    assert!(matches!(socket.next().await, None | Some(Ok(Message::Close(_)))));
}

/// Without a route the upgrade is refused like any request.
#[tokio::test]
async fn a_websocket_to_nobody_is_refused() {
    let envoy = Envoy::builder().start().await.unwrap();
    let request = format!("ws://{}/", envoy.data_addr()).into_client_request().unwrap();
    let stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
    let error = tokio_tungstenite::client_async(request, stream).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(answer) = error else { panic!("{error}") };
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-pixell-error"]),
        (400, &"missing_deployment_id".parse().unwrap())
    );
}
