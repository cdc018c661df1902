//! The kernel's socket buffers are limited for clients that stop reading, and do not slow down distant clients.
//!
//! Needs root, iproute2 and /dev/net/tun, so it is not part of a plain `cargo test`: `cargo xtask test netns`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Agent, Envoy, agents};
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

// Addresses that are reserved for tests (RFC 2544).
const HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 78, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 18, 78, 2);
/// Seconds from here to there; a request and its response together take twice as long.
const DELAY: &str = "0.01";
const DOWNLOAD: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n\r\n";
const UPLOAD: &[u8] = b"POST / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\ncontent-length: 1000000000000\r\n\r\n";
const PLAN: &str = include_str!("../docs/operations.md");

/// A path to a namespace of its own; removed when dropped.
struct Path {
    carrier: Child,
    namespace: String,
}

impl Path {
    fn new() -> Self {
        let number = std::process::id();
        let namespace = format!("pixell-far-{number}");
        let script = workspace::root().join("tests/delayed_path.py");
        let mut command = Command::new("python3");
        command.arg(script).args([&namespace, &format!("px{number}"), DELAY, &HERE.to_string(), &THERE.to_string()]);
        let mut carrier = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(carrier.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "this test needs root and /dev/net/tun");
        Self { carrier, namespace }
    }

    /// Megabytes a second of a connection from the far end to `port` here, after two seconds in which it speeds up.
    fn speed(&self, port: u16, head: &'static [u8], work: fn(&mut TcpStream) -> usize) -> u64 {
        let inside = std::fs::File::open(format!("/run/netns/{}", self.namespace)).unwrap();
        let measure = move || {
            setns(inside, CloneFlags::CLONE_NEWNET).unwrap();
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from((HERE, port)), Duration::from_secs(5)).unwrap();
            stream.write_all(head).unwrap();
            let timed = |stream: &mut TcpStream, limit| {
                let (begun, mut bytes) = (Instant::now(), 0);
                while begun.elapsed() < limit {
                    bytes += work(stream);
                }
                u64::try_from(u128::try_from(bytes).unwrap() / begun.elapsed().as_micros()).unwrap()
            };
            timed(&mut stream, Duration::from_secs(2));
            timed(&mut stream, Duration::from_secs(3))
        };
        std::thread::spawn(measure).join().unwrap()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        drop(self.carrier.stdin.take());
        let _ = self.carrier.wait();
    }
}

/// An agent that sends endlessly in response to GET, and otherwise reads endlessly.
fn endless() -> Agent {
    agents::raw::start("endless", |mut stream| async move {
        let mut some = vec![0; 256 * 1024];
        let count = stream.read(&mut some).await?;
        if some[..count].starts_with(b"GET") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await?;
            loop {
                stream.write_all(&some).await?;
            }
        }
        while stream.read(&mut some).await? > 0 {}
        Ok(())
    })
    .unwrap()
}

async fn scene() -> (Envoy, Agent) {
    let envoy = Envoy::builder().bind(Ipv4Addr::UNSPECIFIED).start().await.unwrap();
    let agent = endless();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    (envoy, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distant_client_is_served_at_the_speed_of_its_path() {
    let (envoy, _agent) = scene().await;
    let path = Path::new();
    let download = path.speed(envoy.data_addr().port(), DOWNLOAD, |stream| stream.read(&mut [0; 256 * 1024]).unwrap());
    let upload = path.speed(envoy.data_addr().port(), UPLOAD, |stream| stream.write(&[0; 64 * 1024]).unwrap());
    println!("at 20 ms: {download} MB/s down, {upload} MB/s up");
    // With buffers of 208 KiB everywhere it is 16 and 12.
    assert!(download >= 25, "{download} MB/s");
    assert!(upload >= 8, "{upload} MB/s");
}

/// The bytes that the plan of docs/operations.md has for `what`.
fn planned(what: &str) -> u64 {
    let row = PLAN.lines().find_map(|line| line.strip_prefix(&format!("| {what} | "))).unwrap();
    let cell = row.split('|').nth(1).unwrap().trim().strip_suffix(" KiB").unwrap();
    cell.replace(',', "").parse::<u64>().unwrap() * 1024
}

/// How many sockets `filter` finds, and how many bytes the kernel holds for them, by a letter of ss's `skmem`: r received, w to be sent.
fn held(filter: &str, letter: char) -> (u64, u64) {
    let output = Command::new("ss").args(["-tmnH", "state", "established", filter]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pattern = regex::Regex::new(&format!(r"skmem:\(.*?\b{letter}(\d+)")).unwrap();
    let found: Vec<u64> = pattern.captures_iter(&text).map(|found| found[1].parse().unwrap()).collect();
    (found.len().try_into().unwrap(), found.iter().sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stop_reading_hold_no_more_than_is_planned() {
    const CLIENTS: u64 = 60;
    let (envoy, agent) = scene().await;
    let (data, upstream) = (envoy.data_addr().port(), agent.port());
    let mut readers = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = tokio::net::TcpStream::connect(envoy.data_addr()).await.unwrap();
        stream.write_all(DOWNLOAD).await.unwrap();
        readers.push(stream);
    }
    // Read fast for a while, because the kernel sizes its buffers by the speed.
    for stream in &mut readers {
        let mut some = vec![0; 256 * 1024];
        let mut left = 8 << 20;
        while left > 0 {
            left -= stream.read(&mut some).await.unwrap().min(left);
        }
    }
    let sides = [
        ("the kernel's buffers to a client that does not read", format!("( sport = :{data} )"), 'w'),
        ("the kernel's buffers from its agent", format!("( dport = :{upstream} )"), 'r'),
    ];
    let mut last = [0; 2];
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = sides.each_ref().map(|(_, filter, letter)| held(filter, *letter).1);
        if now.iter().zip(last).all(|(now, before)| now.abs_diff(before) < 1 << 20) {
            break;
        }
        last = now;
    }
    for (what, filter, letter) in &sides {
        let (sockets, bytes) = held(filter, *letter);
        println!("{what}: {} KiB each, {sockets} sockets", bytes / 1024 / CLIENTS);
        assert_eq!(sockets, CLIENTS, "{what}");
        assert!(bytes <= planned(what) * CLIENTS, "{what}: {} KiB each", bytes / 1024 / CLIENTS);
    }
}
