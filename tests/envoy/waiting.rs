//! Requests that wait for an agent that is gone, while the map changes: each further attempt goes by the map as it is then.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::agents::{self, http as agent};
use harness::proto::{self, DEPLOYMENT_ID, Empty, request_to};
use harness::{Agent, Envoy, wait};
use hyper::Response;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::access_log::line_of;
use crate::clients::{http1, http2};
use crate::wire;

/// The longest that a request waits for its agent: 6.1 s by docs/data-path.md, and some more on a busy machine.
const LONGEST_WAIT: Duration = Duration::from_secs(7);
/// How many wait, half of them over HTTP/1.1 and half over HTTP/2.
const WAITING: u64 = 20;

/// What a caller gets: HTTP status, `x-pixell-error` and the body.
type Answer = (u16, String, Value);

/// An Envoy whose route `first` leads to a port where nobody is any more, and the requests that wait for it there.
struct Waiting {
    envoy: Envoy,
    port: u16,
    http: JoinSet<Answer>,
    grpc: JoinSet<Status>,
}

impl Waiting {
    async fn start() -> Self {
        Self::at(Envoy::builder().start().await.unwrap()).await
    }

    async fn at(envoy: Envoy) -> Self {
        let first = agents::echo::start("first").unwrap();
        let port = first.port();
        envoy.routes().put_all([("first", port)]).await.unwrap();
        first.kill();
        let before = envoy.stat("http.agents.downstream_rq_total").await.unwrap().unwrap_or_default();
        let mut this = Self { envoy, port, http: JoinSet::new(), grpc: JoinSet::new() };
        for number in 0..WAITING {
            let client = if number % 2 == 0 { http1() } else { http2() };
            let url = format!("{}/waits-{number}", this.envoy.data_url());
            // Nothing that a caller sends makes an attempt look like the first one.
            let request = client.get(url).header(DEPLOYMENT_ID, "first").header("x-envoy-attempt-count", "1");
            this.http.spawn(async move {
                let answer = request.send().await.unwrap();
                let code = answer.headers().get("x-pixell-error").map_or("", |code| code.to_str().unwrap()).to_owned();
                (answer.status().as_u16(), code, answer.json().await.unwrap())
            });
            let address = this.envoy.data_addr();
            this.grpc.spawn(async move {
                let mut client = proto::connect(address).await.unwrap();
                client.health(request_to("first", Empty {}).unwrap()).await.unwrap_err()
            });
        }
        let retried = || async {
            let stats = this.envoy.stats().await?;
            let enough = |version| stats.get(&format!("cluster.agents_{version}.upstream_rq_retry")) >= Some(WAITING);
            // All have arrived, and some time has gone by.
            let arrived = stats.get("http.agents.downstream_rq_total") >= Some(before + 2 * WAITING);
            Ok((arrived && enough("http1") && enough("http2")).then_some(()))
        };
        wait::until("all to wait", LONGEST_WAIT, retried).await.unwrap();
        this
    }

    /// All answers; each must be this one.
    async fn all_get(&mut self, http: (u16, &str), grpc: Code, message: &str) {
        let begun = Instant::now();
        let mut count = 0;
        while let Some(answer) = self.http.join_next().await {
            let (status, code, body) = answer.unwrap();
            assert_eq!((status, code.as_str()), http, "{body}");
            assert_eq!((&body["status"], &body["code"], &body["detail"]), (&json!(http.0), &json!(http.1), &json!(message)));
            count += 1;
        }
        while let Some(status) = self.grpc.join_next().await {
            let status = status.unwrap();
            assert_eq!((status.code(), status.message()), (grpc, message));
            assert_eq!(status.metadata().get("x-pixell-error").unwrap(), http.1);
            count += 1;
        }
        assert_eq!(count, 2 * WAITING);
        assert!(begun.elapsed() < LONGEST_WAIT, "the last one was answered after {:?}", begun.elapsed());
    }
}

/// What was sent before the map was pushed may be noted by the agent so much later, on a busy machine. An attempt comes within a second.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// When requests have reached an agent.
type Reached = Arc<Mutex<Vec<Instant>>>;

/// An agent on `port`, whichever protocol is spoken to it, that notes when it was reached.
fn noting(port: u16) -> anyhow::Result<(Agent, Reached)> {
    let reached = Reached::default();
    let noted = Arc::clone(&reached);
    let agent = agent::start("second", port, agent::Version::Http1, move |_| {
        noted.lock().unwrap().push(Instant::now());
        async { Response::new(agent::whole("{}")) }
    })?;
    Ok((agent, reached))
}

/// The next owner of the port is there before the map says so, as an agent is that PAR waits for. It may be reached until the map
/// has been pushed, since nobody could have known, and not afterwards.
#[tokio::test]
async fn who_gets_the_port_is_not_reached_once_the_map_is_pushed() {
    let mut waiting = Waiting::start().await;
    let (_second, reached) = noting(waiting.port).unwrap();
    let pushed = waiting.envoy.routes().put_route("second", &waiting.port.into()).await.unwrap();
    let answered = Instant::now();
    assert_eq!(pushed.json().unwrap()["displaced"], json!(["first"]));
    let mut refused = 0;
    while let Some(answer) = waiting.http.join_next().await {
        let (status, code, body) = answer.unwrap();
        assert!(matches!((status, code.as_str()), (200, "") | (404, "unknown_deployment")), "{status} {code} {body}");
        refused += usize::from(status == 404);
    }
    while let Some(status) = waiting.grpc.join_next().await {
        // What was reached answers no gRPC.
        refused += usize::from(status.unwrap().code() == Code::NotFound);
    }
    let reached = reached.lock().unwrap();
    println!("{} of {} that waited reached the port before the push, {refused} were refused", reached.len(), 2 * WAITING);
    assert!(reached.iter().all(|at| *at < answered + UNDER_WAY), "{reached:?} after {answered:?}");
    assert!(refused > 0);
    assert_eq!((refused + reached.len()) as u64, 2 * WAITING);
}

/// The same with the map first: then nobody gets there.
#[tokio::test]
async fn a_deployment_that_was_displaced_meanwhile_is_unknown() {
    let mut waiting = Waiting::start().await;
    waiting.envoy.routes().put_route("second", &waiting.port.into()).await.unwrap();
    let (_second, reached) = noting(waiting.port).unwrap();
    waiting.all_get((404, "unknown_deployment"), Code::NotFound, "Deployment first not found or not ready").await;
    assert_eq!(*reached.lock().unwrap(), []);
    let line = line_of(&waiting.envoy, "/waits-0").await;
    let told = json!([line["rejection"], line["error"], line["status"], line["deployment_id"]]);
    assert_eq!(told, json!(["unknown_deployment", "unknown_deployment", 404, "first"]), "{line}");
    let stats = waiting.envoy.stats().await.unwrap();
    let workers = stats.matching(r"^wasmcustom\.pixell_route_map_refreshes_total\.worker\.").unwrap();
    assert_eq!(workers.len(), 2, "a worker is one, whichever place its filter is asked at: {workers:?}");
    let counter = "wasmcustom.pixell_rejections_total.reason.unknown_deployment";
    assert_eq!(waiting.envoy.stat(counter).await.unwrap(), Some(2 * WAITING));
    assert_eq!(waiting.envoy.stats().await.unwrap().vm_reloads().unwrap(), 0);
}

/// An agent that comes back on another port, while its old one goes to somebody else: its callers are told to ask again.
#[tokio::test]
async fn a_deployment_that_moved_meanwhile_is_to_be_asked_again() {
    let mut waiting = Waiting::start().await;
    let (_second, reached) = noting(waiting.port).unwrap();
    let again = agents::echo::start("first").unwrap();
    waiting.envoy.routes().put_all([("first", again.port()), ("second", waiting.port)]).await.unwrap();
    let answered = Instant::now();
    let mut moved = 0;
    while let Some(answer) = waiting.http.join_next().await {
        let (status, code, body) = answer.unwrap();
        assert!(matches!((status, code.as_str()), (200, "") | (503, "deployment_moved")), "{status} {code} {body}");
        if status == 503 {
            assert_eq!(body["detail"], "The deployment moved while the request waited for it, try again");
            moved += 1;
        }
    }
    while let Some(status) = waiting.grpc.join_next().await {
        let status = status.unwrap();
        if status.metadata().get("x-pixell-error").is_some_and(|code| code == "deployment_moved") {
            assert_eq!(status.code(), Code::Unavailable);
            moved += 1;
        }
    }
    {
        let reached = reached.lock().unwrap();
        assert!(reached.iter().all(|at| *at < answered + UNDER_WAY), "{reached:?} after {answered:?}");
        println!("{} reached the port before the push, {moved} were told to ask again", reached.len());
    }
    assert!(moved > 0);
    let answer = http1().get(waiting.envoy.data_url()).header(DEPLOYMENT_ID, "first").send().await.unwrap();
    assert_eq!(answer.status(), 200, "which works at once");
}

/// A route that is drained still leads to its port for what is older than that.
#[tokio::test]
async fn a_deployment_that_drains_meanwhile_still_answers() {
    let mut waiting = Waiting::start().await;
    let draining = json!({"port": waiting.port, "state": "draining"});
    assert_eq!(waiting.envoy.routes().put_route("first", &draining).await.unwrap().status, 200);
    let (_first, reached) = noting(waiting.port).unwrap();
    while let Some(answer) = waiting.http.join_next().await {
        let (status, code, _) = answer.unwrap();
        assert_eq!((status, code.as_str()), (200, ""));
    }
    // This agent answers no gRPC, but it was asked.
    while waiting.grpc.join_next().await.is_some() {}
    assert_eq!(reached.lock().unwrap().len() as u64, 2 * WAITING, "each once");
}

/// After a crash the filter judges again as before: it is one VM for first and further attempts.
#[tokio::test]
async fn a_filter_that_crashed_judges_again() {
    let modules = harness::envoy::modules::locate_trap().unwrap();
    let envoy = Envoy::builder().modules(modules).start().await.unwrap();
    let (live, grpc) = (agents::echo::start("live").unwrap(), agents::grpc::start("live-grpc").unwrap());
    envoy.routes().put_all([("live", live.port()), ("live-grpc", grpc.port())]).await.unwrap();
    // On both workers: a connection goes to either.
    for _ in 0..16 {
        drop(http1().get(envoy.data_url()).header("x-test-trap", "now").send().await);
    }
    // Each place of a worker's filter (the listener's and those of both clusters) is started anew when it is next asked, and
    // refuses until then.
    let begun = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 16 {
        assert!(begun.elapsed() < Duration::from_secs(10), "not whole after 10 s");
        let answer = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "live").send().await.unwrap();
        let mut client = proto::connect(envoy.data_addr()).await.unwrap();
        let whole = answer.status() == 200 && client.health(request_to("live-grpc", Empty {}).unwrap()).await.is_ok();
        in_a_row = if whole { in_a_row + 1 } else { 0 };
    }
    let mut waiting = Waiting::at(envoy).await;
    waiting.envoy.routes().put_route("second", &waiting.port.into()).await.unwrap();
    let (_second, reached) = noting(waiting.port).unwrap();
    waiting.all_get((404, "unknown_deployment"), Code::NotFound, "Deployment first not found or not ready").await;
    assert_eq!(*reached.lock().unwrap(), []);
    assert!(waiting.envoy.stat("wasm.pixell.router.vm_reload_success").await.unwrap() > Some(0));
}

/// By another header that carries the id, and over WebSocket.
#[tokio::test]
async fn whatever_names_the_deployment_is_judged_again() {
    let settings = "\"role\": \"router\", \"id_headers\": [\"x-agent\"]";
    let envoy = Envoy::builder().edit("\"role\": \"router\"", settings).start().await.unwrap();
    let first = agents::echo::start("first").unwrap();
    let port = first.port();
    envoy.routes().put_all([("first", port)]).await.unwrap();
    first.kill();
    let plain = b"GET / HTTP/1.1\r\nhost: h\r\nx-agent: first\r\nconnection: close\r\n\r\n".as_slice();
    let websocket = b"GET / HTTP/1.1\r\nhost: h\r\nx-agent: first\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut waiting = JoinSet::new();
    for request in [plain, websocket] {
        let address = envoy.data_addr();
        waiting.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(request).await.unwrap();
            wire::head(&mut stream).await
        });
    }
    let retried = || async { Ok(envoy.stat("cluster.agents_http1.upstream_rq_retry").await?.filter(|count| *count >= 2)) };
    wait::until("both to wait", LONGEST_WAIT, retried).await.unwrap();
    envoy.routes().put_route("second", &port.into()).await.unwrap();
    let (_second, reached) = noting(port).unwrap();
    while let Some(head) = waiting.join_next().await {
        let head = head.unwrap().unwrap();
        assert!(head.starts_with("HTTP/1.1 404 ") && head.contains("x-pixell-error: unknown_deployment"), "{head}");
    }
    assert_eq!(*reached.lock().unwrap(), []);
}

/// An id that went to the fallback waits there only as long as the map does not hold it.
#[tokio::test]
async fn the_fallback_is_judged_again() {
    let gone = agents::echo::start("fallback").unwrap();
    let port = gone.port();
    gone.kill();
    let settings = format!("\"role\": \"router\", \"fallback_port\": {port}");
    let envoy = Envoy::builder().edit("\"role\": \"router\"", &settings).start().await.unwrap();
    let get = |id: &str| http1().get(envoy.data_url()).header(DEPLOYMENT_ID, id).send();
    let (stays, moves) = (tokio::spawn(get("stays")), tokio::spawn(get("moves")));
    let retried = || async { Ok(envoy.stat("cluster.agents_http1.upstream_rq_retry").await?.filter(|count| *count >= 2)) };
    wait::until("both to wait", LONGEST_WAIT, retried).await.unwrap();
    envoy.routes().put_all([("moves", 5000)]).await.unwrap();
    let (_fallback, reached) = noting(port).unwrap();
    assert_eq!(stays.await.unwrap().unwrap().status(), 200);
    let moved = moves.await.unwrap().unwrap();
    assert_eq!((moved.status().as_u16(), &moved.headers()["x-pixell-error"]), (503, &"deployment_moved".parse().unwrap()));
    assert_eq!(reached.lock().unwrap().len(), 1);
}

/// Only the two names that the filter knows, for a filter in the wrong role would let everything through.
#[tokio::test]
async fn a_misspelt_root_id_keeps_envoy_from_starting() {
    let error = Envoy::builder().edit("root_id: retry", "root_id: rety").start().await.unwrap_err();
    assert!(error.to_string().contains("root_id of the router filter: must be"), "{error}");
}
