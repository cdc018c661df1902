//! When memory runs out, requests are rejected, the route API and readiness still respond, and requests succeed again
//! once memory is free.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use harness::agents::{self, http as agent};
use harness::proto::{self, Empty, request_to};
use harness::{Agent, Envoy, wait};
use http_body_util::BodyExt;
use hyper::Response;
use reqwest::Client;
use serde_json::Value;
use tokio::sync::watch;
use tonic::Code;

use crate::clients::{http1, http2};

const PATIENCE: Duration = Duration::from_secs(30);
/// Responses that nobody reads, each of which holds some hundred KiB in Envoy.
const UNREAD: usize = 400;
/// The heap that Envoy may use here: more than it uses without traffic, less than those responses would take.
const HEAP: &str = "134217728";
/// How much of that the responses need to hold before anything is checked, in percent: so far beyond the threshold of 95 that Envoy does not
/// fall below it again while the test goes on. (They reach 140 to 165.)
const FULL: u64 = 120;
/// How much of the heap is in use, in percent.
const PRESSURE: &str = "overload.envoy.resource_monitors.fixed_heap.pressure";
/// Whether Envoy rejects requests.
const REJECTING: &str = "overload.envoy.overload_actions.stop_accepting_requests.active";

/// An agent whose response has no end. The headers are sent at once, the body once `gate` holds true.
fn endless(gate: watch::Receiver<bool>) -> Agent {
    let agent = agent::start("endless", 0, agent::Version::Http1, move |_| {
        let mut gate = gate.clone();
        async move {
            let opened = futures_util::stream::once(async move { drop(gate.wait_for(|open| *open).await) });
            let chunk = || Ok::<_, std::io::Error>(hyper::body::Frame::data(Bytes::from_static(&[0; 16 * 1024])));
            let chunks = opened.flat_map(move |()| futures_util::stream::repeat_with(chunk));
            Response::new(BodyExt::boxed(http_body_util::StreamBody::new(chunks)))
        }
    });
    agent.unwrap()
}

async fn wait_for_rejecting(envoy: &Envoy, wanted: u64) {
    let now = || async { Ok((envoy.stat(REJECTING).await? == Some(wanted)).then_some(())) };
    let reached = wait::until("the overload", PATIENCE, now).await;
    let pressure = envoy.stat(PRESSURE).await.unwrap();
    reached.unwrap_or_else(|error| panic!("{error}: rejecting is not {wanted} at {pressure:?} % of the heap"));
}

async fn ask(client: &Client, envoy: &Envoy) -> reqwest::Response {
    client.get(envoy.data_url()).header("x-deployment-id", "h").send().await.unwrap()
}

/// Reads the body as well. A client of HTTP/1.1 that does not may close the connection, and would wait forever for a new one while Envoy
/// accepts none.
async fn succeeds(client: &Client, envoy: &Envoy) {
    let response = ask(client, envoy).await;
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_requests_are_rejected_and_the_route_api_responds() {
    let heap = "max_heap_size_bytes: 369098752";
    let settings = Envoy::builder().edit(heap, &heap.replace("369098752", HEAP));
    let envoy = settings.start().await.unwrap();
    let (open, gate) = watch::channel(false);
    let (endless, grpc, http) = (endless(gate), agents::grpc::start("g").unwrap(), agents::echo::start("h").unwrap());
    let routes = [("endless", endless.port()), ("g", grpc.port()), ("h", http.port())];
    envoy.routes().put_all(routes).await.unwrap();
    // Connections from before, because Envoy might not accept new ones.
    let plain = [http1(), http2()];
    let mut stub = proto::connect(envoy.data_addr()).await.unwrap();
    for client in &plain {
        succeeds(client, &envoy).await;
    }
    stub.health(request_to("g", Empty {}).unwrap()).await.unwrap();
    let measured = || async { Ok(envoy.stat(PRESSURE).await?.filter(|percent| *percent > 0)) };
    let quiet = wait::until("the heap to be measured", PATIENCE, measured).await.unwrap();
    assert!(quiet < 80, "without traffic, Envoy uses {quiet} %");

    // All of them begin before one takes memory. Otherwise Envoy rejects the last of them as soon as the first have brought it to the
    // threshold, then stays close to it, and may accept a request again.
    let greedy = http1();
    let requests = (0..UNREAD).map(|_| greedy.get(envoy.data_url()).header("x-deployment-id", "endless").send());
    let unread = futures_util::future::try_join_all(requests).await.unwrap();
    assert!(unread.iter().all(|response| response.status() == 200));
    open.send_replace(true);
    wait_for_rejecting(&envoy, 1).await;
    let full = || async { Ok(envoy.stat(PRESSURE).await?.filter(|percent| *percent >= FULL)) };
    wait::until("the responses to fill the heap", PATIENCE, full).await.unwrap();
    for client in &plain {
        let response = ask(client, &envoy).await;
        let headers = response.headers();
        let (code, form) = (headers["x-pixell-error"].clone(), headers["content-type"].clone());
        assert_eq!((response.status().as_u16(), code.to_str().unwrap()), (503, "overloaded"));
        assert_eq!(form, "application/problem+json");
        let problem: Value = response.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"overloaded".into(), &503.into()));
        assert!(!problem.to_string().to_lowercase().contains("envoy"), "{problem}");
    }
    let status = stub.health(request_to("g", Empty {}).unwrap()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "The proxy has reached a limit, try again later"));
    assert_eq!(status.metadata().get("x-pixell-error").unwrap(), "overloaded");
    // PAR and its health checks, on new connections.
    let ready = http1().get(envoy.api_url() + "/ready").timeout(PATIENCE).send().await.unwrap();
    assert_eq!((ready.status().as_u16(), ready.text().await.unwrap().trim()), (200, "LIVE"));
    let pushed = envoy.routes().put_route("late", &5000.into()).await.unwrap();
    assert_eq!(pushed.status, 201, "{pushed}");
    assert_eq!(envoy.stat(REJECTING).await.unwrap(), Some(1), "Envoy rejected requests during all of this");

    // This failure has no response flag. The error and the details tell it.
    let line = envoy.logged(1, |line| line["error"] == "overloaded").await.unwrap().remove(0);
    assert_eq!((&line["code_details"], &line["upstream"]), (&"overload".into(), &Value::Null), "{line}");

    drop((unread, greedy));
    wait_for_rejecting(&envoy, 0).await;
    for client in &plain {
        succeeds(client, &envoy).await;
    }
    stub.health(request_to("g", Empty {}).unwrap()).await.unwrap();
    assert_eq!(ask(&http1(), &envoy).await.status(), 200, "on a new connection, too");
    assert_eq!(envoy.stats().await.unwrap().crashes().unwrap(), 0);
}
