//! An HTTP/2 agent for long streams: it sends back each part of a request's body as soon as it comes.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::{RecvStream, SendStream};

/// Starts the agent on a free port, in its own thread. It serves until the program ends.
///
/// # Errors
/// If no port is free.
pub fn start() -> Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port for an agent")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || runtime.block_on(accept(listener)));
    Ok(port)
}

async fn accept(listener: std::net::TcpListener) -> Option<()> {
    let listener = tokio::net::TcpListener::from_std(listener).ok()?;
    loop {
        let (stream, _) = listener.accept().await.ok()?;
        stream.set_nodelay(true).ok()?;
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.ok()?;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let response = http::Response::builder().header("content-type", "application/grpc").body(()).ok()?;
                let send = respond.send_response(response, false).ok()?;
                tokio::spawn(echo(request.into_body(), send));
            }
            Some(())
        });
    }
}

async fn echo(mut body: RecvStream, mut send: SendStream<Bytes>) -> Option<()> {
    while let Some(Ok(part)) = body.data().await {
        body.flow_control().release_capacity(part.len()).ok()?;
        send.send_data(part, false).ok()?;
    }
    let trailers = std::iter::once((http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0")));
    send.send_trailers(trailers.collect()).ok()
}

/// A stream to the agent, through a proxy.
#[derive(Debug)]
pub struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
}

impl Stream {
    /// Opens a stream to the agent of `id` on `port` through the proxy at `address`, on its own connection.
    ///
    /// # Errors
    /// If the proxy or the agent does not accept it.
    pub async fn open(address: SocketAddr, id: &str, port: u16) -> Result<Self> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://{address}/pixell.agent.AgentService/Chat"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-envoy-original-dst-host", format!("127.0.0.1:{port}"))
            .header("x-deployment-id", id)
            .body(())?;
        let (response, send) = client.ready().await?.send_request(request, false)?;
        let response = response.await?;
        anyhow::ensure!(
            response.status() == 200,
            "the response to the stream is {}: {:?}",
            response.status(),
            response.headers()
        );
        Ok(Self { send, receive: response.into_body() })
    }

    /// Sends `message` and waits until all of it has come back.
    ///
    /// # Errors
    /// If the stream ends.
    pub async fn exchange(&mut self, message: &Bytes) -> Result<()> {
        self.send.send_data(message.clone(), false)?;
        let mut missing = message.len();
        while missing > 0 {
            let part = self.receive.data().await.context("the stream has ended")??;
            self.receive.flow_control().release_capacity(part.len())?;
            missing = missing.checked_sub(part.len()).context("more came back than was sent")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_message_comes_back() {
        let port = start().unwrap();
        let mut stream = Stream::open(([127, 0, 0, 1], port).into(), "a", port).await.unwrap();
        for message in ["one", "another"] {
            stream.exchange(&Bytes::from_static(message.as_bytes())).await.unwrap();
        }
    }
}
