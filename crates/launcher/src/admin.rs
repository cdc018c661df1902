//! The commands of Envoy's admin interface that the entry point uses. It listens on a Unix socket inside the container.

use crate::http::{self, ExchangeError, Response};
use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for one response. Envoy responds within milliseconds; a busy machine may take longer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The gauge that counts requests of clients in flight, including streams and WebSockets.
const OPEN_STREAMS: &str = "http.agents.downstream_rq_active";
/// The gauge that counts those of other tasks. Without a fleet Envoy does not have it.
const OPEN_STREAMS_OF_PEERS: &str = "http.peers.downstream_rq_active";
/// Where Envoy tells both.
const BOTH: &str = "/stats?filter=%5Ehttp%5C.%28agents%7Cpeers%29%5C.downstream_rq_active%24";

/// The part of Envoy's admin interface that a drain needs.
pub trait Admin {
    /// From now on `/ready` says DRAINING, and every response tells its client to leave (`connection: close` on HTTP/1.1, GOAWAY
    /// on HTTP/2). New connections and requests are still served.
    ///
    /// # Errors
    /// If Envoy does not respond, or not with 200.
    fn announce_end(&self) -> Result<(), AdminError>;

    /// From now on new connections are refused; open ones stay.
    ///
    /// # Errors
    /// If Envoy does not respond, or not with 200.
    fn close_listeners(&self) -> Result<(), AdminError>;

    /// How many requests and streams are in flight on the data path, of clients and of other tasks.
    ///
    /// # Errors
    /// If Envoy does not respond, or does not know the number.
    fn open_streams(&self) -> Result<u64, AdminError>;
}

/// Why a command of Envoy's admin interface failed.
#[derive(Debug)]
pub enum AdminError {
    /// There was no response.
    Exchange(ExchangeError),
    /// The response has this status, and not 200.
    Status(u16),
    /// The statistics lack the gauge of open streams, or its value is not a number.
    NoGauge,
}

impl AdminError {
    /// Whether nobody listens on the socket: Envoy has not opened its admin interface yet, or has ended.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_absent())
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(error) => write!(f, "{error}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::NoGauge => write!(f, "the statistics have no number for {OPEN_STREAMS}"),
        }
    }
}

impl std::error::Error for AdminError {}

/// Envoy's admin interface behind its Unix socket.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
}

impl AdminSocket {
    /// The interface behind the socket at `path`. Nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn request(&self, method: &str, path: &str) -> Result<Response, AdminError> {
        let response = UnixStream::connect(&self.path)
            .map_err(ExchangeError::from)
            .and_then(|connection| http::exchange(connection, method, path, TIMEOUT))
            .map_err(AdminError::Exchange)?;
        if response.status == 200 { Ok(response) } else { Err(AdminError::Status(response.status)) }
    }
}

impl Admin for AdminSocket {
    fn announce_end(&self) -> Result<(), AdminError> {
        self.request("POST", "/healthcheck/fail").map(drop)
    }

    fn close_listeners(&self) -> Result<(), AdminError> {
        self.request("POST", "/drain_listeners").map(drop)
    }

    fn open_streams(&self) -> Result<u64, AdminError> {
        let response = self.request("GET", BOTH)?;
        read_open_streams(&response.body).ok_or(AdminError::NoGauge)
    }
}

/// The sum of both gauges in Envoy's text form of statistics, which has a line `name: value` for each.
fn read_open_streams(stats: &[u8]) -> Option<u64> {
    let stats = std::str::from_utf8(stats).ok()?;
    let value = |name| stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let number = |value: &str| value.trim().parse::<u64>().ok();
    let of_peers = value(OPEN_STREAMS_OF_PEERS).map_or(Some(0), number)?;
    value(OPEN_STREAMS).and_then(number)?.checked_add(of_peers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    #[track_caller]
    fn check_streams(stats: &str, expected: Option<u64>) {
        assert_eq!(read_open_streams(stats.as_bytes()), expected, "{stats:?}");
    }

    #[test]
    fn open_streams_are_those_of_clients_and_of_peers() {
        check_streams("http.agents.downstream_rq_active: 3\n", Some(3));
        check_streams("http.agents.downstream_rq_active: 0\n", Some(0));
        check_streams("other: 1\nhttp.agents.downstream_rq_active: 12\n", Some(12));
        check_streams("", None);
        check_streams("http.agents.downstream_rq_active_total: 3\n", None);
        check_streams("http.agents.downstream_rq_active: many\n", None);
        check_streams("http.agents.downstream_rq_active: 0\nhttp.peers.downstream_rq_active: 2\n", Some(2));
        check_streams("http.agents.downstream_rq_active: 3\nhttp.peers.downstream_rq_active: 2\n", Some(5));
        check_streams("http.agents.downstream_rq_active: 3\nhttp.peers.downstream_rq_active: many\n", None);
        check_streams("http.peers.downstream_rq_active: 2\n", None);
    }

    #[test]
    fn a_missing_socket_is_absent_and_a_failed_command_is_not() {
        let missing = AdminSocket::new("/nonexistent/admin.sock").announce_end().unwrap_err();
        assert!(missing.is_absent(), "{missing}");
        assert!(!AdminError::Status(503).is_absent());
    }

    #[test]
    fn sends_what_envoy_expects() {
        let dir = std::env::temp_dir().join(format!("pixell-launcher-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let mut lines = Vec::new();
            for body in ["OK\n", "OK\n", "http.agents.downstream_rq_active: 7\nhttp.peers.downstream_rq_active: 2\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                lines.push(request.next().unwrap());
                // Read the rest of the head: closing with unread bytes would reset the connection.
                assert!(request.any(|line| line.is_empty()));
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}").unwrap();
            }
            lines
        });
        let admin = AdminSocket::new(&path);
        admin.announce_end().unwrap();
        admin.close_listeners().unwrap();
        assert_eq!(admin.open_streams().unwrap(), 9);
        assert_eq!(
            server.join().unwrap(),
            [
                "POST /healthcheck/fail HTTP/1.1",
                "POST /drain_listeners HTTP/1.1",
                "GET /stats?filter=%5Ehttp%5C.%28agents%7Cpeers%29%5C.downstream_rq_active%24 HTTP/1.1",
            ]
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
