//! Load on one contender: callers in a closed loop, each answer checked to come from the agent that was asked for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::connection::Connection;
use crate::{agents, cpu_time};

/// Callers at once while CPU time and throughput are measured.
const CALLERS: usize = 16;

/// How long they are at work before anything counts.
const WARM_UP: Duration = Duration::from_millis(30);

/// A caller: its connection, and the requests that it sends in turn.
struct Caller {
    connection: Connection,
    requests: Vec<Request>,
    next: usize,
    sent: Instant,
}

#[derive(Clone, Debug)]
struct Request {
    bytes: Vec<u8>,
    /// The body of the right answer.
    expected: String,
}

/// The callers of one contender, and the processes whose CPU time counts.
pub struct Load {
    callers: Vec<Caller>,
    pids: Vec<u32>,
}

/// What one contender did in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// CPU time of the proxy for each request, in microseconds.
    pub cpu: f64,
    /// Requests a second with all callers at work.
    pub throughput: f64,
    /// Median time to the answer with one caller, in microseconds.
    pub latency: f64,
    /// 99th percentile of it.
    pub latency_p99: f64,
}

impl Load {
    /// Callers of the proxy at `address` that ask for the agents `asked` (id and port) in turn.
    ///
    /// # Errors
    /// Where the proxy takes no connection.
    pub fn new(address: SocketAddr, asked: &[(String, u16)], pids: &[u32]) -> Result<Self> {
        let requests: Vec<_> = asked.iter().map(|(id, port)| Request::to(id, *port)).collect();
        let callers = (0..CALLERS).map(|caller| {
            // Each begins elsewhere, so that all agents are at work all the time.
            let next = caller % requests.len().max(1);
            Ok(Caller { connection: Connection::open(address)?, requests: requests.clone(), next, sent: Instant::now() })
        });
        Ok(Self { callers: callers.collect::<Result<_>>()?, pids: pids.to_vec() })
    }

    /// Has all callers at work for `busy`, then one alone for `alone`.
    ///
    /// # Errors
    /// Where an answer is missing or wrong.
    pub fn measure(&mut self, busy: Duration, alone: Duration) -> Result<Sample> {
        // Towards agents, idle connections are closed after some seconds: those of the last round are made anew here.
        all(&mut self.callers, WARM_UP)?;
        let (started, cpu_before) = (Instant::now(), cpu_time::of(&self.pids)?);
        let requests = all(&mut self.callers, busy)?;
        let (took, cpu) = (started.elapsed(), cpu_time::of(&self.pids)? - cpu_before);
        let mut latencies = Vec::new();
        if let Some(caller) = self.callers.first_mut() {
            let until = Instant::now() + alone;
            while Instant::now() < until || latencies.is_empty() {
                caller.send()?;
                latencies.push(caller.receive()?.as_secs_f64() * 1e6);
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

/// Has every caller send again as soon as its answer is there, for `time`. Returns the number of answers.
///
/// One thread serves them in turn: a caller whose answer is early waits, the proxy meanwhile works on the others.
fn all(callers: &mut [Caller], time: Duration) -> Result<u64> {
    let until = Instant::now() + time;
    let mut answers = 0;
    for caller in &mut *callers {
        caller.send()?;
    }
    while Instant::now() < until {
        for caller in &mut *callers {
            caller.receive()?;
            caller.send()?;
            answers += 1;
        }
    }
    for caller in callers {
        caller.receive()?;
        answers += 1;
    }
    Ok(answers)
}

impl Request {
    fn to(id: &str, port: u16) -> Self {
        Self { bytes: request(id, port), expected: agents::body(port) }
    }
}

/// The same bytes for every contender, whichever of the headers it goes by.
#[must_use]
pub fn request(id: &str, port: u16) -> Vec<u8> {
    format!(
        "GET /work HTTP/1.1\r\nhost: agents\r\nuser-agent: bench\r\naccept: */*\r\n\
         x-envoy-original-dst-host: 127.0.0.1:{port}\r\nx-deployment-id: {id}\r\n\r\n"
    )
    .into_bytes()
}

impl Caller {
    fn send(&mut self) -> Result<()> {
        self.next = (self.next + 1) % self.requests.len().max(1);
        self.sent = Instant::now();
        match self.requests.get(self.next) {
            Some(request) => self.connection.send(&request.bytes),
            None => bail!("a contender without routes cannot be asked"),
        }
    }

    fn receive(&mut self) -> Result<Duration> {
        let answer = self.connection.receive()?;
        let expected = self.requests.get(self.next).map(|request| request.expected.as_str()).unwrap_or_default();
        if answer.status() != 200 || answer.body != expected.as_bytes() {
            let (head, body) = (String::from_utf8_lossy(answer.head), String::from_utf8_lossy(answer.body));
            bail!("expected 200 from the agent on port {expected}, got {head}{body}");
        }
        Ok(self.sent.elapsed())
    }
}
