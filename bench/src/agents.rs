//! Agents as cheap as can be: a thread a connection, one fixed HTTP/1.1 answer a request. The body is the agent's port, so that
//! every answer tells whether it came from the agent that was asked for.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result};

/// Starts `count` agents on free ports and gives the ports. They serve until the program ends.
///
/// # Errors
/// Where no port is free.
pub fn start(count: usize) -> Result<Vec<u16>> {
    (0..count).map(|_| start_one()).collect()
}

fn start_one() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("an agent finds no free port")?;
    let port = listener.local_addr()?.port();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n{}", body(port));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, answer.as_bytes()));
        }
    });
    Ok(port)
}

/// What the agent on `port` answers.
#[must_use]
pub fn body(port: u16) -> String {
    format!("{port:05}")
}

/// Answers each request on `stream`; they have no body and come one after the other.
fn serve(mut stream: TcpStream, answer: &[u8]) -> Option<()> {
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
            stream.write_all(answer).ok()?;
            filled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;

    #[test]
    fn each_answers_with_its_port() {
        for port in start(2).unwrap() {
            let mut connection = Connection::open((Ipv4Addr::LOCALHOST, port).into()).unwrap();
            for _ in 0..2 {
                let answer = connection.exchange(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                assert_eq!((answer.status(), answer.body), (200, body(port).as_bytes()));
            }
        }
    }
}
