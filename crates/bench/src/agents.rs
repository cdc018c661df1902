//! Agents that cost as little as possible: a thread for each connection, and one fixed HTTP/1.1 response. Its body is the agent's port,
//! so that every response shows whether it came from the right agent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result};

/// Starts `count` agents on free ports and returns the ports. The agents serve until the program ends.
///
/// # Errors
/// If no port is free.
pub fn start(count: usize) -> Result<Vec<u16>> {
    (0..count).map(|_| start_one()).collect()
}

fn start_one() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port for an agent")?;
    let port = listener.local_addr()?.port();
    let response = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n{}", body(port));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let response = response.clone();
            std::thread::spawn(move || serve(stream, response.as_bytes()));
        }
    });
    Ok(port)
}

/// The body of the responses of the agent on `port`.
#[must_use]
pub fn body(port: u16) -> String {
    format!("{port:05}")
}

/// Responds to each request on `stream`. Requests have no body and come one after the other.
fn serve(mut stream: TcpStream, response: &[u8]) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        let read = stream.read(buffer.get_mut(filled..)?).ok()?;
        if read == 0 {
            return None;
        }
        filled += read;
        if buffer.get(..filled)?.ends_with(b"\r\n\r\n") {
            stream.write_all(response).ok()?;
            filled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;

    #[test]
    fn each_responds_with_its_port() {
        for port in start(2).unwrap() {
            let mut connection = Connection::open((Ipv4Addr::LOCALHOST, port).into()).unwrap();
            for _ in 0..2 {
                let response = connection.exchange(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                assert_eq!((response.status(), response.body), (200, body(port).as_bytes()));
            }
        }
    }
}
