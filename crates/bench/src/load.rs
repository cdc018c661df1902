//! The load on one contender: clients in a closed loop. Each response is checked to come from the right agent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::connection::Connection;
use crate::{agents, cpu_time};

/// Number of clients while CPU time and throughput are measured.
const CLIENTS: usize = 16;

/// How long all clients send before anything counts.
const WARM_UP: Duration = Duration::from_millis(30);

/// A client: its connection, and the requests that it sends in turn.
struct Client {
    connection: Connection,
    requests: Vec<Request>,
    next: usize,
    sent: Instant,
}

#[derive(Clone, Debug)]
struct Request {
    bytes: Vec<u8>,
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
    /// Clients of the proxy at `address` that send requests to the agents `requested` (id and port) in turn.
    ///
    /// # Errors
    /// If the proxy accepts no connection.
    pub fn new(address: SocketAddr, requested: &[(String, u16)], pids: &[u32]) -> Result<Self> {
        let requests: Vec<_> = requested.iter().map(|(id, port)| Request::to(id, *port)).collect();
        let clients = (0..CLIENTS).map(|number| {
            // Each client begins with another agent, so that all agents are in use all the time.
            let next = number % requests.len().max(1);
            Ok(Client { connection: Connection::open(address)?, requests: requests.clone(), next, sent: Instant::now() })
        });
        Ok(Self { clients: clients.collect::<Result<_>>()?, pids: pids.to_vec() })
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
    fn to(id: &str, port: u16) -> Self {
        Self { bytes: request(id, port), expected: agents::body(port) }
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

impl Client {
    fn send(&mut self) -> Result<()> {
        self.next = (self.next + 1) % self.requests.len().max(1);
        self.sent = Instant::now();
        match self.requests.get(self.next) {
            Some(request) => self.connection.send(&request.bytes),
            None => bail!("the contender has no routes"),
        }
    }

    fn receive(&mut self) -> Result<Duration> {
        let response = self.connection.receive()?;
        let expected = self.requests.get(self.next).map(|request| request.expected.as_str()).unwrap_or_default();
        if response.status() != 200 || response.body != expected.as_bytes() {
            let (head, body) = (String::from_utf8_lossy(response.head), String::from_utf8_lossy(response.body));
            bail!("expected 200 from the agent on port {expected}, got {head}{body}");
        }
        Ok(self.sent.elapsed())
    }
}
