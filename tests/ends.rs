//! Two ways in which an agent ends a connection: it closes a WebSocket cleanly, or it is killed while a request is open.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy, agents};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// How many WebSockets are closed, or agents killed, in a test.
pub(crate) const TIMES: usize = 20;

const LIMIT: Duration = Duration::from_secs(20);

/// An agent that echoes WebSocket messages, and closes the connection after the closing handshake.
pub(crate) fn websocket_agent() -> Agent {
    let agent = agents::raw::start("ws", |stream| async {
        let mut socket = tokio_tungstenite::accept_async(stream).await.map_err(std::io::Error::other)?;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.map_err(std::io::Error::other)?;
            }
        }
        Ok(())
    });
    agent.unwrap()
}

/// A client opens a WebSocket to the agent `ws`, sends a word and closes it; the agent closes the connection.
async fn close_cleanly(envoy: &Envoy) -> Result<()> {
    let mut request = format!("ws://{}/", envoy.data_addr()).into_client_request()?;
    request.headers_mut().insert(DEPLOYMENT_ID, "ws".parse()?);
    let stream = TcpStream::connect(envoy.data_addr()).await?;
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await?;
    anyhow::ensure!(response.status() == 101, "{response:?}");
    socket.send("a word".into()).await?;
    anyhow::ensure!(socket.next().await.context("the end")??.is_text());
    socket.close(None).await?;
    // The agent's half of the handshake, and then the end of the connection, which the agent closes.
    while let Some(message) = socket.next().await {
        message?;
    }
    Ok(())
}

/// Closes [`TIMES`] WebSockets cleanly.
pub(crate) async fn close_websockets(envoy: &Envoy) {
    // At the same time, because Envoy waits a second before it closes the client's connection.
    let closes = (0..TIMES).map(|_| tokio::time::timeout(LIMIT, close_cleanly(envoy)));
    for closed in futures_util::future::join_all(closes).await {
        closed.unwrap().unwrap();
    }
}

/// A process that takes a request and never responds. It is killed when this is dropped.
struct Hanging(Child);

impl Hanging {
    const PROGRAM: &str = "import socket, time\n\
        server = socket.create_server(('127.0.0.1', 0))\n\
        print(server.getsockname()[1], flush=True)\n\
        connection = server.accept()[0]\n\
        connection.recv(65536)\n\
        print('taken', flush=True)\n\
        time.sleep(600)\n";

    /// Starts the process. It writes its port, and `taken` once it has a request.
    fn start() -> Result<(Self, BufReader<ChildStdout>)> {
        let mut process = Command::new("python3").args(["-c", Self::PROGRAM]).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(process.stdout.take().context("a pipe")?);
        Ok((Self(process), output))
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The next line of `output`, and `output` itself.
async fn line_of(mut output: BufReader<ChildStdout>) -> (String, BufReader<ChildStdout>) {
    let reading = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        (line.trim().to_owned(), output)
    });
    tokio::time::timeout(LIMIT, reading).await.unwrap().unwrap()
}

/// Kills [`TIMES`] agents, each while it has a request.
pub(crate) async fn kill_agents(envoy: &Envoy) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..TIMES {
        let (agent, output) = Hanging::start().unwrap();
        let (port, output) = line_of(output).await;
        envoy.routes().put_all([("mortal", port.parse().unwrap())]).await.unwrap();
        let open = tokio::spawn(http.get(envoy.data_url()).header(DEPLOYMENT_ID, "mortal").send());
        assert_eq!(line_of(output).await.0, "taken");
        drop(agent);
        let response = tokio::time::timeout(LIMIT, open).await.unwrap().unwrap().unwrap();
        assert!(response.status().is_server_error(), "{response:?}");
    }
}
