//! Clients that hold what is measured: idle connections, and streams that one side does not read.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::agents::streams;
use crate::proto::request_to;
use crate::proto::streams::Chunk;

/// The HTTP/2 preface and a SETTINGS frame without settings (RFC 9113, 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// HEADERS of stream 1, which end the request: `GET http://x/`, encoded with HPACK's static table.
const GET: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01x";
/// How many streams share a connection.
const STREAMS_EACH: usize = 50;

/// Sends a request with an unknown id on its own connection; it must be rejected.
pub(super) async fn rejected(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-deployment-id: nobody\r\n\r\n").await?;
    let mut response = Vec::new();
    // The body names the code. Envoy would take a second to close the connection.
    while !response.windows(8).any(|part| part == b"\"code\":\"") {
        ensure!(stream.read_buf(&mut response).await? > 0, "the connection was closed: {}", response.escape_ascii());
    }
    let rejected = response.starts_with(b"HTTP/1.1 404") || response.starts_with(b"HTTP/1.1 503");
    ensure!(rejected, "expected a rejection, got {}", response.escape_ascii());
    Ok(())
}

/// Opens `count` HTTP/2 connections. Each has had one response and is idle now.
pub(super) async fn idle(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&[HELLO, GET].concat()).await?;
        // The body of the rejection names the code; nothing comes after the body.
        let mut response = Vec::new();
        while !response.windows(21).any(|part| part == b"missing_deployment_id") {
            ensure!(stream.read_buf(&mut response).await? > 0, "the connection was closed: {}", response.escape_ascii());
        }
        all.push(stream);
    }
    Ok(all)
}

/// Starts `count` calls whose agent sends without end and whose clients read nothing.
pub(super) async fn downloads(address: SocketAddr, id: &str, count: usize) -> Result<Vec<tonic::Streaming<Chunk>>> {
    let mut all = Vec::with_capacity(count);
    let mut client = streams::connect(address).await?;
    for number in 0..count {
        if number % STREAMS_EACH == 0 {
            client = streams::connect(address).await?;
        }
        let endless = Chunk { number: u64::MAX, data: vec![0; 8 * 1024] };
        all.push(client.download(request_to(id, endless)?).await?.into_inner());
    }
    Ok(all)
}

/// Starts `count` requests whose clients send as much as they can, until the set is dropped.
pub(super) async fn uploads(address: SocketAddr, id: &str, count: usize) -> Result<JoinSet<std::io::Result<()>>> {
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nx-deployment-id: {id}\r\ncontent-length: 1000000000\r\n\r\n");
    let mut all = JoinSet::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(head.as_bytes()).await?;
        all.spawn(async move {
            let part = vec![0; 64 * 1024];
            loop {
                stream.write_all(&part).await?;
            }
        });
    }
    Ok(all)
}
