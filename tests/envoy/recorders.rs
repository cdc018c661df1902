//! Agents that record the head of every request byte for byte, and what must be true of each head whatever the clients sent.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use harness::agents::raw;
use harness::{Agent, Envoy};
use serde_json::{Map, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The header by which a request is found again: its place among all that were sent.
pub(crate) const NUMBER: &str = "x-number";

/// Headers that every hostile request carries, and that must decide nothing. The last one reaches agents, as clients' headers do.
pub(crate) const LIES: [(&str, &str); 5] = [
    ("x-forwarded-prefix", "/agents/b"),
    ("x-forwarded-host", "b"),
    ("x-pixell-error", "b"),
    ("x-pixell-grpc-web", "1"),
    ("x-envoy-original-dst-host", "127.0.0.1:1"),
];

/// What names the agent of a request, as the client sent it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) path: Vec<u8>,
    pub(crate) authority: Vec<u8>,
    /// Whether it says these things once. A request that says one of them twice has to be rejected.
    pub(crate) is_clear: bool,
}

impl Sent {
    pub(crate) fn shown(&self) -> String {
        format!("{} to {}", start(&self.path), start(&self.authority))
    }
}

fn start(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(300)].escape_ascii().to_string()
}

/// Agents with a route each.
pub(crate) struct Recorders(Vec<Recorder>);

struct Recorder {
    id: &'static str,
    agent: Agent,
    heads: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    fn start(id: &'static str) -> Self {
        let heads = Arc::<Mutex<Vec<_>>>::default();
        let recorded = heads.clone();
        let agent = raw::start(id, move |stream| record(stream, recorded.clone())).unwrap();
        Self { id, agent, heads }
    }
}

/// Records what comes on a connection up to each empty line.
async fn record(stream: TcpStream, heads: Arc<Mutex<Vec<Vec<u8>>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut head).await? == 0 {
                return Ok(());
            }
        }
        heads.lock().unwrap().push(head);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

impl Recorders {
    /// Starts an agent for each of these ids, with an endpoint `rest` beside `a2a`.
    pub(crate) async fn start(envoy: &Envoy, ids: &[&'static str]) -> Self {
        let (mut all, mut routes) = (Vec::new(), Map::new());
        for id in ids {
            let (a2a, rest) = (Recorder::start(id), Recorder::start(id));
            let route = json!({"port": a2a.agent.port(), "endpoints": {"rest": rest.agent.port()}});
            routes.insert((*id).to_owned(), route);
            all.extend([a2a, rest]);
        }
        let response = envoy.routes().put_routes(&json!({"routes": routes})).await.unwrap();
        assert_eq!(response.status, 200, "{response}");
        Self(all)
    }

    /// Checks every recorded head. Returns the numbers of the requests that reached an agent.
    pub(crate) fn check(&self, sent: &[Sent], suffix: Option<&str>) -> HashSet<usize> {
        let mut numbers = HashSet::new();
        for Recorder { id, heads, .. } in &self.0 {
            for head in heads.lock().unwrap().iter() {
                let number = check(id, head, sent, suffix);
                assert!(numbers.insert(number), "twice: {}", sent[number].shown());
            }
        }
        numbers
    }
}

/// Checks that a head that an agent got is the request of this number, and that the request names the agent. Returns the number.
fn check(id: &str, head: &[u8], sent: &[Sent], suffix: Option<&str>) -> usize {
    let received = start(head);
    let lines = head.strip_suffix(b"\r\n\r\n").unwrap().split(|byte| *byte == b'\n');
    let mut lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = lines.next().unwrap();
    let fields: Vec<(Vec<u8>, &[u8])> = lines
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or_else(|| panic!("{id} got {received}"));
            (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii())
        })
        .collect();
    let values = |name: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(known, _)| known == name.as_bytes()).map(|(_, value)| *value).collect()
    };
    let number = values(NUMBER);
    let [number] = number[..] else { panic!("{id} got something that nobody sent: {received}") };
    let number: usize = std::str::from_utf8(number).unwrap().parse().unwrap();
    let request = &sent[number];
    let shown = format!("{} came to {id} as {received}", request.shown());
    assert!(request.is_clear, "{shown}");
    let is_control = |byte: &u8| byte.is_ascii_control();
    assert!(!line.iter().any(is_control) && !fields.iter().any(|(_, value)| value.iter().any(is_control)), "{shown}");
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [b"GET", path, b"HTTP/1.1"] = words[..] else { panic!("{shown}") };

    assert_eq!(values("x-deployment-id"), [id.as_bytes()], "{shown}");
    let lies = fields.iter().filter(|(name, _)| name.starts_with(b"x-pixell-") || name == b"x-forwarded-host");
    assert_eq!(lies.count(), 0, "{shown}");
    match values("x-forwarded-prefix")[..] {
        // The prefix and the rest are what was sent.
        [prefix] => {
            assert_eq!(segment(&request.path), Some(id.as_bytes()), "{shown}");
            let rest = request.path.strip_prefix(prefix).unwrap_or_else(|| panic!("{shown}"));
            assert!(path == rest || path.strip_prefix(b"/") == Some(rest), "{shown}");
        }
        [] => {
            assert_eq!((segment(&request.path), path), (None, request.path.as_slice()), "{shown}");
            assert!(suffix.is_some_and(|suffix| names(&request.authority, id, suffix)), "{shown}");
        }
        _ => panic!("{shown}"),
    }
    number
}

/// The id segment, read without the filter's code.
fn segment(path: &[u8]) -> Option<&[u8]> {
    path.strip_prefix(b"/agents/").map(|rest| rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default())
}

/// Whether an authority is this id, the suffix in whatever case, and perhaps a port.
fn names(authority: &[u8], id: &str, suffix: &str) -> bool {
    let Some((host, port)) = authority.split_at_checked(id.len() + suffix.len()) else { return false };
    let (label, end) = host.split_at(id.len());
    let is_port = port.strip_prefix(b":").is_none_or(|digits| digits.iter().all(u8::is_ascii_digit));
    label == id.as_bytes() && end.eq_ignore_ascii_case(suffix.as_bytes()) && (port.is_empty() || port[0] == b':') && is_port
}
