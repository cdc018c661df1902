//! An HTTP/1.1 agent that responds to every request with the request itself, as a line of JSON:
//! `{"agent", "method", "path", "version", "headers": [[name, value], ...], "body_bytes"}`.
//!
//! Bytes of header values that are not UTF-8 become replacement characters.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;

use super::{Agent, Seat};

/// Starts an agent on a free port.
///
/// # Errors
/// If no port is free.
pub fn start(name: &str) -> Result<Agent> {
    start_on(name, 0)
}

/// Starts an agent on `port`.
///
/// # Errors
/// If the port is in use.
pub fn start_on(name: &str, port: u16) -> Result<Agent> {
    Agent::start(name, port, serve)
}

async fn serve(seat: Seat) -> Result<()> {
    let Seat { name, listener, mut stopped } = seat;
    let connections = GracefulShutdown::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = &mut stopped => break,
        };
        let name = name.clone();
        let service = service_fn(move |request| respond(name.clone(), request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // A client that closes the connection is not an error of the agent.
            let _ = connection.await;
        });
    }
    drop(listener);
    connections.shutdown().await;
    Ok(())
}

async fn respond(agent: String, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body_bytes = body.collect().await.map(|body| body.to_bytes().len()).ok();
    let headers: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))).collect();
    let seen = json!({
        "agent": agent,
        "method": head.method.as_str(),
        "path": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body_bytes": body_bytes,
    });
    let mut response = Response::new(Full::from(format!("{seen}\n")));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn responds_with_the_request() {
        let agent = start("mirror").unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}/some/path?q=1", agent.port());
        let response = client.post(url).header("x-one", "1").body("four").send().await.unwrap();
        let seen: serde_json::Value = response.json().await.unwrap();
        assert_eq!(seen["agent"], "mirror");
        assert_eq!(seen["method"], "POST");
        assert_eq!(seen["path"], "/some/path?q=1");
        assert_eq!(seen["body_bytes"], 4);
        assert!(seen["headers"].as_array().unwrap().contains(&json!(["x-one", "1"])), "{seen}");
        // The client's idle connection does not delay the stop.
        agent.stop().await.unwrap();
    }
}
