//! Three tasks, each with an Envoy, an agent and PAR's part of the Python client, whose directory is DynamoDB (moto's server). Redis is the
//! directory of the fleet in containers: `cargo xtask test fleet-integration`.
//!
//! Needs root, iproute2 and the Python client, so it is not part of a plain `cargo test`: `cargo xtask test netns`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::fabric::Namespace;
use harness::wait;
use reqwest::Client;
use serde_json::json;

#[path = "../fleet/tasks.rs"]
#[expect(dead_code, reason = "PAR pushes the maps here, and the tasks have no certificates")]
mod tasks;

use tasks::Tasks;

/// moto's port.
const PORT: u16 = 8000;
/// A silent task is dropped after so many seconds.
const TTL: u64 = 2;
/// How long a thing may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The Python with the client and moto.
fn python() -> Command {
    let path = std::env::var("PIXELL_CLIENT_PYTHON");
    Command::new(path.expect("PIXELL_CLIENT_PYTHON must name the Python of the client: run `cargo xtask test netns`"))
}

/// A process in a namespace. It is killed if this is dropped.
struct Process(Child);

impl Process {
    fn start(namespace: &Namespace, command: &mut Command) -> Self {
        Self(namespace.enter(|| Ok(command.spawn()?)).unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// DynamoDB with an empty table.
async fn directory(tasks: &Tasks) -> Process {
    let mut server = python();
    server.args(["-m", "moto.server", "-H", "0.0.0.0", "-p", &PORT.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Process::start(tasks.fabric.outside(), &mut server);
    let table = json!({
        "TableName": "fleet",
        "KeySchema": [{ "AttributeName": "key", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "key", "AttributeType": "S" }],
        "BillingMode": "PAY_PER_REQUEST",
    });
    let make = move || async move {
        let client = Client::builder().no_proxy().build().unwrap();
        let made = || async {
            let request =
                client.post(format!("http://127.0.0.1:{PORT}/")).header("x-amz-target", "DynamoDB_20120810.CreateTable");
            let scope =
                "AWS4-HMAC-SHA256 Credential=test/20270115/us-east-2/dynamodb/aws4_request, SignedHeaders=host, Signature=0";
            let request = request.header("authorization", scope).header("content-type", "application/x-amz-json-1.0");
            let response = request.body(table.to_string()).send().await;
            Ok(response.is_ok_and(|response| response.status() == 200).then_some(()))
        };
        wait::until("moto's server and a table", LIMIT, made).await
    };
    tasks.fabric.outside().run(make).await.unwrap().unwrap();
    server
}

/// PAR's part of a task.
struct Par {
    _process: Process,
    pipes: Arc<Mutex<(ChildStdin, BufReader<ChildStdout>)>>,
}

impl Par {
    fn start(tasks: &Tasks, task: usize) -> Self {
        let url = format!("http://{}:{PORT}", tasks.fabric.gateway(task));
        let mut command = python();
        command.arg(workspace::root().join("tests/directory/par.py")).args([url, format!("task-{task}")]);
        command.args([tasks.fabric.address(task).to_string(), TTL.to_string()]);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("NO_PROXY", "*");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(tasks.fabric.task(task).unwrap(), &mut command);
        let pipes = (process.0.stdin.take().unwrap(), BufReader::new(process.0.stdout.take().unwrap()));
        Self { _process: process, pipes: Arc::new(Mutex::new(pipes)) }
    }

    /// Has it do a step, and waits until that is done.
    async fn does(&self, step: String) {
        let pipes = Arc::clone(&self.pipes);
        let done = tokio::task::spawn_blocking(move || {
            let (input, output) = &mut *pipes.lock().unwrap();
            writeln!(input, "{step}").unwrap();
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert_eq!(line.trim_end(), step);
        });
        tokio::time::timeout(LIMIT, done).await.unwrap().unwrap();
    }
}

/// Which agent responds to a request for `id` through this task; else the code of the rejection.
async fn response(tasks: &Tasks, task: usize, id: &'static str) -> Result<String, String> {
    let response = tasks.ask(task, id).await;
    response
        .header("x-pixell-error")
        .map_or_else(|| Ok(response.seen()["agent"].as_str().unwrap().to_owned()), |code| Err(code.to_owned()))
}

/// Waits until requests for `id` get this response through all of these tasks.
async fn until_response(tasks: &Tasks, through: &[usize], id: &'static str, expected: Result<&str, &str>) {
    for task in through {
        let is_so = || async {
            let found = response(tasks, *task, id).await;
            Ok((found.as_deref().map_err(String::as_str) == expected).then_some(()))
        };
        wait::until(&format!("{expected:?} for {id} through task {task}"), LIMIT, is_so).await.unwrap();
    }
}

/// Calls ids through tasks while something happens, and returns how many calls there were. Each must be served.
async fn meanwhile(tasks: &Tasks, calls: &[(usize, &'static str)], happens: impl Future<Output = ()>) -> usize {
    let (over, mut served) = (Cell::new(false), 0);
    let call = async {
        while !over.get() {
            for (task, id) in calls {
                let found = response(tasks, *task, id).await;
                assert!(found.as_ref().is_ok_and(|name| name.starts_with(id)), "{id} through task {task}: {found:?}");
                served += 1;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let happen = async {
        happens.await;
        over.set(true);
    };
    tokio::join!(call, happen);
    served
}

#[tokio::test]
async fn three_tasks_serve_each_others_agents() {
    let began = Instant::now();
    // With one worker each there is a connection to each peer that has been called once.
    let mut tasks = Tasks::changed(3, |_| Vec::new(), |builder| builder.concurrency(1)).await;
    let server = directory(&tasks).await;
    let agents = [tasks.echo(0, "a").await, tasks.echo(1, "b").await, tasks.echo(2, "c").await];
    let mut pars: Vec<_> = (0..3).map(|task| Par::start(&tasks, task)).collect();
    for ((par, agent), id) in pars.iter().zip(&agents).zip(["a", "b", "c"]) {
        par.does(format!("register {id} {}", agent.port())).await;
    }
    for id in ["a", "b", "c"] {
        until_response(&tasks, &[0, 1, 2], id, Ok(id)).await;
    }
    println!("each agent is served through each task after {:.1?}", began.elapsed());

    // A planned move, in the order of docs/fleet.md.
    let new = tasks.echo(2, "a, moved").await;
    let moves = async {
        pars[2].does(format!("register a {}", new.port())).await;
        pars[2].does("announce".to_owned()).await;
        pars[0].does(format!("drain a {}", agents[0].port())).await;
        pars[0].does("deregister a".to_owned()).await;
        until_response(&tasks, &[0, 1, 2], "a", Ok("a, moved")).await;
    };
    let began = Instant::now();
    let served = meanwhile(&tasks, &[(0, "a"), (1, "a"), (2, "a"), (0, "b"), (2, "b")], moves).await;
    println!("a planned move: {served} calls were served, none failed, {:.1?}", began.elapsed());

    // The directory is down for longer than `ttl`, and comes back empty.
    let everything: Vec<_> = (0..3).flat_map(|task| ["a", "b", "c"].map(|id| (task, id))).collect();
    drop(server);
    let outage = tokio::time::sleep(Duration::from_secs(TTL + 1));
    let down = meanwhile(&tasks, &everything, outage).await;
    let began = Instant::now();
    let late = tasks.echo(1, "late").await;
    let server = Cell::new(None);
    let back = async {
        server.set(Some(directory(&tasks).await));
        pars[1].does(format!("register late {}", late.port())).await;
        until_response(&tasks, &[0, 1, 2], "late", Ok("late")).await;
    };
    let again = meanwhile(&tasks, &everything, back).await;
    println!(
        "no directory: {down} and {again} calls were served, none failed; a new agent is known after {:.1?}",
        began.elapsed()
    );

    // A task ends without notice.
    drop(pars.remove(1));
    tasks.envoys[1].kill().unwrap();
    let began = Instant::now();
    let dropped = until_response(&tasks, &[0, 2], "b", Err("unknown_deployment"));
    let served = meanwhile(&tasks, &[(0, "a"), (0, "c"), (2, "a"), (2, "c")], dropped).await;
    println!(
        "a task that is killed: unknown after {:.1?}; {served} calls to the others were served, none failed",
        began.elapsed()
    );
}
