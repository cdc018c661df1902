//! One request sent twice: to a task that has to send it on, and to the task that has its agent. The client must see the same.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::tasks::Tasks;

/// What differs between any two responses.
const PASSING: [&str; 2] = ["date", "x-envoy-upstream-service-time"];

/// What an HTTP/1.1 client sees of one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// The status and the headers of each response, interim ones (1xx) included, by their names and in their order.
    pub(crate) heads: Vec<(u16, BTreeMap<String, String>)>,
    pub(crate) body: String,
    pub(crate) trailers: String,
}

impl Seen {
    pub(crate) fn status(&self) -> u16 {
        self.heads.last().unwrap().0
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.heads.last().unwrap().1.get(name).map(String::as_str)
    }

    /// The body, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut heads, mut rest) = (Vec::new(), bytes);
        loop {
            let (head, after) = split(rest, b"\r\n\r\n").unwrap_or_else(|| panic!("no head in {:?}", text(bytes)));
            let head = text(head);
            let status = head.split([' ', '\r']).nth(1).and_then(|status| status.parse().ok());
            let status: u16 = status.unwrap_or_else(|| panic!("no status in {head}"));
            let mut headers = BTreeMap::<String, String>::new();
            for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
                if !PASSING.contains(&name) {
                    let values = headers.entry(name.to_owned()).or_default();
                    values.push_str(if values.is_empty() { "" } else { " | " });
                    values.push_str(value);
                }
            }
            heads.push((status, headers));
            rest = after;
            if status >= 200 {
                break;
            }
        }
        let is_chunked = heads.last().unwrap().1.contains_key("transfer-encoding");
        if !is_chunked || rest.is_empty() {
            return Self { heads, body: text(rest), trailers: String::new() };
        }
        let mut body = Vec::new();
        while let Some((size, after)) = split(rest, b"\r\n") {
            let size = usize::from_str_radix(&text(size), 16).unwrap();
            rest = after;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&rest[..size]);
            rest = rest[size..].strip_prefix(b"\r\n").unwrap();
        }
        Self { heads, body: text(&body), trailers: text(rest.trim_ascii()) }
    }
}

/// What comes before and after the first `mark`.
fn split<'b>(bytes: &'b [u8], mark: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = bytes.windows(mark.len()).position(|part| part == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

impl Tasks {
    /// Sends these bytes, a request that ends its connection, to tasks 0 and 1, and returns what the client saw both times.
    #[track_caller]
    pub(crate) fn both(&self, request: impl Into<Vec<u8>>) -> impl Future<Output = Seen> {
        let place = std::panic::Location::caller();
        let request = request.into();
        async move {
            let mut seen = Vec::new();
            for task in 0..2 {
                let (address, request) = (self.data(task), request.clone());
                let exchange = move || async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.write_all(&request).await.unwrap();
                    let mut bytes = Vec::new();
                    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
                    assert!(read.is_ok(), "the connection stays open: {}", String::from_utf8_lossy(&bytes));
                    bytes
                };
                let bytes = self.fabric.outside().run(exchange).await.unwrap();
                let mut one = Seen::parse(&bytes);
                // The client's address and the task's are not the same in each network.
                for text in one.heads.iter_mut().flat_map(|(_, headers)| headers.values_mut()).chain([&mut one.body]) {
                    *text = text.replace(&format!("198.18.{task}."), "198.18.T.");
                }
                seen.push(one);
            }
            assert_eq!(
                seen[0],
                seen[1],
                "{place}: through another task, and in its own\n{}",
                String::from_utf8_lossy(&request)
            );
            seen.remove(0)
        }
    }

    /// Sends a GET with these headers to both.
    #[track_caller]
    pub(crate) fn get_both(&self, path: &str, headers: &[(&str, &str)]) -> impl Future<Output = Seen> {
        self.both(request("GET", path, headers))
    }
}

/// A request of HTTP/1.1 without a body.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let host = if headers.iter().any(|(name, _)| *name == "host") { "" } else { "host: h.test\r\n" };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\n{host}x-request-id: r\r\nconnection: close\r\n{headers}\r\n")
}
