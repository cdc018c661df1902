//! An HTTP/1.1 connection with blocking reads. It is cheap, so that the load does not compete with the proxy that it measures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long a response may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that carries one request at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// A response, in the connection's buffer.
#[derive(Debug)]
pub struct Response<'a> {
    /// Status line and headers.
    pub head: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl Response<'_> {
    /// The status code; 0 if there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        let code = self.head.get(9..12).and_then(|code| std::str::from_utf8(code).ok());
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }
}

impl Connection {
    /// Connects to `address`.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024], filled: 0 })
    }

    /// Sends a whole request.
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).context("sending a request")
    }

    /// Waits for the response to the last request.
    ///
    /// # Errors
    /// If the connection ends first, or the response does not have its length in a header.
    pub fn receive(&mut self) -> Result<Response<'_>> {
        self.filled = 0;
        let mut needed = None;
        loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let read = self.stream.read(free).context("waiting for a response")?;
            if read == 0 {
                bail!("the connection was closed before the response was complete");
            }
            self.filled += read;
            let got = self.buffer.get(..self.filled).unwrap_or_default();
            if needed.is_none() {
                needed = extent(got)?;
            }
            if let Some((head, whole)) = needed.filter(|(_, whole)| *whole <= self.filled) {
                let response = self.buffer.get(..whole).unwrap_or_default();
                let (head, body) = response.split_at(head);
                return Ok(Response { head, body });
            }
        }
    }

    /// Sends `request` and waits for the response.
    ///
    /// # Errors
    /// As [`Connection::send`] and [`Connection::receive`].
    pub fn exchange(&mut self, request: &[u8]) -> Result<Response<'_>> {
        self.send(request)?;
        self.receive()
    }
}

/// The ends of the head and of the whole message; `None` while the head is incomplete.
fn extent(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    const END: &[u8] = b"\r\n\r\n";
    const LENGTH: &[u8] = b"content-length:";
    let Some(at) = bytes.windows(END.len()).position(|window| window == END) else { return Ok(None) };
    let head = at + END.len();
    let mut lines = bytes.get(..at).unwrap_or_default().split(|byte| *byte == b'\n');
    let length = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(LENGTH.len())?;
        name.eq_ignore_ascii_case(LENGTH).then(|| String::from_utf8_lossy(value.trim_ascii()).parse::<usize>())
    });
    match length {
        Some(length) => Ok(Some((head, head + length.context("content-length is not a number")?))),
        // Responses with these statuses have no body (RFC 9110, 15.3.5 and 15.4.5).
        None if bytes.get(9..12).is_some_and(|code| code == b"204" || code == b"304") => Ok(Some((head, head))),
        None => bail!("the response has no content-length: {}", String::from_utf8_lossy(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_head_and_message_are_found() {
        assert_eq!(extent(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n").unwrap(), None);
        assert_eq!(extent(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap(), Some((38, 40)));
        assert_eq!(extent(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((27, 27)));
        assert!(extent(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
