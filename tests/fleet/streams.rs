//! What lasts longer than one response goes through a hop as it goes to an agent of the same task.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use harness::agents;
use harness::fleet::Peers;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::tasks::Tasks;

#[tokio::test]
async fn websockets_and_events_go_through_by_path_and_header() {
    websockets_and_events_go_through(Peers::ByAddress).await;
}

#[tokio::test]
async fn websockets_and_events_go_through_with_certificates() {
    websockets_and_events_go_through(Peers::ByCertificate).await;
}

async fn websockets_and_events_go_through(peers: Peers) {
    // Calls end after 3 s. A WebSocket is not a call.
    let tasks = Tasks::by(peers, vec![("PIXELL_CALL_TIMEOUT_SECONDS", "3".to_owned())]).await;
    let agent = tasks.agent(1, || agents::page::start("page", 0)).await;
    tasks.routes(0, json!({})).await;
    tasks.routes(1, json!({ "p": agent.port() })).await;
    // The first peer does not have it: an upgrade is sent on as any request is.
    tasks.fleet(0, &[("p", &[0, 1])]).await;
    let address = tasks.data(0);
    for (path, header) in [("/agents/p/ui/echo", ""), ("/echo", "p")] {
        let talk = move || async move {
            let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
            if !header.is_empty() {
                request.headers_mut().insert("x-deployment-id", header.parse().unwrap());
            }
            let stream = TcpStream::connect(address).await.unwrap();
            let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
            let mut responses = Vec::new();
            for number in 0..10_u8 {
                tokio::time::sleep(Duration::from_millis(400)).await;
                let message = Message::text(number.to_string().repeat(100_000));
                socket.send(message.clone()).await.unwrap();
                let response = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap().unwrap().unwrap();
                responses.push(response == message);
            }
            socket.close(None).await.unwrap();
            responses
        };
        let responses = tasks.fabric.outside().run(talk).await.unwrap();
        assert!(responses.len() == 10 && responses.iter().all(|same| *same), "{path}: {responses:?}");
    }
    let events = move || async move {
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let mut response = client.get(format!("http://{address}/agents/p/ui/events")).send().await.unwrap();
        // The agent sends one each second, and does not end.
        let first = tokio::time::timeout(Duration::from_secs(5), response.chunk()).await.unwrap().unwrap().unwrap();
        (response.headers()["content-type"].clone(), first)
    };
    let (kind, first) = tasks.fabric.outside().run(events).await.unwrap();
    assert_eq!(kind.to_str().unwrap(), "text/event-stream");
    assert!(first.starts_with(b"data: event 1\n\n"), "{first:?}");
    tasks.have_met().await;
    // Both tasks learn that the client is gone.
    let gone = async || tasks.count(1, "http.peers.downstream_rq_active").await == 0;
    for _ in 0..50 {
        if gone().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the stream goes on without its client");
}
