//! `cargo xtask demo`: shows routing from end to end, with a real Envoy and real agents.

mod fleet;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use harness::envoy::{follow, modules};
use harness::form::Form;
use harness::ports::{ADMIN, LISTEN, Ports};
use harness::proto::{self, AgentServiceClient, Empty};
use harness::shutdown::Shutdown;
use harness::{Agent, Envoy, agents};
use serde_json::json;
use tonic::Code;
use workspace::say;

/// Start Envoy and two gRPC agents, push their routes, call both, and stay up until Ctrl-C.
#[derive(Parser)]
#[command(bin_name = "cargo xtask demo")]
struct Arguments {
    /// Show two tasks that serve each other's agents, and what happens when one vanishes; ends by itself
    #[arg(long, conflicts_with_all = ["log", "verbose", "listen_port", "admin_port"])]
    fleet: bool,
    /// The Python that has the client and its extra `redis`, for --fleet
    #[arg(long, hide = true, requires = "fleet", default_value = "python3")]
    python: PathBuf,
    /// End after the calls, and fail if a response is not the expected one; uses free ports by default
    #[arg(long)]
    check: bool,
    /// Show the access log as it is written
    #[arg(long, conflicts_with = "check")]
    log: bool,
    /// Show Envoy's own log as it is written
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    form: Form,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    if arguments.fleet {
        return harness::end(
            harness::fabric::enter_user_namespace("cargo xtask demo --fleet")
                .and_then(|()| fleet::run(arguments.form, &arguments.python)),
        );
    }
    harness::end(run(&arguments))
}

/// Starts everything, makes the calls and prints the responses.
///
/// # Errors
/// If something does not start, or a response is not the expected one.
#[tokio::main]
async fn run(arguments: &Arguments) -> Result<()> {
    let (listen, admin) = if arguments.check { (0, 0) } else { (LISTEN, ADMIN) };
    let (listen, admin) = arguments.ports.claim(listen, admin)?;
    let filter = arguments.form.filter()?;
    let modules = modules::locate()?;
    let binary = workspace::envoy::locate()?;
    say("starting Envoy with envoy/envoy.yaml");
    let mut shutdown = Shutdown::catch()?;
    let mut settings = Envoy::builder().binary(binary).filter(filter).modules(modules).data_port(listen).api_port(admin);
    let logs = if arguments.check { None } else { Some(follow::fresh_directory("demo")?) };
    if let Some((directory, _taken)) = &logs {
        settings = settings.logs(directory.clone());
    }
    let mut envoy = settings.start().await?;
    if arguments.verbose {
        tokio::spawn(follow::print(envoy.log_file()));
    }

    let grpc_agents = [agents::grpc::start("alpha")?, agents::grpc::start("beta")?];
    // The user interface of `alpha`: another endpoint of the same agent.
    let page = agents::page::start("alpha", 0)?;
    // Its route is not pushed: one of the printed commands does that.
    let http_agent = agents::echo::start("gamma")?;
    if let Err(error) = exercise(&envoy, &grpc_agents, &page).await {
        eprintln!("--- Envoy's log\n{}\n--- end of Envoy's log", envoy.log());
        return Err(error);
    }
    if arguments.check {
        envoy.sigterm().await?;
        say("demo --check: every response was the expected one");
        return Ok(());
    }

    println!("\n{}\n\n{}", by_hand(&envoy, &http_agent), follow::places(&envoy));
    say("Ctrl-C ends the demo");
    if arguments.log {
        tokio::spawn(follow::print(envoy.access_log_file()));
    }
    tokio::select! {
        ended = envoy.ended() => bail!("Envoy has ended ({}); its log is {}", ended?, envoy.log_file().display()),
        signal = shutdown.requested() => say(&format!("{signal}: stopping")),
    }
    envoy.sigterm().await?;
    Ok(())
}

async fn exercise(envoy: &Envoy, agents: &[Agent], page: &Agent) -> Result<()> {
    push(envoy, agents, page).await?;
    calls(envoy, agents).await
}

/// Pushes the agents, each with one port, and `page` as an endpoint of the one of its name.
async fn push(envoy: &Envoy, agents: &[Agent], page: &Agent) -> Result<()> {
    say("pushing the route map: PUT /v1/routes");
    let mut routes = serde_json::Map::new();
    for agent in agents {
        let mut route = json!({"port": agent.port()});
        println!("  {} -> 127.0.0.1:{}", agent.name(), agent.port());
        if agent.name() == page.name() {
            println!("  {}, endpoint ui -> 127.0.0.1:{}", agent.name(), page.port());
            route = json!({"port": agent.port(), "endpoints": {"ui": page.port()}});
        }
        routes.insert(agent.name().to_owned(), route);
    }
    let response = envoy.routes().put_routes(&json!({"routes": routes})).await?;
    println!("  response: {response}");
    Ok(())
}

/// Calls each agent by its id, one also by a path, then an unknown id, then no id, with gRPC; the last two also with plain HTTP.
async fn calls(envoy: &Envoy, agents: &[Agent]) -> Result<()> {
    say(&format!("calling Health with gRPC at {}, the agent named by a header", envoy.data_addr()));
    for agent in agents {
        let response = health(envoy, Some(agent.name())).await?;
        expect(Some(agent.name()), &response, (Code::Ok, agent.name(), None))?;
    }
    by_path(envoy).await?;
    say("the same for an id that has no route, and without an id");
    let unknown = "Deployment nobody not found or not ready";
    let response = health(envoy, Some("nobody")).await?;
    expect(Some("nobody"), &response, (Code::NotFound, unknown, Some("unknown_deployment")))?;
    let missing = "Missing x-deployment-id header";
    let response = health(envoy, None).await?;
    expect(None, &response, (Code::InvalidArgument, missing, Some("missing_deployment_id")))?;

    say(&format!("the same two rejections for a plain HTTP client, GET {}/", envoy.data_url()));
    rejection(envoy, Some("nobody"), 404, "unknown_deployment").await?;
    rejection(envoy, None, 400, "missing_deployment_id").await
}

/// Calls the first agent by a path: its gRPC endpoint, and the one with a page.
async fn by_path(envoy: &Envoy) -> Result<()> {
    say("the agent named by the path");
    let address = envoy.data_url();
    let channel = tonic::transport::Endpoint::try_from(address.clone())?.connect().await?;
    let origin = format!("{address}/agents/alpha/a2a").try_into().context("a URI")?;
    let health = AgentServiceClient::with_origin(channel, origin).health(Empty {}).await?.into_inner();
    println!("  /agents/alpha/a2a/pixell.agent.AgentService/Health => {:?}", health.message);
    ensure!(health.message == "alpha", "expected alpha, got {health:?}");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let hello = client.get(format!("{address}/agents/alpha/ui/hello")).send().await?.error_for_status()?.text().await?;
    println!("  GET /agents/alpha/ui/hello => {hello:?}");
    ensure!(hello == "alpha says hello", "got {hello:?}");
    Ok(())
}

/// A response as a gRPC client sees it.
struct Response {
    code: Code,
    /// The agent's message, or the status message of a rejection.
    message: String,
    /// The response header `x-pixell-error`.
    error: Option<String>,
}

async fn health(envoy: &Envoy, id: Option<&str>) -> Result<Response> {
    let mut client = proto::connect(envoy.data_addr()).await?;
    let request = match id {
        Some(id) => proto::request_to(id, Empty {})?,
        None => tonic::Request::new(Empty {}),
    };
    Ok(match client.health(request).await {
        Ok(response) => Response { code: Code::Ok, message: response.into_inner().message, error: None },
        Err(status) => Response {
            code: status.code(),
            message: status.message().to_owned(),
            error: status.metadata().get("x-pixell-error").and_then(|value| Some(value.to_str().ok()?.to_owned())),
        },
    })
}

/// Prints `response` and compares it with the expected code, message and `x-pixell-error`.
fn expect(id: Option<&str>, response: &Response, expected: (Code, &str, Option<&str>)) -> Result<()> {
    let Response { code, message, error } = response;
    let mut line = format!("  {} => grpc-status {} ({code:?}) {message:?}", named(id), i32::from(*code));
    if let Some(error) = error {
        write!(line, "  x-pixell-error: {error}")?;
    }
    println!("{line}");
    let seen = (*code, message.as_str(), error.as_deref());
    ensure!(seen == expected, "{}: expected {expected:?}, got {seen:?}", named(id));
    Ok(())
}

/// Sends a plain HTTP request that must be rejected, prints the rejection and compares it with the expected status and code.
async fn rejection(envoy: &Envoy, id: Option<&str>, status: u16, code: &str) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut request = client.get(envoy.data_url());
    if let Some(id) = id {
        request = request.header(proto::DEPLOYMENT_ID, id);
    }
    let response = request.send().await?;
    let seen_status = response.status();
    let header = |name: &str| response.headers().get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let (error, content_type) = (header("x-pixell-error"), header("content-type"));
    let body = response.text().await?;
    println!("  {} => {seen_status}  x-pixell-error: {}", named(id), error.as_deref().unwrap_or("(none)"));
    println!("    {}", body.trim_end());
    let problem: serde_json::Value = serde_json::from_str(&body).context("the rejection's body is not JSON")?;
    let as_expected = seen_status == status
        && error.as_deref() == Some(code)
        && content_type.as_deref() == Some("application/problem+json")
        && problem.get("code").is_some_and(|seen| seen == code);
    ensure!(as_expected, "{}: expected {status} {code} as application/problem+json, got {content_type:?}", named(id));
    Ok(())
}

fn named(id: Option<&str>) -> String {
    id.map_or_else(|| "no x-deployment-id".into(), |id| format!("x-deployment-id: {id}"))
}

/// Commands for another terminal, with the ports and paths of this run.
fn by_hand(envoy: &Envoy, http_agent: &Agent) -> String {
    let (data, api) = (envoy.data_url(), envoy.api_url());
    let (call, proto) = (envoy.data_addr(), workspace::root().join("crates/harness/proto"));
    let (id, port) = (http_agent.name(), http_agent.port());
    format!(
        "A page of the agent alpha, for a browser:\n  \
           {data}/agents/alpha/ui/\n\
         Try it from another terminal.\n\
         The route map:\n  \
           curl -i {api}/v1/routes\n\
         An HTTP/1.1 agent that is running but has no route yet: push its route, then call it:\n  \
           curl -i -X PUT {api}/v1/routes/{id} -H 'content-type: application/json' -d '{{\"port\": {port}}}'\n  \
           curl -i {data}/hello -H 'x-deployment-id: {id}'\n  \
           curl -i {data}/agents/{id}/hello\n\
         A gRPC call:\n  \
           grpcurl -plaintext -import-path {} -proto agent.proto -H 'x-deployment-id: alpha' \
             {call} pixell.agent.AgentService/Health\n\
         Remove the route, and see the rejection:\n  \
           curl -i -X DELETE {api}/v1/routes/{id}\n  \
           curl -i {data}/hello -H 'x-deployment-id: {id}'\n\
         Readiness and stats:\n  \
           curl {api}/ready\n  \
           curl '{api}/stats/prometheus'",
        proto.display()
    )
}
