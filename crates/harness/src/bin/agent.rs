//! `cargo xtask agent`: an agent to play with, so that you can try a route without writing an agent.

use anyhow::Result;
use clap::Parser;
use harness::agents::{self, http, page};
use harness::ports;
use harness::shutdown::Shutdown;
use workspace::say;

/// Run an agent on a port of 127.0.0.1 until Ctrl-C. Without a flag it speaks HTTP/1.1 and responds with the request, as JSON.
#[derive(Parser)]
#[command(bin_name = "cargo xtask agent")]
struct Arguments {
    /// Port of 127.0.0.1, 0 for any free one
    port: u16,
    #[command(flatten)]
    kind: Kind,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct Kind {
    /// gRPC: the service of crates/harness/proto/agent.proto
    #[arg(long)]
    grpc: bool,
    /// HTTP/1.1: responds with the request, as JSON
    #[arg(long)]
    http: bool,
    /// Server-sent events: one every second
    #[arg(long)]
    sse: bool,
    /// A page for a browser, with server-sent events and a WebSocket
    #[arg(long)]
    page: bool,
}

fn main() -> std::process::ExitCode {
    harness::end(run(&Arguments::parse()))
}

#[tokio::main]
async fn run(arguments: &Arguments) -> Result<()> {
    ports::free(arguments.port, "choose another port")?;
    let mut shutdown = Shutdown::catch()?;
    let (kind, agent) = match arguments.kind {
        Kind { grpc: true, .. } => ("gRPC", agents::grpc::start_on("agent", arguments.port)?),
        Kind { sse: true, .. } => {
            ("server-sent events", http::start("agent", arguments.port, http::Version::Http1, |_| async { page::events() })?)
        }
        Kind { page: true, .. } => ("a browser", page::start("agent", arguments.port)?),
        Kind { .. } => ("HTTP/1.1", agents::echo::start_on("agent", arguments.port)?),
    };
    let port = agent.port();
    say(&format!("an agent for {kind} listens on 127.0.0.1:{port}; Ctrl-C ends it"));
    println!(
        "Push its route, with an Envoy of `cargo xtask demo` or `cargo xtask envoy` running:\n  \
         curl -X PUT http://127.0.0.1:9901/v1/routes/my-agent -H 'content-type: application/json' -d '{{\"port\": {port}}}'\n\
         Call it:\n  {}",
        call(&arguments.kind)
    );
    shutdown.requested().await;
    // At once: a stream that a client has open would keep it from ending.
    agent.kill();
    Ok(())
}

fn call(kind: &Kind) -> &'static str {
    if kind.grpc {
        "grpcurl -plaintext -H 'x-deployment-id: my-agent' -import-path crates/harness/proto -proto agent.proto \
         127.0.0.1:50051 pixell.agent.AgentService/Health"
    } else if kind.sse {
        "curl -N http://127.0.0.1:50051/agents/my-agent/events"
    } else if kind.page {
        "in a browser: http://127.0.0.1:50051/agents/my-agent/"
    } else {
        "curl http://127.0.0.1:50051/agents/my-agent/hello"
    }
}
