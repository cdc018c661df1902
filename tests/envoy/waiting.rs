//! Requests wait for an agent that has gone, while the map changes: each retry goes by the map of that moment.

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

/// Longer than a request waits for its agent, which is 1.1 s, and 2.1 s at most (docs/data-path.md), because this machine may be busy.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How many plain requests wait, half of them over HTTP/1.1 and half over HTTP/2. As many gRPC calls wait beside them.
const WAITING: u64 = 20;

/// What a client gets: HTTP status, `x-pixell-error` and the body.
type Received = (u16, String, Value);

/// An Envoy whose route `first` leads to the port of an agent that has gone, and the requests that wait for that agent.
struct Waiting {
    envoy: Envoy,
    port: u16,
    /// When the first of them was sent.
    sent: Instant,
    http: JoinSet<Received>,
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
        // All is made ready before the first one is sent, since a request waits for less than a second.
        let mut clients = Vec::new();
        for number in 0..WAITING {
            let client = if number % 2 == 0 { http1() } else { http2() };
            clients.push((number, client, proto::connect(envoy.data_addr()).await.unwrap()));
        }
        let mut this = Self { envoy, port, sent: Instant::now(), http: JoinSet::new(), grpc: JoinSet::new() };
        for (number, client, mut grpc) in clients {
            let url = format!("{}/waits-{number}", this.envoy.data_url());
            // A client cannot make a retry look like the first attempt.
            let request = client.get(url).header(DEPLOYMENT_ID, "first").header("x-envoy-attempt-count", "1");
            this.http.spawn(async move {
                let response = request.send().await.unwrap();
                let code = response.headers().get("x-pixell-error").map_or("", |code| code.to_str().unwrap()).to_owned();
                (response.status().as_u16(), code, response.json().await.unwrap())
            });
            this.grpc.spawn(async move { grpc.health(request_to("first", Empty {}).unwrap()).await.unwrap_err() });
        }
        let retried = || async {
            let stats = this.envoy.stats().await?;
            let enough = |version| stats.get(&format!("cluster.agents_{version}.upstream_rq_retry")) >= Some(WAITING);
            // All requests have arrived, and some retries have passed.
            let arrived = stats.get("http.agents.downstream_rq_total") >= Some(before + 2 * WAITING);
            Ok((arrived && enough("http1") && enough("http2")).then_some(()))
        };
        wait::until("all requests to wait", LONGEST_WAIT, retried).await.unwrap();
        this
    }

    /// Whether all requests were still waiting until now; `None` if some may have got their responses.
    fn in_time(&self) -> Option<()> {
        in_time(self.sent)
    }

    /// Waits for all responses, each of which must be this one.
    async fn check_all(&mut self, http: (u16, &str), grpc: Code, message: &str) {
        let started = Instant::now();
        let mut count = 0;
        while let Some(response) = self.http.join_next().await {
            let (status, code, body) = response.unwrap();
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
        assert!(started.elapsed() < LONGEST_WAIT, "the last response came after {:?}", started.elapsed());
    }
}

/// As [`Waiting::in_time`], for requests that were sent at `sent`. An attempt is the last one if the request is 0.9 s old, and there are up
/// to 0.2 s between two.
pub(crate) fn in_time(sent: Instant) -> Option<()> {
    (sent.elapsed() < Duration::from_millis(700)).then_some(())
}

/// Runs `scenario` until the map was changed, or what else it does was done in time, which a busy machine may fail to do.
pub(crate) async fn until_in_time(scenario: impl AsyncFn() -> Option<()>) {
    for _ in 0..10 {
        if scenario().await.is_some() {
            return;
        }
        println!("too late: once more");
    }
    panic!("too late ten times");
}

/// On a busy machine, an agent may see a request this much later than Envoy sent it. Without a new map, the next attempt would come
/// within a second.
const IN_FLIGHT: Duration = Duration::from_millis(200);

/// When requests reached an agent.
type Reached = Arc<Mutex<Vec<Instant>>>;

/// An agent on `port` that records when a request reaches it.
fn noting(port: u16) -> anyhow::Result<(Agent, Reached)> {
    let reached = Reached::default();
    let noted = Arc::clone(&reached);
    let agent = agent::start("second", port, agent::Version::Http1, move |_| {
        noted.lock().unwrap().push(Instant::now());
        async { Response::new(agent::whole("{}")) }
    })?;
    Ok((agent, reached))
}

/// The next owner listens on the port before the map says so, because PAR waits for an agent before it pushes. Waiting requests may reach
/// it until the map is pushed, and not afterwards.
#[tokio::test]
async fn the_next_owner_of_a_port_is_not_reached_once_the_map_is_pushed() {
    until_in_time(async || {
        let mut waiting = Waiting::start().await;
        let (_second, reached) = noting(waiting.port).unwrap();
        let pushed = waiting.envoy.routes().put_route("second", &waiting.port.into()).await.unwrap();
        waiting.in_time()?;
        let pushed_at = Instant::now();
        assert_eq!(pushed.json().unwrap()["displaced"], json!(["first"]));
        let mut rejected = 0;
        while let Some(response) = waiting.http.join_next().await {
            let (status, code, body) = response.unwrap();
            assert!(matches!((status, code.as_str()), (200, "") | (404, "unknown_deployment")), "{status} {code} {body}");
            rejected += usize::from(status == 404);
        }
        while let Some(status) = waiting.grpc.join_next().await {
            // This agent does not speak gRPC, so a call that reached it has another status.
            rejected += usize::from(status.unwrap().code() == Code::NotFound);
        }
        let reached = reached.lock().unwrap();
        println!("{} of {} that waited reached the port before the push, {rejected} were rejected", reached.len(), 2 * WAITING);
        assert!(reached.iter().all(|at| *at < pushed_at + IN_FLIGHT), "{reached:?} after {pushed_at:?}");
        assert!(rejected > 0);
        assert_eq!((rejected + reached.len()) as u64, 2 * WAITING);
        Some(())
    })
    .await;
}

/// The same, but the map is pushed first: no request reaches the next owner.
#[tokio::test]
async fn a_deployment_that_is_displaced_meanwhile_is_unknown() {
    until_in_time(async || {
        let mut waiting = Waiting::start().await;
        waiting.envoy.routes().put_route("second", &waiting.port.into()).await.unwrap();
        waiting.in_time()?;
        let (_second, reached) = noting(waiting.port).unwrap();
        waiting.check_all((404, "unknown_deployment"), Code::NotFound, "Deployment first not found or not ready").await;
        assert_eq!(*reached.lock().unwrap(), []);
        let line = line_of(&waiting.envoy, "/waits-0").await;
        let found = json!([line["rejection"], line["error"], line["status"], line["deployment_id"]]);
        assert_eq!(found, json!(["unknown_deployment", "unknown_deployment", 404, "first"]), "{line}");
        let stats = waiting.envoy.stats().await.unwrap();
        let workers = stats.matching(r"^wasmcustom\.pixell_route_map_refreshes_total\.worker\.").unwrap();
        assert_eq!(workers.len(), 2, "a worker counts once, though its filter runs in several places: {workers:?}");
        let counter = "wasmcustom.pixell_rejections_total.reason.unknown_deployment";
        assert_eq!(waiting.envoy.stat(counter).await.unwrap(), Some(2 * WAITING));
        assert_eq!(waiting.envoy.stats().await.unwrap().crashes().unwrap(), 0);
        Some(())
    })
    .await;
}

/// An agent comes back on another port, and another agent takes its old port. Its clients get a rejection that tells them to retry.
#[tokio::test]
async fn clients_of_a_deployment_that_moved_meanwhile_are_told_to_retry() {
    until_in_time(async || {
        let mut waiting = Waiting::start().await;
        let (_second, reached) = noting(waiting.port).unwrap();
        let first = agents::echo::start("first").unwrap();
        waiting.envoy.routes().put_all([("first", first.port()), ("second", waiting.port)]).await.unwrap();
        waiting.in_time()?;
        let pushed_at = Instant::now();
        let mut moved = 0;
        while let Some(response) = waiting.http.join_next().await {
            let (status, code, body) = response.unwrap();
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
            assert!(reached.iter().all(|at| *at < pushed_at + IN_FLIGHT), "{reached:?} after {pushed_at:?}");
            println!("{} reached the port before the push, {moved} were told to retry", reached.len());
        }
        assert!(moved > 0);
        let response = http1().get(waiting.envoy.data_url()).header(DEPLOYMENT_ID, "first").send().await.unwrap();
        assert_eq!(response.status(), 200, "a new request works at once");
        Some(())
    })
    .await;
}

/// A draining route still leads to its port, for requests from before it was draining.
#[tokio::test]
async fn a_deployment_that_drains_meanwhile_still_gets_its_requests() {
    until_in_time(async || {
        let mut waiting = Waiting::start().await;
        let draining = json!({"port": waiting.port, "state": "draining"});
        assert_eq!(waiting.envoy.routes().put_route("first", &draining).await.unwrap().status, 200);
        let (_first, reached) = noting(waiting.port).unwrap();
        waiting.in_time()?;
        while let Some(response) = waiting.http.join_next().await {
            let (status, code, _) = response.unwrap();
            assert_eq!((status, code.as_str()), (200, ""));
        }
        // This agent does not speak gRPC, but the calls reach it.
        while waiting.grpc.join_next().await.is_some() {}
        assert_eq!(reached.lock().unwrap().len() as u64, 2 * WAITING, "each request once");
        Some(())
    })
    .await;
}

/// After a crash, the filter checks retries as before: first attempts and retries use the same VM.
#[tokio::test]
async fn a_filter_that_crashed_checks_retries_again() {
    until_in_time(async || {
        let modules = harness::envoy::modules::locate_trap().unwrap();
        let envoy = Envoy::builder().modules(modules).start().await.unwrap();
        let (live, grpc) = (agents::echo::start("live").unwrap(), agents::grpc::start("live-grpc").unwrap());
        envoy.routes().put_all([("live", live.port()), ("live-grpc", grpc.port())]).await.unwrap();
        // On both workers: a connection goes to either.
        for _ in 0..16 {
            drop(http1().get(envoy.data_url()).header("x-test-trap", "now").send().await);
        }
        // A worker runs the filter in three places: in the listener and in two clusters. Envoy restarts each of them at its next request, and
        // rejects requests until then.
        let started = Instant::now();
        let mut in_a_row = 0;
        while in_a_row < 16 {
            assert!(started.elapsed() < Duration::from_secs(10), "not restarted after 10 s");
            let response = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "live").send().await.unwrap();
            let mut client = proto::connect(envoy.data_addr()).await.unwrap();
            let whole = response.status() == 200 && client.health(request_to("live-grpc", Empty {}).unwrap()).await.is_ok();
            in_a_row = if whole { in_a_row + 1 } else { 0 };
        }
        let mut waiting = Waiting::at(envoy).await;
        waiting.envoy.routes().put_route("second", &waiting.port.into()).await.unwrap();
        waiting.in_time()?;
        let (_second, reached) = noting(waiting.port).unwrap();
        waiting.check_all((404, "unknown_deployment"), Code::NotFound, "Deployment first not found or not ready").await;
        assert_eq!(*reached.lock().unwrap(), []);
        assert!(waiting.envoy.stat("wasm.pixell.router.vm_reload_success").await.unwrap() > Some(0));
        Some(())
    })
    .await;
}

/// The same with another id header, and over WebSocket.
#[tokio::test]
async fn retries_go_by_the_configured_id_header() {
    until_in_time(async || {
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
        let sent = Instant::now();
        for request in [plain, websocket] {
            let address = envoy.data_addr();
            waiting.spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.write_all(request).await.unwrap();
                wire::head(&mut stream).await
            });
        }
        let retried = || async { Ok(envoy.stat("cluster.agents_http1.upstream_rq_retry").await?.filter(|count| *count >= 2)) };
        wait::until("both requests to wait", LONGEST_WAIT, retried).await.unwrap();
        envoy.routes().put_route("second", &port.into()).await.unwrap();
        in_time(sent)?;
        let (_second, reached) = noting(port).unwrap();
        while let Some(head) = waiting.join_next().await {
            let head = head.unwrap().unwrap();
            assert!(head.starts_with("HTTP/1.1 404 ") && head.contains("x-pixell-error: unknown_deployment"), "{head}");
        }
        assert_eq!(*reached.lock().unwrap(), []);
        Some(())
    })
    .await;
}

/// A request to the fallback port waits there only until the map has a route for its id.
#[tokio::test]
async fn retries_to_the_fallback_port_go_by_the_map() {
    until_in_time(async || {
        let gone = agents::echo::start("fallback").unwrap();
        let port = gone.port();
        gone.kill();
        let settings = format!("\"role\": \"router\", \"fallback_port\": {port}");
        let envoy = Envoy::builder().edit("\"role\": \"router\"", &settings).start().await.unwrap();
        let get = |id: &str| http1().get(envoy.data_url()).header(DEPLOYMENT_ID, id).send();
        let sent = Instant::now();
        let (stays, moves) = (tokio::spawn(get("stays")), tokio::spawn(get("moves")));
        let retried = || async { Ok(envoy.stat("cluster.agents_http1.upstream_rq_retry").await?.filter(|count| *count >= 2)) };
        wait::until("both requests to wait", LONGEST_WAIT, retried).await.unwrap();
        envoy.routes().put_all([("moves", 5000)]).await.unwrap();
        let (_fallback, reached) = noting(port).unwrap();
        in_time(sent)?;
        assert_eq!(stays.await.unwrap().unwrap().status(), 200);
        let moved = moves.await.unwrap().unwrap();
        assert_eq!((moved.status().as_u16(), &moved.headers()["x-pixell-error"]), (503, &"deployment_moved".parse().unwrap()));
        assert_eq!(reached.lock().unwrap().len(), 1);
        Some(())
    })
    .await;
}

/// Only the names that the filter knows are accepted, because a filter in the wrong role would let every request through.
#[tokio::test]
async fn a_misspelt_root_id_keeps_envoy_from_starting() {
    let error = Envoy::builder().edit("root_id: retry", "root_id: rety").start().await.unwrap_err();
    assert!(error.to_string().contains("root_id of the router filter: must be"), "{error}");
}
