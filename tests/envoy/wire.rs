//! Raw bytes on a connection, for what HTTP clients and servers do not send.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use harness::Envoy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Sends `bytes` on a new connection. Returns all that comes back until the other side closes it, or until nothing more comes for
/// `patience`.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may close the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    drain(&mut stream, patience).await
}

/// A connection to the data path from this address of the loopback network.
pub(crate) async fn connect_from(envoy: &Envoy, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(envoy.data_addr()).await.unwrap()
}

/// Whether a request to `id` on this connection gets its response; false if Envoy has closed it.
pub(crate) async fn serves(stream: &mut TcpStream, id: &str) -> bool {
    let request = format!("GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: {id}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.is_ok() && head(stream).await.is_ok_and(|head| head.starts_with("HTTP/1.1 200"))
}

/// All that comes until the other side closes the connection, or until nothing more comes for `patience`.
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

/// Reads the head of one HTTP/1.1 message, up to and including its empty line, and nothing after it.
pub(crate) async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
