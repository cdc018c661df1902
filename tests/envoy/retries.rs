//! A request is retried only if the agent cannot have seen it: a restart causes no error, and nothing runs twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use harness::agents::{self, http as agent};
use harness::proto::{self, DEPLOYMENT_ID, Empty};
use harness::{Agent, Envoy};
use http_body_util::BodyExt;
use hyper::Response;
use tokio::io::AsyncReadExt;

use crate::clients::{http1, http2};
use crate::waiting::{in_time, until_in_time};

/// How often each request has reached an agent. Requests have different paths.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashMap<String, u32>>>);

impl Seen {
    fn note(&self, path: &str) {
        *self.0.lock().unwrap().entry(path.to_owned()).or_default() += 1;
    }

    /// Checks that every request arrived once.
    #[track_caller]
    fn assert_once(&self, requests: usize) {
        let seen = self.0.lock().unwrap();
        assert!(seen.values().all(|times| *times == 1), "{seen:?}");
        assert_eq!(seen.len(), requests);
    }
}

/// An HTTP/1.1 agent on `port` that records each request and responds with `status`.
fn noting(port: u16, seen: &Seen, status: u16) -> anyhow::Result<Agent> {
    let seen = seen.clone();
    agent::start("noting", port, agent::Version::Http1, move |request| {
        let seen = seen.clone();
        async move {
            seen.note(request.uri().path());
            drop(request.into_body().collect().await);
            let mut response = Response::new(agent::whole("done"));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            response
        }
    })
}

/// Headers by which a client could configure retries, if Envoy accepted them from clients.
const RETRY_HEADERS: [(&str, &str); 6] = [
    ("x-envoy-retry-on", "5xx,gateway-error,reset,retriable-4xx,connect-failure,retriable-status-codes"),
    ("x-envoy-retry-grpc-on", "cancelled,deadline-exceeded,internal,unavailable"),
    ("x-envoy-retriable-status-codes", "200,400,500,503"),
    ("x-envoy-max-retries", "5"),
    ("x-envoy-upstream-rq-per-try-timeout-ms", "1"),
    ("x-envoy-hedge-on-per-try-timeout", "true"),
];

#[tokio::test]
async fn what_an_agent_has_seen_is_not_retried() {
    let envoy = Envoy::builder().start().await.unwrap();
    let seen = Seen::default();
    let agents = [500, 502, 503, 504, 429].map(|status| (format!("s{status}"), noting(0, &seen, status).unwrap()));
    let (notes, count) = (seen.clone(), Arc::new(Mutex::new(0_u32)));
    let counted = count.clone();
    // An agent that reads the request and breaks off.
    let breaking = agents::raw::start("breaking", move |mut stream| {
        let count = counted.clone();
        async move {
            let mut some = [0; 1024];
            if stream.read(&mut some).await? > 0 {
                *count.lock().unwrap() += 1;
            }
            Ok(())
        }
    });
    let breaking = breaking.unwrap();
    let mut routes: Vec<_> = agents.iter().map(|(id, agent)| (id.as_str(), agent.port())).collect();
    routes.push(("breaking", breaking.port()));
    envoy.routes().put_all(routes.iter().copied()).await.unwrap();

    for client in [http1(), http2()] {
        for (id, _) in &routes {
            for method in [http::Method::GET, http::Method::POST] {
                let before = notes.0.lock().unwrap().len();
                let url = format!("{}/{id}/{before}", envoy.data_url());
                let mut request = client.request(method, url).header(DEPLOYMENT_ID, *id);
                for (name, value) in RETRY_HEADERS {
                    request = request.header(name, value);
                }
                let status = request.send().await.unwrap().status().as_u16();
                let expected = id.strip_prefix('s').map_or(502, |status| status.parse().unwrap());
                assert_eq!(status, expected, "{id}");
            }
        }
    }
    seen.assert_once(5 * 2 * 2);
    assert_eq!(*count.lock().unwrap(), 2 * 2, "the agent that broke off saw each request once");
}

/// An agent that responds with REFUSED_STREAM has not processed the request (RFC 9113, 8.7), so it is retried, and runs once.
#[tokio::test]
async fn a_refused_stream_is_retried() {
    let envoy = Envoy::builder().start().await.unwrap();
    let refused = Arc::new(Mutex::new(0_u32));
    let counted = refused.clone();
    let agent = agents::raw::start("refusing", move |stream| {
        let refused = counted.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.map_err(std::io::Error::other)?;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let so_far = *refused.lock().unwrap();
                if so_far < 3 {
                    *refused.lock().unwrap() += 1;
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                    continue;
                }
                let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut body = respond.send_response(response, false).map_err(std::io::Error::other)?;
                body.send_data(vec![0; 5].into(), false).map_err(std::io::Error::other)?;
                let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
                body.send_trailers(trailers).map_err(std::io::Error::other)?;
            }
            Ok(())
        }
    });
    let agent = agent.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    client.health(proto::request_to("a", Empty {}).unwrap()).await.unwrap();
    assert_eq!(*refused.lock().unwrap(), 3);
}

/// Calls that arrive while an agent restarts wait for it, however many calls wait for another agent that is gone for good.
#[tokio::test]
async fn a_restarting_agent_causes_no_error() {
    until_in_time(async || {
        let envoy = Envoy::builder().start().await.unwrap();
        let seen = Seen::default();
        let first = noting(0, &seen, 200).unwrap();
        let port = first.port();
        let gone = noting(0, &seen, 200).unwrap();
        envoy.routes().put_all([("a", port), ("gone", gone.port())]).await.unwrap();
        gone.kill();
        let (one, two) = (http1(), http2());
        let call = |number: usize| {
            let client = if number.is_multiple_of(2) { &one } else { &two };
            let request = client.post(format!("{}/{number}", envoy.data_url())).header(DEPLOYMENT_ID, "a").body("once");
            async move { anyhow::Ok((number, request.send().await?.status())) }
        };
        assert_eq!(call(0).await.unwrap().1, 200);
        first.stop().await.unwrap();
        let sent = Instant::now();
        let waiting = join_all((0..50).map(|_| two.get(envoy.data_url()).header(DEPLOYMENT_ID, "gone").send()));
        let restart = async {
            tokio::time::sleep(Duration::from_millis(450)).await;
            let started = || async { Ok(noting(port, &seen, 200).ok()) };
            let restarted = harness::wait::until("the port", Duration::from_secs(10), started).await;
            (restarted.unwrap(), in_time(sent))
        };
        let (calls, (_restarted, restarted_in_time), lost) = tokio::join!(try_join_all((1..=40).map(call)), restart, waiting);
        restarted_in_time?;
        for (number, status) in calls.unwrap() {
            assert_eq!(status, 200, "call {number}");
        }
        assert!(lost.iter().all(|response| response.as_ref().unwrap().status() == 503));
        seen.assert_once(41);
        Some(())
    })
    .await;
}

/// gRPC clients call without a pause while their agent is restarted again and again.
#[tokio::test]
async fn graceful_restarts_under_load_cause_no_error() {
    until_in_time(async || {
        let envoy = Envoy::builder().start().await.unwrap();
        let mut agent = agents::grpc::start("a").unwrap();
        let port = agent.port();
        envoy.routes().put_all([("a", port)]).await.unwrap();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (done, address) = (done.clone(), envoy.data_addr());
                tokio::spawn(async move {
                    let mut client = proto::connect(address).await.unwrap();
                    let mut calls = 0_u32;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let response = client.health(proto::request_to("a", Empty {}).unwrap()).await;
                        response.unwrap_or_else(|status| panic!("call {calls}: {status:?}"));
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let stopped = Instant::now();
            agent.stop().await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            agent = agents::grpc::start_on("a", port).unwrap();
            in_time(stopped)?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for client in clients {
            assert!(client.await.unwrap() > 0);
        }
        Some(())
    })
    .await;
}
