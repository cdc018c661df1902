//! Bytes on a connection, for what no proper client sends and no proper server answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends `bytes` on a connection of its own and gives all that comes back until the other side ends it, or nothing more comes for
/// `patience`.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may have had enough before the end.
    let _ = stream.write_all(bytes).await;
    drain(&mut stream, patience).await
}

/// All that comes until the other side ends the connection, or nothing more comes for `patience`.
pub(crate) async fn drain(stream: &mut TcpStream, patience: Duration) -> Vec<u8> {
    let mut all = Vec::new();
    let mut some = vec![0; 16 * 1024];
    while let Ok(Ok(count)) = tokio::time::timeout(patience, stream.read(&mut some)).await {
        if count == 0 {
            break;
        }
        all.extend_from_slice(&some[..count]);
    }
    all
}

/// Reads the head of one HTTP/1.1 message, up to and with its empty line, and nothing after it.
pub(crate) async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
