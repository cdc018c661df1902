//! `cargo xtask demo`: the main job from end to end, with a real Envoy and real agents.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use harness::proto::{self, Empty};
use harness::{Agent, Envoy, agents, workspace};
use tonic::Code;

use crate::build;
use crate::command::say;
use crate::ports::{ADMIN, LISTEN, Ports};
use crate::shutdown::Shutdown;

/// Start Envoy and two gRPC agents, push their routes, call both, and stay up until Ctrl-C.
#[derive(Args)]
pub(crate) struct Arguments {
    /// End after the calls; fails where an answer is not the expected one, and takes free ports unless told
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    ports: Ports,
}

/// Builds the filter, starts everything, makes the calls and shows what came back.
///
/// # Errors
/// Where something does not start, or an answer is not the expected one.
#[tokio::main]
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let (listen, admin) = if arguments.check { (0, 0) } else { (LISTEN, ADMIN) };
    let (listen, admin) = arguments.ports.claim(listen, admin)?;
    let modules = build::modules()?;
    let binary = harness::envoy::binary::locate()?;
    say("starting Envoy with envoy/envoy.yaml");
    let mut shutdown = Shutdown::catch()?;
    let settings = Envoy::builder().binary(binary).modules(modules).data_port(listen).api_port(admin);
    let mut envoy = settings.start().await?;
    say(&format!("agents are called at {}, the route API is at {}/v1/", envoy.data_url(), envoy.api_url()));

    let grpc_agents = [agents::grpc::start("alpha")?, agents::grpc::start("beta")?];
    // Not pushed: that is left to whoever tries the commands.
    let http_agent = agents::echo::start("gamma")?;
    if let Err(error) = exercise(&envoy, &grpc_agents).await {
        eprintln!("--- Envoy's log\n{}\n--- end of Envoy's log", envoy.log());
        return Err(error);
    }
    if arguments.check {
        envoy.sigterm().await?;
        say("demo --check: every answer was the expected one");
        return Ok(());
    }

    println!("\n{}", by_hand(&envoy, &http_agent));
    say("Ctrl-C ends the demo");
    tokio::select! {
        ended = envoy.ended() => bail!("Envoy ended by itself with {}:\n{}", ended?, envoy.log()),
        signal = shutdown.requested() => say(&format!("{signal}: stopping")),
    }
    envoy.sigterm().await?;
    Ok(())
}

async fn exercise(envoy: &Envoy, agents: &[Agent]) -> Result<()> {
    push(envoy, agents).await?;
    calls(envoy, agents).await
}

async fn push(envoy: &Envoy, agents: &[Agent]) -> Result<()> {
    say("pushing the route map: PUT /v1/routes");
    for agent in agents {
        println!("  {} -> 127.0.0.1:{}", agent.name(), agent.port());
    }
    let reply = envoy.routes().put_all(agents.iter().map(|agent| (agent.name(), agent.port()))).await?;
    println!("  answer: {reply}");
    Ok(())
}

/// Calls each agent by its id, then an id that nobody has, then none, as gRPC and as plain HTTP.
async fn calls(envoy: &Envoy, agents: &[Agent]) -> Result<()> {
    say(&format!("calling Health by gRPC at {}", envoy.data_addr()));
    for agent in agents {
        let answer = health(envoy, Some(agent.name())).await?;
        expect(Some(agent.name()), &answer, (Code::Ok, agent.name(), None))?;
    }
    let unknown = "Deployment nobody not found or not ready";
    let answer = health(envoy, Some("nobody")).await?;
    expect(Some("nobody"), &answer, (Code::NotFound, unknown, Some("unknown_deployment")))?;
    let missing = "Missing x-deployment-id header";
    let answer = health(envoy, None).await?;
    expect(None, &answer, (Code::InvalidArgument, missing, Some("missing_deployment_id")))?;

    say(&format!("the same two refusals for a plain HTTP caller, GET {}/", envoy.data_url()));
    refusal(envoy, Some("nobody"), 404, "unknown_deployment").await?;
    refusal(envoy, None, 400, "missing_deployment_id").await
}

/// What a gRPC caller sees.
struct Answer {
    code: Code,
    /// The agent's message, or the status message of a refusal.
    message: String,
    /// The response header `x-pixell-error`.
    refused: Option<String>,
}

async fn health(envoy: &Envoy, id: Option<&str>) -> Result<Answer> {
    let mut client = proto::connect(envoy.data_addr()).await?;
    let request = match id {
        Some(id) => proto::request_to(id, Empty {})?,
        None => tonic::Request::new(Empty {}),
    };
    Ok(match client.health(request).await {
        Ok(response) => Answer { code: Code::Ok, message: response.into_inner().message, refused: None },
        Err(status) => Answer {
            code: status.code(),
            message: status.message().to_owned(),
            refused: status.metadata().get("x-pixell-error").and_then(|value| Some(value.to_str().ok()?.to_owned())),
        },
    })
}

/// Prints `answer` and compares it with the expected code, message and `x-pixell-error`.
fn expect(id: Option<&str>, answer: &Answer, expected: (Code, &str, Option<&str>)) -> Result<()> {
    let Answer { code, message, refused } = answer;
    let mut line = format!("  {} => grpc-status {} ({code:?}) {message:?}", named(id), i32::from(*code));
    if let Some(refused) = refused {
        write!(line, "  x-pixell-error: {refused}")?;
    }
    println!("{line}");
    let seen = (*code, message.as_str(), refused.as_deref());
    ensure!(seen == expected, "{}: expected {expected:?}, got {seen:?}", named(id));
    Ok(())
}

async fn refusal(envoy: &Envoy, id: Option<&str>, status: u16, code: &str) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut request = client.get(envoy.data_url());
    if let Some(id) = id {
        request = request.header(proto::DEPLOYMENT_ID, id);
    }
    let answer = request.send().await?;
    let seen_status = answer.status();
    let header = |name: &str| answer.headers().get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let (error, content_type) = (header("x-pixell-error"), header("content-type"));
    let body = answer.text().await?;
    println!("  {} => {seen_status}  x-pixell-error: {}", named(id), error.as_deref().unwrap_or("(none)"));
    println!("    {body}");
    let problem: serde_json::Value = serde_json::from_str(&body).context("the refusal's body is not JSON")?;
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
    let (call, proto) = (envoy.data_addr(), workspace::root().join("harness/proto"));
    let (id, port) = (http_agent.name(), http_agent.port());
    format!(
        "Try it from another terminal.\n\
         The route map:\n  \
           curl -i {api}/v1/routes\n\
         An HTTP/1.1 agent that is running but has no route yet: push its route, then call it:\n  \
           curl -i -X PUT {api}/v1/routes/{id} -H 'content-type: application/json' -d '{{\"port\": {port}}}'\n  \
           curl -i {data}/hello -H 'x-deployment-id: {id}'\n\
         A gRPC call:\n  \
           grpcurl -plaintext -import-path {} -proto agent.proto -H 'x-deployment-id: alpha' \
             {call} pixell.agent.AgentService/Health\n\
         Take a route away, and see the refusal:\n  \
           curl -i -X DELETE {api}/v1/routes/{id}\n  \
           curl -i {data}/hello -H 'x-deployment-id: {id}'\n\
         Readiness and stats:\n  \
           curl {api}/ready\n  \
           curl '{api}/stats/prometheus'",
        proto.display()
    )
}
