//! What a person sees of `cargo xtask demo`, `envoy` and `agent`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::proto::{self, Empty};
use harness::{Envoy, wait};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");
const ENVOY: &str = env!("CARGO_BIN_EXE_envoy");
const AGENT: &str = env!("CARGO_BIN_EXE_agent");

/// Longer than anything here takes, because this machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);

/// A program and what it has printed so far, on both streams. Dropping it ends the program, which ends what it has started.
struct Program {
    process: Child,
    output: Arc<Mutex<String>>,
}

impl Program {
    fn start(path: &str, arguments: &[&str]) -> Self {
        // One pipe for both streams, so that the lines are in the order in which a person sees them.
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new(path);
        let process = command.args(arguments).stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        let output = Arc::<Mutex<String>>::default();
        let read = Arc::clone(&output);
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                *read.lock().unwrap() += &(line.unwrap() + "\n");
            }
        });
        Self { process, output }
    }

    fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Waits until the output contains `text`, and returns the output.
    async fn prints(&self, text: &str) -> String {
        let probe = || {
            let output = Some(self.output()).filter(|output| output.contains(text));
            async { Ok(output) }
        };
        wait::until(text, LIMIT, probe).await.unwrap_or_else(|error| panic!("{error}: {}", self.output()))
    }

    /// Waits for the end of the program and of its output, and returns how it ended and what it has printed.
    async fn ends(&mut self) -> (ExitStatus, String) {
        let output = &self.output;
        let process = &mut self.process;
        let ended = wait::until("the program's end", LIMIT, || {
            // The reader holds the other reference until the end of the output.
            let ended = process.try_wait().map(|status| status.filter(|_| Arc::strong_count(output) == 1));
            async { Ok(ended?) }
        });
        let status = ended.await.unwrap_or_else(|error| panic!("{error}: {}", self.output()));
        (status, self.output())
    }

    fn signal(&self, name: &str) {
        signal(name, self.process.id());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            self.signal("TERM");
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while !matches!(self.process.try_wait(), Ok(Some(_))) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // On Linux this ends an Envoy that it has started, too.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn signal(name: &str, process: u32) {
    Command::new("kill").args([format!("-{name}"), process.to_string()]).status().unwrap();
}

/// The rest of the first line that begins with `start`.
#[track_caller]
fn after<'a>(output: &'a str, start: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.strip_prefix(start));
    found.unwrap_or_else(|| panic!("no line begins with {start:?}: {output}")).trim()
}

/// The addresses and files that a program that starts Envoy prints last.
struct Places {
    data: String,
    api: String,
    log: PathBuf,
}

impl Places {
    #[track_caller]
    fn of(output: &str) -> Self {
        let data = after(output, "agents are called at").to_owned();
        let api = after(output, "the route API").strip_suffix("/v1/").unwrap().to_owned();
        assert_eq!(after(output, "the status page"), format!("{api}/"));
        Self { data, api, log: after(output, "Envoy's own log").into() }
    }

    fn data_port(&self) -> &str {
        self.data.rsplit(':').next().unwrap()
    }
}

/// The one process that `parent` has started.
fn child_of(parent: u32) -> u32 {
    let listing = Command::new("ps").args(["-e", "-o", "pid=,ppid="]).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    let children: Vec<u32> = listing
        .lines()
        .filter_map(|line| {
            let (process, of) = line.trim().split_once(' ')?;
            (of.trim() == parent.to_string()).then(|| process.parse().unwrap())
        })
        .collect();
    let [child] = children[..] else { panic!("{parent} has the children {children:?}") };
    child
}

const FREE_PORTS: [&str; 4] = ["--listen-port", "0", "--admin-port", "0"];
const DEMO_IS_UP: &str = "Ctrl-C ends the demo";

async fn get(url: &str) -> reqwest::Result<reqwest::Response> {
    reqwest::Client::builder().no_proxy().build()?.get(url).send().await
}

#[tokio::test]
async fn the_demo_prints_last_where_everything_is_and_a_second_one_says_that_it_runs() {
    let mut demo = Program::start(DEMO, &FREE_PORTS);
    let output = demo.prints(DEMO_IS_UP).await;
    let places = Places::of(&output);
    let access_log = PathBuf::from(after(&output, "the access log"));
    let last: Vec<&str> = output[output.find("agents are called at").unwrap()..].lines().collect();
    assert_eq!(last.len(), 6, "{output}");
    assert!(get(&format!("{}/", places.api)).await.unwrap().text().await.unwrap().contains("<!doctype html>"));
    assert!(
        !output.contains("\"log\":\"access\"") && !output.contains("[info]"),
        "logs are shown only if they are asked for: {output}"
    );

    if cfg!(target_os = "linux") {
        let running = format!(
            "error: port {} is in use because a demo is already running (pid {}): end that program, or choose another port with \
             --listen-port (0: any free port)\n",
            places.data_port(),
            demo.process.id()
        );
        for program in [DEMO, ENVOY] {
            let mut second = Program::start(program, &["--listen-port", places.data_port(), "--admin-port", "0"]);
            let (status, said) = second.ends().await;
            assert!(!status.success() && said == running, "{said}");
        }
    }

    demo.signal("INT");
    let (status, output) = demo.ends().await;
    assert!(status.success(), "{output}");
    for log in [&places.log, &access_log] {
        assert!(log.metadata().unwrap().len() > 0, "{} has gone with the demo that named it", log.display());
    }
}

#[tokio::test]
async fn the_demo_shows_its_logs_if_it_is_asked_for_them() {
    let demo = Program::start(DEMO, &[&FREE_PORTS[..], &["--log", "--verbose"]].concat());
    let places = Places::of(&demo.prints(DEMO_IS_UP).await);
    get(&format!("{}/agents/alpha/ui/live?a=secret", places.data)).await.unwrap();
    let output = demo.prints("\"path\":\"/live\"").await;
    assert!(output.contains("\"deployment_id\":\"alpha\""), "{output}");
    demo.prints("all dependencies initialized. starting workers").await;
}

#[tokio::test]
async fn a_demo_whose_envoy_is_killed_says_so_in_one_line() {
    let mut demo = Program::start(DEMO, &FREE_PORTS);
    let before = demo.prints(DEMO_IS_UP).await;
    signal("KILL", child_of(demo.process.id()));
    let (status, output) = demo.ends().await;
    assert!(!status.success());
    let said = format!("error: Envoy has ended (signal: 9 (SIGKILL)); its log is {}\n", Places::of(&before).log.display());
    assert_eq!(output.strip_prefix(&before), Some(said.as_str()), "{output}");
}

#[tokio::test]
async fn envoy_shows_the_access_log_and_its_own_log_only_if_verbose() {
    let quiet = Program::start(ENVOY, &FREE_PORTS);
    let output = quiet.prints("Ctrl-C stops Envoy").await;
    let places = Places::of(&output);
    assert!(places.log.exists() && !output.contains("[info]"), "{output}");
    get(&format!("{}/agents/nobody/", places.data)).await.unwrap();
    quiet.prints("\"rejection\":\"route_map_not_loaded\"").await;

    let verbose = Program::start(ENVOY, &[&FREE_PORTS[..], &["--verbose"]].concat());
    verbose.prints("Ctrl-C stops Envoy").await;
    let output = verbose.prints("all dependencies initialized. starting workers").await;
    assert!(!output.contains("Envoy's own log"), "no file has it: {output}");
}

/// A running agent and its port.
async fn agent(arguments: &[&str]) -> (Program, u16) {
    let agent = Program::start(AGENT, &[&["0"], arguments].concat());
    let output = agent.prints("Call it:").await;
    let (_, port) = output.split_once("listens on 127.0.0.1:").unwrap();
    let port = port.split(';').next().unwrap().parse().unwrap();
    assert!(output.contains(&format!("-d '{{\"port\": {port}}}'")), "{output}");
    (agent, port)
}

/// Each kind of agent responds to the call that it prints.
#[tokio::test]
async fn an_agent_of_each_kind_serves_what_it_says() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agents = futures_util::future::join_all([
        agent(&[]),
        agent(&["--http"]),
        agent(&["--sse"]),
        agent(&["--page"]),
        agent(&["--grpc"]),
    ]);
    let agents = agents.await;
    let named = ["plain", "http", "sse", "page", "grpc"].into_iter().zip(&agents);
    envoy.routes().put_all(named.map(|(id, (_, port))| (id, *port))).await.unwrap();
    let call = async |path: &str| get(&format!("{}{path}", envoy.data_url())).await.unwrap().error_for_status().unwrap();

    for (id, (agent, _)) in ["plain", "http"].iter().zip(&agents) {
        agent.prints("curl http://127.0.0.1:50051/agents/my-agent/hello").await;
        let seen: serde_json::Value = call(&format!("/agents/{id}/hello")).await.json().await.unwrap();
        assert_eq!((&seen["method"], &seen["path"]), (&"GET".into(), &"/hello".into()), "{seen}");
    }
    agents[2].0.prints("curl -N http://127.0.0.1:50051/agents/my-agent/events").await;
    let mut events = call("/agents/sse/events").await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert_eq!(events.chunk().await.unwrap().unwrap(), "data: event 1\n\n");
    agents[3].0.prints("in a browser: http://127.0.0.1:50051/agents/my-agent/").await;
    assert_eq!(call("/agents/page/").await.text().await.unwrap(), harness::agents::page::PAGE);
    agents[4].0.prints("127.0.0.1:50051 pixell.agent.AgentService/Health").await;
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    let health = client.health(proto::request_to("grpc", Empty {}).unwrap()).await.unwrap().into_inner();
    assert!(health.ok, "{health:?}");

    for (mut agent, port) in agents {
        agent.signal("INT");
        assert!(agent.ends().await.0.success());
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is free again");
    }
}

#[tokio::test]
async fn an_agent_of_two_kinds_or_on_a_port_in_use_is_an_error() {
    let (_, said) = Program::start(AGENT, &["0", "--grpc", "--sse"]).ends().await;
    assert!(said.contains("cannot be used with"), "{said}");
    let (running, port) = agent(&[]).await;
    let (status, said) = Program::start(AGENT, &[&port.to_string()]).ends().await;
    let by = if cfg!(target_os = "linux") { format!(" by agent (pid {})", running.process.id()) } else { String::new() };
    let in_use = format!("error: port {port} is in use{by}: end that program, or choose another port (0: any free port)\n");
    assert!(!status.success() && said == in_use, "{said}");
}
