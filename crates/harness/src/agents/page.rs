//! An agent with a page for people, `GET /`, which uses what browsers can only reach by path or host: server-sent events (`/events`) and a
//! WebSocket (`/echo`), beside a plain request (`/hello`). docs/addressing.md shows the page.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode, header, upgrade};
use hyper_util::rt::TokioIo;
use tokio_stream::wrappers::IntervalStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Agent, http};

/// The page.
pub const PAGE: &str = include_str!("page.html");

/// Starts an agent on `port` (0: any free one).
///
/// # Errors
/// If the port is taken.
pub fn start(name: &str, port: u16) -> Result<Agent> {
    let name = name.to_owned();
    http::start(&name.clone(), port, http::Version::Http1, move |request| {
        let name = name.clone();
        async move { respond(&name, request) }
    })
}

fn respond(name: &str, request: Request<Incoming>) -> Response<http::Body> {
    match request.uri().path() {
        "/" => with_type("text/html; charset=utf-8", http::whole(PAGE)),
        "/events" => events(),
        "/echo" => echo(request),
        "/hello" => with_type("text/plain; charset=utf-8", http::whole(format!("{name} says hello"))),
        _ => {
            let mut response = Response::new(http::whole("not here\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

fn with_type(content_type: &'static str, body: http::Body) -> Response<http::Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// Server-sent events, one each second.
#[must_use]
pub fn events() -> Response<http::Body> {
    let ticks = IntervalStream::new(tokio::time::interval(Duration::from_secs(1)));
    let events = ticks.enumerate().map(|(number, _)| Ok(Frame::data(Bytes::from(format!("data: event {}\n\n", number + 1)))));
    with_type("text/event-stream", BodyExt::boxed(StreamBody::new(events)))
}

/// A WebSocket (RFC 6455) that sends back what it gets.
fn echo(request: Request<Incoming>) -> Response<http::Body> {
    let mut response = Response::new(http::whole(""));
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let accept = derive_accept_key(key.as_bytes());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", &accept)] {
        // Base64 is a header's value.
        if let Ok(value) = header::HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    tokio::spawn(async {
        // A client that goes away is no error of the agent.
        let Ok(upgraded) = upgrade::on(request).await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    response
}
