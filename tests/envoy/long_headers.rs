//! Long and many header fields, in requests and responses: they pass up to a limit. Beyond it, only their own call fails.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use harness::agents::{self, http as agent};
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy, wait};
use hyper::Response;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::clients::http1;
use crate::wire;

const PATIENCE: Duration = Duration::from_secs(5);

/// An HTTP/2 agent that does what the path says: `/hold` responds on a signal, `/message/N` is a gRPC error whose message has N bytes,
/// `/trailer/N` the same after a response message, and `/fields/N` has N fields.
fn grpc_agent() -> (Agent, watch::Sender<()>) {
    let (release, held) = watch::channel(());
    let agent = agents::raw::start("a", move |stream| {
        let held = held.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.map_err(std::io::Error::other)?;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let mut held = held.clone();
                tokio::spawn(async move {
                    let mut parts = request.uri().path().trim_start_matches('/').split('/');
                    let (what, count) =
                        (parts.next().unwrap().to_owned(), parts.next().map_or(0, |count| count.parse().unwrap()));
                    let head = || http::Response::builder().header("content-type", "application/grpc");
                    let ends = |message: usize| [("grpc-status", "2".to_owned()), ("grpc-message", "m".repeat(message))];
                    match what.as_str() {
                        "hold" => {
                            held.mark_unchanged();
                            held.changed().await.unwrap();
                            respond.send_response(head().header("grpc-status", "0").body(()).unwrap(), true).map(drop)
                        }
                        "message" => {
                            let head = ends(count).into_iter().fold(head(), |head, (name, value)| head.header(name, value));
                            respond.send_response(head.body(()).unwrap(), true).map(drop)
                        }
                        "trailer" => {
                            let mut body = respond.send_response(head().body(()).unwrap(), false).unwrap();
                            body.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
                            let ends =
                                ends(count).into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
                            body.send_trailers(http::HeaderMap::from_iter(ends))
                        }
                        _ => {
                            let head = (0..count)
                                .fold(head().header("grpc-status", "0"), |head, n| head.header(format!("x-{n}"), "v"));
                            respond.send_response(head.body(()).unwrap(), true).map(drop)
                        }
                    }
                });
            }
            Ok(())
        }
    });
    (agent.unwrap(), release)
}

/// An HTTP/2 connection whose client accepts headers of up to 16 MiB.
async fn http2(envoy: &Envoy) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
    let (client, connection) = h2::client::Builder::new().max_header_list_size(16 << 20).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A gRPC call over a shared connection: the headers and trailers of its response, or the error with which its stream was reset.
async fn call(
    client: &h2::client::SendRequest<Bytes>,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(http::HeaderMap, http::HeaderMap), h2::Error> {
    let request =
        http::Request::post(format!("http://h{path}")).header(DEPLOYMENT_ID, "a").header("content-type", "application/grpc");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let (response, _) = client.clone().ready().await?.send_request(request.body(()).unwrap(), true)?;
    let (head, mut body) = response.await?.into_parts();
    while let Some(data) = body.data().await {
        let len = data?.len();
        body.flow_control().release_capacity(len)?;
    }
    Ok((head.headers, body.trailers().await?.unwrap_or_default()))
}

/// Waits until this many requests are in flight to the agent.
async fn in_flight(envoy: &Envoy, count: u64) {
    let active = || async { Ok((envoy.stat("cluster.agents_http2.upstream_rq_active").await? == Some(count)).then_some(())) };
    wait::until("the held calls to be in flight", PATIENCE, active).await.unwrap();
}

/// `siblings` and `client` are different connections to Envoy. Envoy uses one connection to the agent for both.
#[tokio::test]
async fn a_long_error_message_of_a_grpc_agent_resets_no_other_stream() {
    let (agent, release) = grpc_agent();
    let envoy = Envoy::builder().concurrency(1).start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let (siblings, client) = (http2(&envoy).await, http2(&envoy).await);
    // Until its first connection to the agent is up, Envoy opens one for each request.
    call(&client, "/fields/1", &[]).await.unwrap();
    for path in ["message", "trailer"] {
        let held = tokio::spawn({
            let siblings = siblings.clone();
            async move { join_all((0..8).map(|_| call(&siblings, "/hold", &[]))).await }
        });
        in_flight(&envoy, 8).await;
        for len in [1_000, 62_000, 66_000, 100_000, 900_000] {
            let (head, trailers) = call(&client, &format!("/{path}/{len}"), &[]).await.unwrap();
            let ends = if path == "message" { &head } else { &trailers };
            assert_eq!((ends["grpc-status"].as_bytes(), ends["grpc-message"].len()), (&b"2"[..], len), "{path} {len}");
        }
        // Beyond the limit, the client learns the reason if its response has not started.
        let long = call(&client, &format!("/{path}/1200000"), &[]).await;
        if path == "message" {
            let (head, _) = long.unwrap();
            assert_eq!(
                (&head["grpc-status"], &head["x-pixell-error"]),
                (&"14".parse().unwrap(), &"agent_closed".parse().unwrap())
            );
        } else {
            assert!(long.is_err());
        }
        release.send(()).unwrap();
        for sibling in held.await.unwrap() {
            assert_eq!(sibling.unwrap().0["grpc-status"], "0", "{path}");
        }
    }
    let (head, _) = call(&client, "/fields/900", &[]).await.unwrap();
    assert!(head.len() > 900);
    let (head, _) = call(&client, "/fields/1100", &[]).await.unwrap();
    assert_eq!(head["x-pixell-error"], "agent_closed");
    assert_eq!(envoy.stat("cluster.agents_http2.upstream_cx_total").await.unwrap(), Some(1), "one connection for all calls");
}

#[tokio::test]
async fn long_headers_of_an_http1_agent_pass_up_to_a_limit() {
    let agent = agent::start("a", 0, agent::Version::Http1, |request| async move {
        let (count, len) = request.uri().path().trim_start_matches('/').split_once('/').unwrap();
        let value = "v".repeat(len.parse().unwrap());
        let mut response = Response::new(agent::whole("body"));
        for number in 0..count.parse::<u32>().unwrap() {
            response.headers_mut().insert(http::HeaderName::try_from(format!("x-{number}")).unwrap(), value.parse().unwrap());
        }
        response
    });
    let agent = agent.unwrap();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for (count, len, passes) in [
        (95, 1, true),
        (500, 10, true),
        (900, 1, true),
        (1, 70_000, true),
        (8, 30_000, true),
        (1_100, 1, false),
        (20, 60_000, false),
    ] {
        let request = format!("GET /{count}/{len} HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-deployment-id: a\r\n\r\n");
        let response = wire::exchange(envoy.data_addr(), request.as_bytes(), PATIENCE).await;
        let response = String::from_utf8_lossy(&response).into_owned();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        if passes {
            assert!(head.starts_with("HTTP/1.1 200") && head.len() > count * len && body == "body", "{count} {len}");
        } else {
            let problem: Value = serde_json::from_str(body).unwrap();
            assert_eq!((&problem["status"], &problem["code"]), (&502.into(), &"agent_protocol_error".into()), "{count} {len}");
        }
    }
}

/// A request beyond the limits fails, but not the client's other streams on the connection.
#[tokio::test]
async fn long_headers_of_a_request_reset_no_other_stream() {
    let (agent, release) = grpc_agent();
    let envoy = Envoy::builder().concurrency(1).start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let client = http2(&envoy).await;
    let held = tokio::spawn({
        let client = client.clone();
        async move { join_all((0..8).map(|_| call(&client, "/hold", &[]))).await }
    });
    in_flight(&envoy, 8).await;
    let value = |len| "v".repeat(len);
    for len in [50_000, 66_000, 90_000] {
        call(&client, "/fields/1", &[("x-long", &value(len))]).await.unwrap_or_else(|error| panic!("{len}: {error}"));
    }
    let names: Vec<_> = (0..120).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let error = call(&client, "/fields/1", &many).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    // Too long in several fields, and in one.
    let long = value(25_000);
    let error =
        call(&client, "/fields/1", &[("x-1", &long), ("x-2", &long), ("x-3", &long), ("x-4", &long)]).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    let error = call(&client, "/fields/1", &[("x-long", &value(120_000))]).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    release.send(()).unwrap();
    for sibling in held.await.unwrap() {
        assert_eq!(sibling.unwrap().0["grpc-status"], "0");
    }
    // An operator can recognise them: the requests of clients that left have a path.
    let was_reset = |line: &Value| line["response_flags"] == "DR";
    for line in envoy.logged(3, was_reset).await.unwrap() {
        assert_eq!((&line["path"], &line["status"]), (&Value::Null, &0.into()), "{line}");
        let details = line["code_details"].as_str().unwrap();
        assert!(["http2.too_many_headers", "http2.remote_reset"].contains(&details), "{line}");
    }
}

#[tokio::test]
async fn long_headers_of_an_http1_request_are_rejected_with_a_reason() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for headers in [format!("x: {}\r\n", "v".repeat(100 * 1024)), "x: v\r\n".repeat(101)] {
        let request = format!("GET / HTTP/1.1\r\nhost: h\r\nx-deployment-id: a\r\n{headers}\r\n");
        let response = wire::exchange(envoy.data_addr(), request.as_bytes(), PATIENCE).await;
        let response = String::from_utf8_lossy(&response).into_owned();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 ") && head.contains("x-pixell-error: headers_too_large"), "{head}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&problem["code"], &problem["title"]),
            (&"headers_too_large".into(), &"Request Header Fields Too Large".into())
        );
    }
    let long = http1().get(envoy.data_url()).header(DEPLOYMENT_ID, "a").header("x", "v".repeat(90_000)).send().await.unwrap();
    assert_eq!(long.status(), 200);
}
