//! `cargo xtask demo --fleet`: two tasks and a directory on this machine, each in a network namespace of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use harness::envoy::modules;
use harness::fabric::{Fabric, NETWORK, Namespace};
use harness::form::Form;
use harness::ports::{ADMIN, LISTEN, PEERS};
use harness::proto::{self, Empty};
use harness::{Agent, Envoy, RouteApi, agents, wait};
use launcher::filter::Filter;
use launcher::settings::{FLEET_CIDRS, Settings};
use tonic::Code;
use workspace::say;

/// A task's route API, from inside.
const API: &str = "http://127.0.0.1:9901";
/// The port of the directory.
const REDIS: u16 = 6379;
/// How long a record, a response or an end may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// Within this time a client of a vanished task knows that it is gone, if it had a connection: contract of the data path.
const NOTICED: Duration = Duration::from_secs(10);
/// A silent task is dropped after this time, if its Envoy accepts no connection: the default of `Fleet`.
const TTL: Duration = Duration::from_secs(10);
/// How much later clients may learn of it: a beat may be read a second after it was written, and the map has to be pushed.
const DROPPED: Duration = Duration::from_secs(2);
/// What clients may be told until then.
const BEFORE: [&str; 2] = ["agent_closed", "peer_unreachable"];
/// Between two calls to an agent of a task that is gone.
const PAUSE: Duration = Duration::from_millis(250);

/// Starts everything, makes the calls and prints the responses.
///
/// # Errors
/// If something does not start, or a response is not the expected one.
#[tokio::main]
pub(crate) async fn run(form: Form, python: &Path) -> Result<()> {
    let (binary, modules) = (&workspace::envoy::locate()?, &modules::locate()?);
    let fabric = Fabric::new(2)?;
    let redis = Directory::start(&fabric)?;
    let with = With { filter: form.filter()?, binary, modules, python, directory: &redis.url };
    say(&format!("starting two tasks, which publish their agents in the directory {}", redis.url));
    let a = Task::start((&fabric, 0), "task-a", "alpha", &with).await?;
    let b = Task::start((&fabric, 1), "task-b", "beta", &with).await?;
    a.sees("beta").await?;
    b.sees("alpha").await?;

    say("calling Health with gRPC, each agent through each task");
    for task in [&a, &b] {
        for id in ["alpha", "beta"] {
            let response = call(&fabric, task, id).await?;
            println!("  {} {}: {id} => {response}", task.name, task.address);
            ensure!(response.is_from(id), "expected a response of {id}");
        }
    }
    hop_in_the_logs(&a, &b).await?;

    say("task-b vanishes, with its agent beta: no packet reaches it any more");
    fabric.cut(1, true)?;
    let gone = Instant::now();
    b.kill()?;
    let (mut seen, mut calls_to_alpha) = (Vec::<(Duration, Response)>::new(), 0);
    loop {
        let response = call(&fabric, &a, "beta").await?;
        ensure!(call(&fabric, &a, "alpha").await?.is_from("alpha"), "alpha, which is not on task-b, must be served");
        calls_to_alpha += 1;
        let error = response.error.clone().unwrap_or_default();
        let is_news = seen.last().is_none_or(|(_, last)| last.error != response.error);
        let (at, is_last) = (gone.elapsed(), error == "unknown_deployment");
        if is_news {
            println!("  after {:4.1} s: {}: beta => {response}", at.as_secs_f64(), a.name);
            seen.push((at, response));
        }
        let (noticed, _) = seen.first().context("the first response is news")?;
        ensure!(*noticed < NOTICED, "the first response took too long");
        ensure!(at <= TTL + DROPPED, "task-b's agent is still expected on it {at:.1?} after task-b vanished");
        if is_last {
            break;
        }
        ensure!(BEFORE.contains(&error.as_str()), "expected one of {BEFORE:?} while task-b's record counts");
        tokio::time::sleep(PAUSE).await;
    }
    println!("  alpha responded to all {calls_to_alpha} calls meanwhile");
    ensure!(seen.len() > 1, "task-b was dropped before it could be noticed that it does not respond");
    a.stop().await?;
    say("every response was the expected one");
    Ok(())
}

/// What all tasks are started with.
struct With<'a> {
    filter: Filter,
    binary: &'a Path,
    modules: &'a Path,
    python: &'a Path,
    directory: &'a str,
}

/// A call through task A to an agent of task B, as both access logs have it.
async fn hop_in_the_logs(a: &Task<'_>, b: &Task<'_>) -> Result<()> {
    say("one call in the access logs of both tasks");
    let out = a.logged("beta", "out").await?;
    let request = out.get("request_id").cloned().context("no request id")?;
    let incoming = b.logged("beta", "in").await?;
    ensure!(incoming.get("request_id") == Some(&request), "the request has one id: {out} {incoming}");
    for (task, line) in [(a, out), (b, incoming)] {
        let field = |name: &str| line.get(name).map(ToString::to_string).unwrap_or_default();
        println!("  {}: hop {}, upstream {}, request_id {request}", task.name, field("hop"), field("upstream"));
    }
    Ok(())
}

/// A response as a client sees it.
struct Response {
    code: Code,
    message: String,
    /// The response header `x-pixell-error`.
    error: Option<String>,
    took: Duration,
}

impl Response {
    fn is_from(&self, agent: &str) -> bool {
        self.code == Code::Ok && self.message == agent
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, message, error, took } = self;
        write!(f, "{code:?} {message:?}")?;
        if let Some(error) = error {
            write!(f, "  x-pixell-error: {error}")?;
        }
        write!(f, "  ({:.1} ms)", took.as_secs_f64() * 1000.0)
    }
}

/// Calls the agent `id` through `task`, as a client outside of both, on a new connection.
async fn call(fabric: &Fabric, task: &Task<'_>, id: &'static str) -> Result<Response> {
    let address = SocketAddr::from((task.address, LISTEN));
    let call = move || async move {
        let mut client = proto::connect(address).await?;
        let started = Instant::now();
        let response = client.health(proto::request_to(id, Empty {})?).await;
        let took = started.elapsed();
        anyhow::Ok(match response {
            Ok(response) => Response { code: Code::Ok, message: response.into_inner().message, error: None, took },
            Err(status) => {
                let error = status.metadata().get("x-pixell-error").and_then(|error| Some(error.to_str().ok()?.to_owned()));
                Response { code: status.code(), message: status.message().to_owned(), error, took }
            }
        })
    };
    fabric.outside().run(call).await?
}

/// The directory: a Redis server between the tasks.
struct Directory {
    _process: Program,
    url: String,
}

impl Directory {
    fn start(fabric: &Fabric) -> Result<Self> {
        // Nobody else is on this network, so it needs no password.
        let arguments = ["--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "no"];
        let mut command = Command::new("redis-server");
        command.args(arguments).args(["--port", &REDIS.to_string()]).stdout(Stdio::null());
        let process = Program::start(fabric.outside(), &mut command)?;
        Ok(Self { _process: process, url: format!("redis://{}:{REDIS}", fabric.gateway(0)) })
    }
}

/// A program in a namespace. It is killed if this is dropped.
struct Program(Child);

impl Program {
    fn start(namespace: &Namespace, command: &mut Command) -> Result<Self> {
        namespace.enter(|| command.spawn().with_context(|| format!("starting {}", command.get_program().display()))).map(Self)
    }

    /// Asks it to end, and waits for that.
    fn stop(mut self) -> Result<()> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id().try_into()?), nix::sys::signal::SIGTERM)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A task: Envoy, an agent, and the program that stands in for PAR.
struct Task<'a> {
    name: &'static str,
    address: Ipv4Addr,
    namespace: &'a Namespace,
    envoy: Envoy,
    par: Program,
    _agent: Agent,
}

impl<'a> Task<'a> {
    async fn start(place: (&'a Fabric, usize), name: &'static str, agent: &'static str, with: &With<'_>) -> Result<Self> {
        let (fabric, number) = place;
        let (namespace, address) = (fabric.task(number)?, fabric.address(number));
        let settings = |name: &str| (name == FLEET_CIDRS).then(|| NETWORK.into());
        let settings = Settings::resolve(settings).map_err(|errors| anyhow!("{errors:?}"))?;
        let builder = Envoy::builder().settings(&settings).filter(with.filter).bind(Ipv4Addr::UNSPECIFIED);
        let builder = builder.binary(with.binary).modules(with.modules).data_port(LISTEN).api_port(ADMIN).peer_port(PEERS);
        let start = move || async move { (builder.start().await, agents::grpc::start(agent)) };
        let (envoy, agent) = namespace.run(start).await?;
        let (envoy, agent) = (envoy?, agent?);
        let mut par = Command::new(with.python);
        par.arg(workspace::root().join("crates/harness/src/bin/demo/task.py")).args([with.directory, name]);
        par.arg(address.to_string()).arg(format!("{}={}", agent.name(), agent.port()));
        let par = Program::start(namespace, &mut par)?;
        println!("  {name}: {address}, agent {} on port {} of its loopback interface", agent.name(), agent.port());
        Ok(Self { name, address, namespace, envoy, par, _agent: agent })
    }

    /// Waits until this task's Envoy knows another task's agent.
    async fn sees(&self, id: &str) -> Result<()> {
        let look = || async {
            let fleet = self.namespace.run(|| async { RouteApi::new(API).get("/v1/fleet").await }).await??;
            Ok(fleet.json()?.pointer(&format!("/routes/{id}")).map(|_| ()))
        };
        wait::until(&format!("{id} in the fleet map of {}", self.name), LIMIT, look).await
    }

    /// The access log's line about a call of an agent that came from another task (`in`) or went there (`out`).
    async fn logged(&self, id: &str, hop: &str) -> Result<serde_json::Value> {
        let look = || async {
            let lines = self.envoy.access_log()?;
            let is = |line: &serde_json::Value, field: &str, value: &str| line.get(field).is_some_and(|found| found == value);
            Ok(lines.into_iter().find(|line| is(line, "deployment_id", id) && is(line, "hop", hop)))
        };
        wait::until(&format!("a line with hop {hop} in the access log of {}", self.name), LIMIT, look).await
    }

    /// Ends all processes of the task at once.
    fn kill(mut self) -> Result<()> {
        drop(self.par);
        self.envoy.kill()?;
        Ok(())
    }

    /// Stops what stands in for PAR, which tells the other tasks, and then Envoy.
    async fn stop(self) -> Result<()> {
        tokio::task::spawn_blocking(|| self.par.stop()).await?.context("stopping the program that stands in for PAR")?;
        let mut envoy = self.envoy;
        let status = self.namespace.run(|| async move { envoy.sigterm().await }).await??;
        ensure!(status.success(), "Envoy ended with {status}");
        Ok(())
    }
}
