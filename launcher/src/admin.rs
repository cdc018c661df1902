//! What the entry point asks of Envoy's admin interface, which listens on a Unix socket inside the container.

use crate::http::{self, ExchangeError, Reply};
use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for one answer. Envoy answers within milliseconds; a busy machine may take longer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The gauge that counts requests under way on the data path, streams and WebSockets included.
const OPEN_STREAMS: &str = "http.agents.downstream_rq_active";

/// The part of Envoy's admin interface that a drain needs.
pub trait Admin {
    /// From now on `/ready` says DRAINING, and every answer tells its caller to leave (`connection: close` on HTTP/1.1, GOAWAY
    /// on HTTP/2). New connections and requests are still served.
    ///
    /// # Errors
    /// Envoy does not answer, or refuses.
    fn announce_end(&self) -> Result<(), AdminError>;

    /// From now on new connections are refused; those that are open stay.
    ///
    /// # Errors
    /// Envoy does not answer, or refuses.
    fn close_listeners(&self) -> Result<(), AdminError>;

    /// How many requests and streams are under way on the data path.
    ///
    /// # Errors
    /// Envoy does not answer, or does not know the number.
    fn open_streams(&self) -> Result<u64, AdminError>;
}

/// Why Envoy's admin interface did not do what it was asked.
#[derive(Debug)]
pub enum AdminError {
    /// No answer.
    Exchange(ExchangeError),
    /// An answer with another status than 200.
    Refused(u16),
    /// The statistics lack the gauge of open streams, or its value is not a number.
    NoGauge,
}

impl AdminError {
    /// Whether nobody listens on the socket: Envoy has not started its admin interface yet, or is gone.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_absent())
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(error) => write!(f, "{error}"),
            Self::Refused(status) => write!(f, "status {status}"),
            Self::NoGauge => write!(f, "no number for {OPEN_STREAMS} in the statistics"),
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

    fn ask(&self, method: &str, path: &str) -> Result<Reply, AdminError> {
        let reply = UnixStream::connect(&self.path)
            .map_err(ExchangeError::from)
            .and_then(|connection| http::exchange(connection, method, path, TIMEOUT))
            .map_err(AdminError::Exchange)?;
        if reply.status == 200 { Ok(reply) } else { Err(AdminError::Refused(reply.status)) }
    }
}

impl Admin for AdminSocket {
    fn announce_end(&self) -> Result<(), AdminError> {
        self.ask("POST", "/healthcheck/fail").map(drop)
    }

    fn close_listeners(&self) -> Result<(), AdminError> {
        self.ask("POST", "/drain_listeners").map(drop)
    }

    fn open_streams(&self) -> Result<u64, AdminError> {
        let reply = self.ask("GET", "/stats?filter=%5Ehttp%5C.agents%5C.downstream_rq_active%24")?;
        read_gauge(&reply.body).ok_or(AdminError::NoGauge)
    }
}

/// Finds the gauge in Envoy's text form of statistics: one `name: value` a line.
fn read_gauge(stats: &[u8]) -> Option<u64> {
    let stats = std::str::from_utf8(stats).ok()?;
    let value = stats.lines().find_map(|line| line.strip_prefix(OPEN_STREAMS)?.strip_prefix(": "))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    #[track_caller]
    fn check_gauge(stats: &str, expected: Option<u64>) {
        assert_eq!(read_gauge(stats.as_bytes()), expected, "{stats:?}");
    }

    #[test]
    fn reads_the_gauge() {
        check_gauge("http.agents.downstream_rq_active: 3\n", Some(3));
        check_gauge("http.agents.downstream_rq_active: 0\n", Some(0));
        check_gauge("other: 1\nhttp.agents.downstream_rq_active: 12\n", Some(12));
        check_gauge("", None);
        check_gauge("http.agents.downstream_rq_active_total: 3\n", None);
        check_gauge("http.agents.downstream_rq_active: many\n", None);
    }

    #[test]
    fn a_missing_socket_is_absent_and_a_refusal_is_not() {
        let missing = AdminSocket::new("/nonexistent/admin.sock").announce_end().unwrap_err();
        assert!(missing.is_absent(), "{missing}");
        assert!(!AdminError::Refused(503).is_absent());
    }

    #[test]
    fn sends_what_envoy_expects() {
        let dir = std::env::temp_dir().join(format!("pixell-launcher-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let mut lines = Vec::new();
            for answer in ["OK\n", "OK\n", "http.agents.downstream_rq_active: 7\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                lines.push(request.next().unwrap());
                // The rest of the head must be read: closing with unread bytes would reset the connection.
                assert!(request.any(|line| line.is_empty()));
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{answer}").unwrap();
            }
            lines
        });
        let admin = AdminSocket::new(&path);
        admin.announce_end().unwrap();
        admin.close_listeners().unwrap();
        assert_eq!(admin.open_streams().unwrap(), 7);
        assert_eq!(
            server.join().unwrap(),
            [
                "POST /healthcheck/fail HTTP/1.1",
                "POST /drain_listeners HTTP/1.1",
                "GET /stats?filter=%5Ehttp%5C.agents%5C.downstream_rq_active%24 HTTP/1.1",
            ]
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
