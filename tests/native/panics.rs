//! A panic in a hook fails only the request in which it happened, with status 500. Nobody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::agents::{Agent, http as agent, streams};
use harness::proto::streams::Chunk;
use harness::proto::{DEPLOYMENT_ID, Empty, request_to};
use harness::{Envoy, proto, wait};
use hyper::Response;
use launcher::filter::Filter;
use launcher::settings::Settings;
use pixell_core::data_path::Judges;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::clients::{http1, http2};
use crate::hooks::{
    self, BEGIN, BODY, CARD, CONFIGURE, FILTERS, FORGET, Got, HOOKS, OF_A_FLEET, OF_A_TASK, SCHEDULED, Stage, TRAP, Then,
    with_trailers,
};
use crate::loading::{exports, symbols};

fn trapped() -> harness::EnvoyBuilder {
    Envoy::builder().filter(Filter::Native).modules(harness::envoy::modules::locate_trap().unwrap())
}

/// The number of panics that a scrape shows.
async fn panics(envoy: &Envoy) -> u64 {
    let text = http1().get(envoy.api_url() + "/stats/prometheus").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("pixell_panics_total{} "));
    line.unwrap_or_else(|| panic!("no counter in {text}")).parse().unwrap()
}

/// A task with one worker, so that what the filter before a cluster has to count is counted at the next request.
struct Task {
    envoy: Envoy,
    /// Where other tasks reach it.
    peers: String,
    /// How many requests there are that get no response.
    held: Arc<AtomicUsize>,
    routes: Value,
    _agents: [Agent; 2],
}

impl Task {
    async fn start() -> Self {
        let settings = Settings::resolve(|name| (name == "PIXELL_FLEET_CIDRS").then(|| "10.0.0.0/8".into())).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let envoy = trapped().settings(&settings).peer_port(free).concurrency(1).start().await.unwrap();
        let held = Arc::<AtomicUsize>::default();
        let counts = Arc::clone(&held);
        let hangs = agent::start("hangs", 0, agent::Version::Http1, move |request| {
            counts.fetch_add(1, Ordering::Relaxed);
            async {
                let _held = request;
                std::future::pending::<Response<agent::Body>>().await
            }
        });
        let agents = [hooks::card().unwrap(), hangs.unwrap()];
        envoy.routes().put_all([("card", agents[0].port()), ("hangs", agents[1].port())]).await.unwrap();
        let routes = envoy.routes().routes().await.unwrap().json().unwrap()["routes"].clone();
        Self { envoy, peers: format!("http://127.0.0.1:{free}"), held, routes, _agents: agents }
    }
}

impl Stage for Task {
    async fn ask(&self, filter: &str, hook: &str, trap: Option<&str>) -> Got {
        let with_trap = |request: RequestBuilder| match trap {
            Some(trap) => request.header(TRAP, trap),
            None => request,
        };
        // Another task names the agent, whatever named it there.
        let get = |path: &str, id: &'static str| {
            let request = match filter {
                "incoming" => {
                    http2().get(self.peers.clone() + path).header(DEPLOYMENT_ID, id).header("x-pixell-addressed", "1")
                }
                _ => http2().get(self.envoy.data_url() + path),
            };
            with_trap(request)
        };
        match (filter, hook) {
            // A response that the filter does not make itself.
            ("admin", hook) if hook.starts_with("http_filter_response_") => {
                Got::of(with_trap(http2().get(self.envoy.api_url() + "/ready"))).await
            }
            ("admin", _) => {
                // What panics must not be carried out; all else is only tried.
                let is_real = trap.is_some() && hook.starts_with("http_filter_request_");
                let path = if is_real { "/v1/routes" } else { "/v1/routes?dry_run=true" };
                let put = http2().request(Method::PUT, self.envoy.api_url() + path).header("content-type", "application/json");
                let got = Got::of(with_trap(put).body(with_trailers(r#"{"routes":{}}"#))).await;
                if is_real {
                    assert_eq!(self.envoy.routes().routes().await.unwrap().json().unwrap()["routes"], self.routes);
                }
                got
            }
            // A change of the map calls those that may be waiting.
            ("router" | "incoming", SCHEDULED) => {
                let before = self.held.load(Ordering::Relaxed);
                let waits = tokio::spawn(Got::of(get("/agents/hangs/", "hangs")));
                let is_held = || async { Ok((self.held.load(Ordering::Relaxed) > before).then_some(())) };
                wait::until("the agent to have the request", Duration::from_secs(30), is_held).await.unwrap();
                self.envoy.routes().put_route("changed", &5000.into()).await.unwrap();
                let got = tokio::time::timeout(Duration::from_secs(30), waits).await.unwrap().unwrap();
                let deleted = self.envoy.routes().request(Method::DELETE, "/v1/routes/changed").send().await.unwrap();
                assert!(deleted.status().is_success(), "{deleted:?}");
                got
            }
            _ => Got::of(get(CARD, "card").body(with_trailers(BODY))).await,
        }
    }

    async fn panics(&self) -> u64 {
        panics(&self.envoy).await
    }

    fn log(&self) -> String {
        self.envoy.log()
    }
}

#[tokio::test]
async fn every_hook_survives_a_panic() {
    let task = Task::start().await;
    hooks::check(&task, &OF_A_TASK).await;
    // The access log names each request that failed, those whose head had been sent included.
    let of_data_path = |then| HOOKS.iter().flat_map(|(_, all)| &all[..3]).filter(|known| **known == then).count();
    let (rejected, broken) = (of_data_path(Then::Rejected), of_data_path(Then::Broken));
    let lines = task.envoy.logged(rejected + broken, |line| line["rejection"] == "internal").await.unwrap();
    let with_status = |status: u16| lines.iter().filter(|line| line["status"] == status).count();
    assert_eq!((with_status(500), with_status(200)), (rejected, broken), "{lines:?}");
}

/// A hook without a row in the table, or a filter without a column, fails here.
#[test]
fn every_hook_of_the_module_and_every_filter_is_in_the_table() {
    let mut listed: Vec<_> = HOOKS.iter().map(|(hook, _)| *hook).chain([BEGIN, CONFIGURE, FORGET]).collect();
    listed.sort_unstable();
    let symbols = symbols();
    let mut exported: Vec<_> =
        exports(&symbols).map(|name| name.strip_prefix("envoy_dynamic_module_on_").unwrap_or(name)).collect();
    exported.sort_unstable();
    assert_eq!(listed, exported);

    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    let all = sorted(Judges::NAMES.iter().map(|(name, _)| *name).chain(["admin"]).collect());
    assert_eq!(sorted(FILTERS.to_vec()), all);
    assert_eq!(sorted([OF_A_TASK.as_slice(), &OF_A_FLEET].concat()), all);
}

/// What a request passes while the maps are borrowed, and the thread that looks for long waits.
#[tokio::test]
async fn a_panic_in_the_middle_leaves_nothing_behind() {
    let task = Task::start().await;
    task.ask("router", "", Some("maps.judge")).await.is_internal("maps.judge");
    assert_eq!(task.panics().await, 1);
    for _ in 0..2 {
        assert!(task.ask("router", "", None).await.is_served());
    }
    // It keeps running.
    for expected in [2, 3] {
        assert!(task.ask("router", "", Some("thread.clock")).await.is_served());
        let counted = || async { Ok((task.panics().await == expected).then_some(())) };
        wait::until("the panic of the clock", Duration::from_secs(10), counted).await.unwrap();
    }
    let log = task.log();
    for line in ["asked for in maps.judge", "in the clock: panicked at", "asked for in thread.clock"] {
        assert!(log.contains(line), "no line has {line:?}");
    }
}

/// Open streams stay open, even on the worker that panics.
#[tokio::test]
async fn a_panic_fails_one_request_and_nobody_else_notices() {
    let envoy = trapped().concurrency(1).start().await.unwrap();
    let (s, _) = streams::start("s").unwrap();
    envoy.routes().put_all([("s", s.port())]).await.unwrap();
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();
    let (send, receive) = mpsc::channel(1);
    let mut stream = client.chat(request_to("s", ReceiverStream::new(receive)).unwrap()).await.unwrap().into_inner();
    for number in 0..20 {
        let mut call = request_to("s", Empty {}).unwrap();
        call.metadata_mut().insert(TRAP, "now".parse().unwrap());
        let status = proto::connect(envoy.data_addr()).await.unwrap().ping(call).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Internal, "{status}");
        assert_eq!(status.metadata().get("x-pixell-error").unwrap(), "internal");
        send.send(Chunk { number, data: Vec::new() }).await.unwrap();
        assert_eq!(stream.message().await.unwrap().unwrap().number, number);
    }
    assert_eq!(panics(&envoy).await, 20);
}

#[tokio::test]
async fn a_panic_during_the_start_keeps_envoy_from_starting() {
    let configured = ["router", "retry", "admin"].map(|filter| (filter, CONFIGURE));
    for (place, hook) in configured.into_iter().chain([("module", BEGIN)]) {
        let trap = format!("{place}.{hook}");
        let error = trapped().env("PIXELL_TEST_TRAP", &trap).start().await.unwrap_err().to_string();
        let said = error.contains(&format!("the filter panicked in {hook}: panicked at"));
        assert!(said && error.contains(&format!("asked for in {trap}")), "{error}");
    }
}

/// Envoy ends as it should, though every configuration that it lets go of panics.
#[tokio::test]
async fn a_panic_at_the_end_does_no_harm() {
    for filter in ["router", "retry", "admin"] {
        let trap = format!("{filter}.{FORGET}");
        let mut envoy = trapped().env("PIXELL_TEST_TRAP", &trap).start().await.unwrap();
        let status = envoy.sigterm().await.unwrap();
        assert!(status.success(), "{filter}: {status}");
        let log = envoy.log();
        assert!(
            log.contains(&format!("asked for in {trap}")) && log.contains(&format!("the filter panicked in {FORGET}")),
            "{log}"
        );
    }
}

/// The shipped module does not contain the name of the header, so nobody can make it panic with it.
#[test]
fn the_shipped_module_has_no_trap() {
    use harness::envoy::modules::{NATIVE, locate, locate_trap};
    let has = |directory: std::path::PathBuf| {
        let module = std::fs::read(directory.join(NATIVE)).unwrap();
        module.windows(TRAP.len()).any(|bytes| bytes == TRAP.as_bytes())
    };
    assert!(has(locate_trap().unwrap()), "the test build has no trap");
    assert!(!has(locate().unwrap()), "native.so has the trap");
}
