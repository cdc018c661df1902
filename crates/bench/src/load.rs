//! The load on one contender: clients in a closed loop. Each response is checked to come from the right agent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{agents, connection, cpu_time, http2};

/// Number of clients while CPU time and throughput are measured.
const CLIENTS: usize = 16;

/// How long all clients send before anything counts.
const WARM_UP: Duration = Duration::from_millis(30);

/// What the load speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, one stream at a time on each connection.
    Http2,
}

/// A client: its connection, and the requests that it sends in turn.
struct Client {
    connection: Connection,
    requests: Vec<Request>,
    next: usize,
    sent: Instant,
}

enum Connection {
    Http1(connection::Connection),
    Http2(http2::Connection),
}

#[derive(Clone, Debug)]
struct Request {
    id: String,
    port: u16,
    /// The request over HTTP/1.1.
    bytes: Vec<u8>,
    /// More headers, over HTTP/2.
    headers: Vec<(String, String)>,
    /// The body of the right response.
    expected: String,
}

/// The clients of one contender, and the processes whose CPU time counts.
pub struct Load {
    clients: Vec<Client>,
    pids: Vec<u32>,
}

/// The measurements of one contender in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// CPU time of the proxy for each request, in microseconds.
    pub cpu: f64,
    /// Requests per second with all clients.
    pub throughput: f64,
    /// Median time to the response with one client, in microseconds.
    pub latency: f64,
    /// 99th percentile of it.
    pub latency_p99: f64,
}

impl Load {
    /// Clients of the proxy at `address` that speak `protocol` and send requests to the agents `requested` (id and port) in turn.
    ///
    /// # Errors
    /// If the proxy accepts no connection, or a response is wrong.
    pub fn new(protocol: Protocol, address: SocketAddr, requested: &[(String, u16)], pids: &[u32]) -> Result<Self> {
        Self::with(protocol, address, requested, pids, |_| Vec::new())
    }

    /// As [`Load::new`], but a request to an id has these headers, too.
    ///
    /// # Errors
    /// As [`Load::new`].
    pub fn with(
        protocol: Protocol,
        address: SocketAddr,
        requested: &[(String, u16)],
        pids: &[u32],
        headers: impl Fn(&str) -> Vec<(String, String)>,
    ) -> Result<Self> {
        let requests: Vec<_> = requested.iter().map(|(id, port)| Request::to(id, *port, headers(id))).collect();
        let clients = (0..CLIENTS).map(|number| {
            // Each client begins with another agent, so that all agents are in use all the time.
            let next = number % requests.len().max(1);
            let connection = Connection::open(protocol, address)?;
            Ok(Client { connection, requests: requests.clone(), next, sent: Instant::now() })
        });
        let mut clients = clients.collect::<Result<Vec<_>>>()?;
        // Others are measured first, and the shipped Envoy closes a connection that says nothing for 15 s.
        all(&mut clients, Duration::ZERO)?;
        Ok(Self { clients, pids: pids.to_vec() })
    }

    /// Measures all clients together for `busy`, then one client alone for `alone`.
    ///
    /// # Errors
    /// If a response is missing or wrong.
    pub fn measure(&mut self, busy: Duration, alone: Duration) -> Result<Sample> {
        // The proxy closes idle connections to agents after some seconds. The warm-up opens those of the last round again.
        all(&mut self.clients, WARM_UP)?;
        let (started, cpu_before) = (Instant::now(), cpu_time::of(&self.pids)?);
        let requests = all(&mut self.clients, busy)?;
        let (took, cpu) = (started.elapsed(), cpu_time::of(&self.pids)? - cpu_before);
        let mut latencies = Vec::new();
        if let Some(client) = self.clients.first_mut() {
            let until = Instant::now() + alone;
            while Instant::now() < until || latencies.is_empty() {
                client.send()?;
                latencies.push(client.receive()?.as_secs_f64() * 1e6);
            }
        }
        latencies.sort_by(f64::total_cmp);
        let latency = |share| crate::summary::quantile(&latencies, share).unwrap_or(f64::NAN);
        Ok(Sample {
            cpu: cpu as f64 / 1e3 / requests as f64,
            throughput: requests as f64 / took.as_secs_f64(),
            latency: latency(0.5),
            latency_p99: latency(0.99),
        })
    }
}

/// Lets every client send its next request as soon as it has the response to the last one, for `time`. Returns the number of responses.
///
/// One thread runs all clients in turn. A client with an early response waits; the proxy meanwhile works on the other requests.
fn all(clients: &mut [Client], time: Duration) -> Result<u64> {
    let until = Instant::now() + time;
    let mut responses = 0;
    for client in &mut *clients {
        client.send()?;
    }
    while Instant::now() < until {
        for client in &mut *clients {
            client.receive()?;
            client.send()?;
            responses += 1;
        }
    }
    for client in clients {
        client.receive()?;
        responses += 1;
    }
    Ok(responses)
}

impl Request {
    fn to(id: &str, port: u16, headers: Vec<(String, String)>) -> Self {
        let bytes = with_headers(&request(id, port), &headers);
        Self { id: id.to_owned(), port, bytes, headers, expected: agents::body(port) }
    }
}

/// A request for `id`. It has the headers that the different contenders route by, so it is the same for all of them.
#[must_use]
pub fn request(id: &str, port: u16) -> Vec<u8> {
    format!(
        "GET /work HTTP/1.1\r\nhost: agents\r\nuser-agent: bench\r\naccept: */*\r\n\
         x-envoy-original-dst-host: 127.0.0.1:{port}\r\nx-deployment-id: {id}\r\n\r\n"
    )
    .into_bytes()
}

/// A request over HTTP/1.1 with more headers.
#[must_use]
pub fn with_headers(request: &[u8], headers: &[(String, String)]) -> Vec<u8> {
    let mut bytes = request.strip_suffix(b"\r\n").unwrap_or(request).to_vec();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}

/// A request for `id` that only its path addresses.
#[must_use]
pub fn request_by_path(id: &str) -> Vec<u8> {
    format!("GET /agents/{id}/work HTTP/1.1\r\nhost: agents\r\nuser-agent: bench\r\naccept: */*\r\n\r\n").into_bytes()
}

impl Connection {
    fn open(protocol: Protocol, address: SocketAddr) -> Result<Self> {
        Ok(match protocol {
            Protocol::Http1 => Self::Http1(connection::Connection::open(address)?),
            Protocol::Http2 => Self::Http2(http2::Connection::open(address)?),
        })
    }

    fn send(&mut self, Request { id, port, bytes, headers, .. }: &Request) -> Result<()> {
        match self {
            Self::Http1(connection) => connection.send(bytes),
            Self::Http2(connection) => {
                let address = format!("127.0.0.1:{port}");
                let mut all = vec![
                    ("user-agent", "bench"),
                    ("accept", "*/*"),
                    ("x-envoy-original-dst-host", &address),
                    ("x-deployment-id", id),
                ];
                all.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
                connection.send(&all)
            }
        }
    }

    /// Waits for the response. An error shows it, unless its status is 200 and its body `expected`.
    fn expect(&mut self, expected: &str) -> Result<()> {
        let (status, shown) = match self {
            Self::Http1(connection) => {
                let response = connection.receive()?;
                if response.status() == 200 && response.body == expected.as_bytes() {
                    return Ok(());
                }
                (response.status(), [response.head, response.body].concat())
            }
            Self::Http2(connection) => {
                let response = connection.receive()?;
                if response.status == 200 && response.body == expected.as_bytes() {
                    return Ok(());
                }
                (response.status, response.body.to_vec())
            }
        };
        bail!("expected 200 from the agent on port {expected}, got {status}: {}", String::from_utf8_lossy(&shown));
    }
}

impl Client {
    fn send(&mut self) -> Result<()> {
        self.next = (self.next + 1) % self.requests.len().max(1);
        self.sent = Instant::now();
        match self.requests.get(self.next) {
            Some(request) => self.connection.send(request),
            None => bail!("the contender has no routes"),
        }
    }

    fn receive(&mut self) -> Result<Duration> {
        let expected = self.requests.get(self.next).map(|request| request.expected.as_str()).unwrap_or_default();
        self.connection.expect(expected)?;
        Ok(self.sent.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_headers_come_before_the_end_of_the_head() {
        let plain = request("a", 1);
        assert_eq!(with_headers(&plain, &[]), plain);
        let more = with_headers(&plain, &[("x-b".to_owned(), "c".to_owned())]);
        assert!(more.ends_with(b"x-deployment-id: a\r\nx-b: c\r\n\r\n"), "{}", String::from_utf8_lossy(&more));
    }
}
