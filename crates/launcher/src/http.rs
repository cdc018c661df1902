//! One HTTP/1.1 exchange over a local socket: enough to talk to Envoy, no more.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest response that is read, in bytes. Envoy's responses to these requests are below 1 KiB.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// Most header fields of a response.
const MAX_HEADERS: usize = 64;

/// A connected socket whose blocking calls can have a timeout.
pub trait Connection: Read + Write {
    /// Sets the timeout of each later read and write; it must not be zero.
    fn limit(&self, timeout: Duration) -> io::Result<()>;
}

impl Connection for TcpStream {
    fn limit(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Connection for UnixStream {
    fn limit(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

/// A response: status and decoded body.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, for example 200.
    pub status: u16,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
}

/// Why there is no [`Response`].
#[derive(Debug)]
pub enum ExchangeError {
    /// The socket failed.
    Io(io::Error),
    /// The response was not complete when the time was over.
    TimedOut,
    /// The bytes received are not a complete HTTP/1.1 response.
    Malformed(&'static str),
}

impl ExchangeError {
    /// Whether nobody listens at the address, as opposed to a server that does not respond.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::TimedOut => f.write_str("no complete response in time"),
            Self::Malformed(what) => write!(f, "not an HTTP response: {what}"),
        }
    }
}

impl std::error::Error for ExchangeError {}

impl From<io::Error> for ExchangeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A socket reports a timeout as either of these, depending on the platform.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

/// Sends a request without a body and reads the whole response, all within `timeout`.
///
/// # Errors
/// If the socket fails, the time is over, or the response is not HTTP/1.1 (RFC 9112).
pub fn exchange(connection: impl Connection, method: &str, path: &str, timeout: Duration) -> Result<Response, ExchangeError> {
    exchange_with(connection, method, path, "", timeout)
}

/// The same with additional `headers`, each of which ends with CRLF.
///
/// # Errors
/// As [`exchange`].
pub fn exchange_with(
    mut connection: impl Connection,
    method: &str,
    path: &str,
    headers: &str,
    timeout: Duration,
) -> Result<Response, ExchangeError> {
    let deadline = Instant::now() + timeout;
    connection.limit(timeout)?;
    // `Content-Length: 0` says that a POST has no body, so that the server does not wait for one.
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n");
    connection.write_all(request.as_bytes())?;

    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ExchangeError::TimedOut);
        }
        connection.limit(left)?;
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return parse(&received);
        }
        received.extend(buffer.iter().take(count));
        if received.len() > MAX_RESPONSE_BYTES {
            return Err(ExchangeError::Malformed("longer than 1 MiB"));
        }
    }
}

/// Parses a response that ended with the connection.
fn parse(received: &[u8]) -> Result<Response, ExchangeError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_len) = head.parse(received).map_err(|_| ExchangeError::Malformed("bad head"))? else {
        return Err(ExchangeError::Malformed("head cut short"));
    };
    let status = head.code.ok_or(ExchangeError::Malformed("no status code"))?;
    let body = received.get(head_len..).unwrap_or_default();
    let chunked = head
        .headers
        .iter()
        .any(|field| field.name.eq_ignore_ascii_case("transfer-encoding") && field.value.eq_ignore_ascii_case(b"chunked"));
    let body = if chunked { join_chunks(body)? } else { body.to_vec() };
    Ok(Response { status, body })
}

/// Removes the chunked transfer coding (RFC 9112, 7.1) and ignores trailers.
fn join_chunks(mut coded: &[u8]) -> Result<Vec<u8>, ExchangeError> {
    const CUT_SHORT: ExchangeError = ExchangeError::Malformed("chunked body cut short");
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(coded).map_err(|_| ExchangeError::Malformed("bad chunk size"))?;
        let httparse::Status::Complete((start, size)) = size else {
            return Err(CUT_SHORT);
        };
        if size == 0 {
            return Ok(body);
        }
        let size = usize::try_from(size).map_err(|_| CUT_SHORT)?;
        let end = start.checked_add(size).ok_or(CUT_SHORT)?;
        body.extend(coded.get(start..end).ok_or(CUT_SHORT)?);
        coded = coded.get(end..).and_then(|rest| rest.strip_prefix(b"\r\n")).ok_or(CUT_SHORT)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Sends a request to a server that responds with `bytes` and closes. Returns the parsed response and the request as received.
    fn request(bytes: &'static [u8]) -> (Result<Response, ExchangeError>, String) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut request = [0; 1024];
            let count = theirs.read(&mut request).unwrap();
            theirs.write_all(bytes).unwrap();
            String::from_utf8(request[..count].to_vec()).unwrap()
        });
        let response = exchange(ours, "GET", "/ready", Duration::from_secs(5));
        (response, server.join().unwrap())
    }

    #[track_caller]
    fn check(bytes: &'static [u8], expected: Result<(u16, &str), &str>) {
        let (response, _) = request(bytes);
        match (response, expected) {
            (Ok(response), Ok((status, body))) => {
                assert_eq!(response, Response { status, body: body.as_bytes().to_vec() });
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (response, expected) => panic!("{response:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn reads_plain_and_chunked_responses() {
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nLIVE\n", Ok((200, "LIVE\n")));
        check(b"HTTP/1.1 503 Service Unavailable\r\n\r\nDRAINING\n", Ok((503, "DRAINING\n")));
        check(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nLIVE\r\nA\r\n0123456789\r\n0\r\n\r\n",
            Ok((200, "LIVE0123456789")),
        );
    }

    #[test]
    fn an_incomplete_response_is_an_error() {
        check(b"", Err("head cut short"));
        check(b"HTTP/1.1 200 OK\r\n", Err("head cut short"));
        check(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Err("bad head"));
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nLIVE", Err("cut short"));
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nLIVE", Err("cut short"));
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nLIVE", Err("bad chunk size"));
    }

    #[test]
    fn requests_the_path_and_then_closes() {
        let (_, request) = request(b"HTTP/1.1 200 OK\r\n\r\n");
        assert!(request.starts_with("GET /ready HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("Connection: close\r\n"), "{request}");
    }

    #[test]
    fn the_timeout_covers_a_server_that_sends_nothing() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let started = Instant::now();
        let error = exchange(ours, "GET", "/", Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, ExchangeError::TimedOut), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn the_timeout_covers_a_response_that_never_ends() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            while theirs.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(10))
            }
        });
        let error = exchange(ours, "GET", "/", Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, ExchangeError::TimedOut), "{error}");
    }

    #[test]
    fn an_absent_server_and_a_silent_one_are_different_errors() {
        let absent = UnixStream::connect("/nonexistent/admin.sock").unwrap_err();
        assert!(ExchangeError::from(absent).is_absent());
        assert!(!ExchangeError::TimedOut.is_absent());
    }
}
