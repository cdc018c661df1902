//! Callers that hold what is measured: idle connections, and streams of which one side does not read.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agents::streams;
use crate::proto::request_to;
use crate::proto::streams::Chunk;

/// The HTTP/2 preface and a SETTINGS frame without settings (RFC 9113, 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// HEADERS of stream 1 with the end of the request: GET / of http and of the host x, by the static table of HPACK.
const GET: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01x";
/// How many streams share a connection of callers.
const STREAMS_EACH: usize = 50;
/// A caller whose bytes find no room for so long has filled everything on the way.
const FULL: Duration = Duration::from_millis(300);

/// Asks without an id on a connection of its own.
pub(super) async fn refused(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-deployment-id: nobody\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 404") || answer.starts_with(b"HTTP/1.1 503"), "{}", answer.escape_ascii());
    Ok(())
}

/// `count` HTTP/2 connections that have each had one answer and are idle now.
pub(super) async fn idle(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&[HELLO, GET].concat()).await?;
        // The answer's body names the code; nothing comes after it.
        let mut answer = Vec::new();
        while !answer.windows(21).any(|part| part == b"missing_deployment_id") {
            ensure!(stream.read_buf(&mut answer).await? > 0, "the connection was ended: {}", answer.escape_ascii());
        }
        all.push(stream);
    }
    Ok(all)
}

/// `count` calls whose agent sends without end, and whose callers read nothing.
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

/// `count` requests whose callers send until nothing more is taken.
pub(super) async fn uploads(address: SocketAddr, id: &'static str, count: usize) -> Result<Vec<TcpStream>> {
    let uploads: Vec<_> = (0..count).map(|_| tokio::spawn(upload(address, id))).collect();
    let mut all = Vec::with_capacity(count);
    for upload in uploads {
        all.push(upload.await??);
    }
    Ok(all)
}

async fn upload(address: SocketAddr, id: &'static str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nx-deployment-id: {id}\r\ncontent-length: 1000000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let part = vec![0; 64 * 1024];
    while let Ok(written) = tokio::time::timeout(FULL, stream.write(&part)).await {
        written?;
    }
    Ok(stream)
}
