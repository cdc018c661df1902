//! An HTTP/2 connection that is used like one of HTTP/1.1: a request at a time. A thread of its own drives all of them.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::runtime::Handle;

/// How long a response may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that carries one request at a time.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Bytes>,
    responses: Receiver<Result<Response>>,
    respond: std::sync::mpsc::SyncSender<Result<Response>>,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Connection {
    /// Connects to `address`.
    ///
    /// # Errors
    /// If nobody listens there, or the server does not speak HTTP/2.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let (ready, opened) = sync_channel(1);
        driver()?.spawn(async move {
            // Nobody waits any more if the bench has ended meanwhile.
            let _ = ready.send(connect(address).await);
        });
        let sender = opened.recv_timeout(PATIENCE).context("connecting over HTTP/2")??;
        let (respond, responses) = sync_channel(1);
        Ok(Self { sender, responses, respond })
    }

    /// Sends a request with these headers.
    ///
    /// # Errors
    /// If a header is not valid.
    pub fn send(&mut self, headers: &[(&str, &str)]) -> Result<()> {
        let mut request = Request::builder().method(Method::GET).uri("http://agents/work");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (request, sender, respond) = (request.body(())?, self.sender.clone(), self.respond.clone());
        driver()?.spawn(async move {
            let _ = respond.send(exchange(sender, request).await);
        });
        Ok(())
    }

    /// Waits for the response to the last request.
    ///
    /// # Errors
    /// If the stream or the connection ends first.
    pub fn receive(&mut self) -> Result<Response> {
        self.responses.recv_timeout(PATIENCE).context("waiting for a response")?
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(sender: SendRequest<Bytes>, request: Request<()>) -> Result<Response> {
    let (response, _) = sender.ready().await?.send_request(request, true)?;
    let response = response.await?;
    let (status, mut body) = (response.status().as_u16(), response.into_body());
    let mut whole = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        whole.extend_from_slice(&part);
    }
    Ok(Response { status, body: whole.freeze() })
}

/// The runtime of all connections. Its thread has the core of the thread that asks first.
fn driver() -> Result<&'static Handle> {
    static DRIVER: OnceLock<std::io::Result<Handle>> = OnceLock::new();
    let started = DRIVER.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name("http2".to_owned()).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(handle)
    });
    started.as_ref().map_err(|error| anyhow!("no thread for HTTP/2: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_agent;

    #[test]
    fn a_request_has_its_response() {
        let address = (std::net::Ipv4Addr::LOCALHOST, stream_agent::start().unwrap()).into();
        let mut connection = Connection::open(address).unwrap();
        for _ in 0..2 {
            connection.send(&[("x-deployment-id", "a")]).unwrap();
            let response = connection.receive().unwrap();
            assert_eq!((response.status, response.body.len()), (200, 0));
        }
    }
}
