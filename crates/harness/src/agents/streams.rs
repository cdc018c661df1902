//! An agent that serves `crates/harness/proto/streams.proto`: the four kinds of gRPC calls, and one that never ends.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::KeyAndValueRef;
use tonic::{Request, Response, Status, Streaming};

use super::{Agent, Seat};
use crate::proto::MESSAGE_LIMIT;
use crate::proto::streams::streams_server::{Streams, StreamsServer};
use crate::proto::streams::{Chunk, streams_client::StreamsClient};

/// The calls of `Hang` that the agent has received.
#[derive(Clone, Debug, Default)]
pub struct Hanging(Arc<Mutex<Vec<Hung>>>);

/// One call of `Hang`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hung {
    /// Its header `grpc-timeout`.
    pub timeout: Option<String>,
    /// Whether the agent has learned that the client no longer waits.
    pub cancelled: bool,
}

impl Hanging {
    /// All calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Hung> {
        self.0.lock().map(|calls| calls.clone()).unwrap_or_default()
    }
}

/// Starts an agent on a free port.
///
/// # Errors
/// If no port is free.
pub fn start(name: &str) -> Result<(Agent, Hanging)> {
    let hanging = Hanging::default();
    let agent = Agent::start(name, 0, |seat| serve(seat, hanging.clone()))?;
    Ok((agent, hanging))
}

/// A client with its own connection to `address`.
///
/// # Errors
/// If nothing listens there.
pub async fn connect(address: std::net::SocketAddr) -> Result<StreamsClient<tonic::transport::Channel>> {
    let channel = tonic::transport::Endpoint::try_from(format!("http://{address}"))?.connect().await?;
    Ok(StreamsClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
}

async fn serve(seat: Seat, hanging: Hanging) -> Result<()> {
    let service = StreamsServer::new(Service { hanging }).max_decoding_message_size(MESSAGE_LIMIT);
    let stopped = async {
        // The sender is only dropped, so this is always an error.
        let _ = seat.stopped.await;
    };
    let server = tonic::transport::Server::builder().add_service(service.max_encoding_message_size(MESSAGE_LIMIT));
    server.serve_with_incoming_shutdown(TcpListenerStream::new(seat.listener), stopped).await?;
    Ok(())
}

struct Service {
    hanging: Hanging,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

#[tonic::async_trait]
impl Streams for Service {
    async fn unary(&self, request: Request<Chunk>) -> Result<Response<Chunk>, Status> {
        let (metadata, _, chunk) = request.into_parts();
        let mut response = Response::new(chunk);
        for header in metadata.iter() {
            match header {
                KeyAndValueRef::Ascii(key, value) if key.as_str().starts_with("x-echo-") => {
                    response.metadata_mut().append(key, value.clone());
                }
                KeyAndValueRef::Binary(key, value) if key.as_str().starts_with("x-echo-") => {
                    response.metadata_mut().append_bin(key, value.clone());
                }
                _ => {}
            }
        }
        Ok(response)
    }

    async fn upload(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Chunk>, Status> {
        let mut chunks = request.into_inner();
        let mut sum = Chunk::default();
        while let Some(chunk) = chunks.message().await? {
            sum = Chunk { number: sum.number + 1, data: chunk.data };
        }
        Ok(Response::new(sum))
    }

    type DownloadStream = Chunks;

    async fn download(&self, request: Request<Chunk>) -> Result<Response<Chunks>, Status> {
        let Chunk { number, data } = request.into_inner();
        let chunks = (0..number).map(move |number| Ok(Chunk { number, data: data.clone() }));
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    type ChatStream = Chunks;

    async fn chat(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Chunks>, Status> {
        Ok(Response::new(Box::pin(request.into_inner().map(|chunk| chunk))))
    }

    async fn hang(&self, request: Request<Chunk>) -> Result<Response<Chunk>, Status> {
        let timeout = request.metadata().get("grpc-timeout").and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let _cancelled = Cancelled::when_dropped(&self.hanging, timeout);
        std::future::pending().await
    }
}

/// Marks a call of `Hang` as cancelled when it is dropped: the server drops a call if its client is gone.
struct Cancelled(Hanging, usize);

impl Cancelled {
    fn when_dropped(hanging: &Hanging, timeout: Option<String>) -> Self {
        let number = hanging.0.lock().map(|mut calls| {
            calls.push(Hung { timeout, cancelled: false });
            calls.len() - 1
        });
        Self(hanging.clone(), number.unwrap_or_default())
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Ok(mut calls) = self.0.0.lock()
            && let Some(call) = calls.get_mut(self.1)
        {
            call.cancelled = true;
        }
    }
}
