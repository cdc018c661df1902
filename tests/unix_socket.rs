//! An agent that listens on a Unix socket alone, behind the forwarder that docs/addressing.md names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is how a test fails"
)]

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream as Connected;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use harness::{Envoy, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

/// The command of the document, with this port and socket in place of its own.
fn forwarder(port: u16, socket: &Path) -> String {
    let text = include_str!("../docs/addressing.md");
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let found: Vec<_> = blocks.filter(|block| block.contains("UNIX-CONNECT")).collect();
    let [block] = found[..] else { panic!("{found:?}") };
    let place = "UNIX-CONNECT:/var/run/pixell-agents/agent_a/a2a.sock\n";
    assert!(block.contains("TCP-LISTEN:50060,") && block.ends_with(place), "{block}");
    block.replace("50060", &port.to_string()).replace(place, &format!("UNIX-CONNECT:{}", socket.display()))
}

/// Ends the forwarder.
struct Forwarder(Child);

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves one connection: says what it has received; at `/stream` half of it, and the rest after `go`.
async fn serve(mut stream: UnixStream, go: Arc<Notify>) -> std::io::Result<()> {
    let mut received = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8(received.drain(..end).collect()).unwrap();
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
        while received.len() < length {
            stream.read_buf(&mut received).await?;
        }
        received.drain(..length);
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
        let said = format!("{line} of {} with {length} bytes", header("x-deployment-id").unwrap());
        let (first, rest) = said.split_at(if line.ends_with("/stream") { said.len() / 2 } else { said.len() });
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{first}", said.len()).as_bytes()).await?;
        if !rest.is_empty() {
            go.notified().await;
            stream.write_all(rest.as_bytes()).await?;
        }
    }
}

#[tokio::test]
async fn an_agent_on_a_unix_socket_is_reached_through_the_documented_forwarder() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a2a.sock");
    let (listener, go) = (UnixListener::bind(&socket).unwrap(), Arc::new(Notify::new()));
    let accepted = Arc::clone(&go);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&accepted)));
        }
    });
    Connected::connect(&socket).unwrap();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut socat = Command::new("bash");
    socat.args(["-euc", &format!("exec {}", forwarder(port, &socket))]).stdin(Stdio::null());
    let _socat = Forwarder(socat.spawn().unwrap());
    let listens = || async { Ok(tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()) };
    wait::until("socat (of the Debian package socat)", Duration::from_secs(20), listens).await.unwrap();

    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("agent_a", port)]).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: String| format!("{}/agents/agent_a{path}", envoy.data_url());
    // More at a time than one connection carries, and more bytes than one buffer holds.
    let calls = (0..20).map(|number| {
        let call = client.post(url(format!("/a2a/x?{number}"))).body(vec![b'x'; 100_000 + number]);
        async move { (number, call.send().await.unwrap().text().await.unwrap()) }
    });
    for (number, said) in join_all(calls).await {
        assert_eq!(said, format!("POST /x?{number} of agent_a with {} bytes", 100_000 + number));
    }
    // A stream is not held back.
    let mut stream = client.get(url("/stream".to_owned())).send().await.unwrap();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "GET /stream of ag");
    go.notify_one();
    assert_eq!(stream.text().await.unwrap(), "ent_a with 0 bytes");
}
