//! SSE and WebSocket: each event arrives as it is sent, and a stream may be silent for as long as its two sides like.

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

/// An agent that responds with the events of this channel, each at once.
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

/// An agent that sends events, and the channel for them.
pub(crate) fn event_agent() -> (broadcast::Sender<Bytes>, Agent) {
    let (source, _) = broadcast::channel(1);
    let agent = events(&source);
    (source, agent)
}

#[tokio::test]
async fn each_event_arrives_as_it_is_sent() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (source, _) = broadcast::channel(1);
    let agent = events(&source);
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for client in [http1(), http2()] {
        let mut response = client.get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        for number in 0..100 {
            // The next event is sent once this one has arrived, so nothing may be held back.
            let event = Bytes::from(format!("id: {number}\ndata: {{}}\n\n"));
            source.send(event.clone()).unwrap();
            let arrived = tokio::time::timeout(Duration::from_secs(5), response.chunk()).await;
            assert_eq!(arrived.unwrap().unwrap().unwrap(), event);
        }
    }
}

/// The event that a stream sends after three seconds of silence; none if the stream was cut.
async fn silence(envoy: &Envoy) -> Option<Bytes> {
    let (source, _) = broadcast::channel(1);
    let agent = events(&source);
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let mut response = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").send().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // If the stream was cut, nobody receives it.
    let _ = source.send("data: still here\n\n".into());
    tokio::time::timeout(Duration::from_secs(5), response.chunk()).await.unwrap().ok().flatten()
}

/// By default, Envoy cuts a silent stream after 5 minutes. With that setting at one second, the stream is cut. As shipped, without the
/// setting, the same stream lives.
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
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.status(), 101);
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

/// An upgrade without a route is rejected like any other request.
#[tokio::test]
async fn a_websocket_without_an_id_is_rejected() {
    let envoy = Envoy::builder().start().await.unwrap();
    let request = format!("ws://{}/", envoy.data_addr()).into_client_request().unwrap();
    let stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
    let error = tokio_tungstenite::client_async(request, stream).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = error else { panic!("{error}") };
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-pixell-error"]),
        (400, &"missing_deployment_id".parse().unwrap())
    );
}
