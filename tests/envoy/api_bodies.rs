//! Request bodies: the pieces in which they arrive, and how large they may be.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use harness::{Envoy, RouteApi};
use http_body_util::{BodyExt, Full};
use reqwest::{Body, Client, Method};
use serde_json::{Map, Value, json};

use crate::api::{Api, Rejected, no_vm_fell_over, problem};
use crate::clients::{http1, http2};

/// The default of `max_body_bytes`: 4096 + 10,000 routes of 128 + 128 bytes.
const LARGEST: usize = 2_564_096;

/// A body without a length that is sent in `chunks`, with a pause between them.
fn in_chunks(chunks: Vec<Bytes>) -> Body {
    Body::wrap_stream(stream::unfold(chunks.into_iter(), |mut chunks| async {
        let chunk = chunks.next()?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        Some((Ok::<_, std::io::Error>(chunk), chunks))
    }))
}

async fn put(client: &Client, envoy: &Envoy, body: Body) -> harness::ApiResponse {
    let request = client.request(Method::PUT, envoy.api_url() + "/v1/routes").header("content-type", "application/json");
    RouteApi::send(request.body(body)).await.unwrap()
}

#[tokio::test]
async fn a_body_may_arrive_in_any_pieces() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let text = r#"{"routes":{"a":2000,"b":{"port":2001,"state":"draining"}}}"#;
    let bytes = Bytes::from_static(text.as_bytes());
    let expected = json!({"a": {"port": 2000, "state": "active"}, "b": {"port": 2001, "state": "draining"}});
    for round in 0..2 {
        for client in [http1(), http2()] {
            for size in [1, 7, bytes.len()] {
                api.call("PUT", "/v1/routes", r#"{"routes":{}}"#).await;
                let chunks = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
                assert_eq!(put(&client, &envoy, in_chunks(chunks)).await.status, 200, "round {round}, {size}");
                assert_eq!(api.map().await["routes"], expected);
            }
            // With trailers, no part of the body ends the stream.
            api.call("PUT", "/v1/routes", r#"{"routes":{}}"#).await;
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-checksum", http::HeaderValue::from_static("1"));
            let body = Full::new(bytes.clone()).with_trailers(async { Some(Ok(trailers)) });
            assert_eq!(put(&client, &envoy, Body::wrap(body)).await.status, 200);
            assert_eq!(api.map().await["routes"], expected);
        }
    }
    // A read or a removal needs no body and ignores one.
    assert_eq!(api.call("GET", "/v1/routes", "{").await.status, 200);
    assert_eq!(api.call("DELETE", "/v1/routes/a", "{").await.status, 204);
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn a_body_is_accepted_up_to_the_limit_and_rejected_above_it() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    // The largest possible map, formatted for humans.
    let full: Map<String, Value> =
        (0..10_000).map(|n| (format!("{n:0128}"), json!({"port": 10_000 + n, "state": "draining"}))).collect();
    let wide = serde_json::to_string_pretty(&json!({ "routes": full })).unwrap();
    assert!(wide.len() > 1_900_000);
    let response = api.call("PUT", "/v1/routes", &wide).await;
    assert_eq!((response.status.as_u16(), response.json().unwrap()["added"].as_u64()), (200, Some(10_000)));
    let map = api.map().await;
    assert_eq!(map["routes"], Value::Object(full));

    // One more route is an error, unless it displaces another one.
    let more = |body| Rejected {
        method: "PATCH",
        target: "/v1/routes",
        body,
        status: 422,
        code: "invalid_routes",
        places: &["/routes"],
        ..Rejected::default()
    };
    api.rejected(more(br#"{"routes":{"one-more":9999}}"#)).await;
    assert_eq!(api.call("PUT", "/v1/routes/one-more", "10000").await.status, 201);

    let mut body = br#"{"routes":{"a":2000}}"#.to_vec();
    body.resize(LARGEST, b' ');
    for client in [http1(), http2()] {
        for pieces in [false, true] {
            let send = |body: &[u8]| {
                if pieces {
                    in_chunks(body.chunks(100_000).map(Bytes::copy_from_slice).collect())
                } else {
                    Body::from(body.to_vec())
                }
            };
            assert_eq!(put(&client, &envoy, send(&body)).await.status, 200);
            let map = api.map().await;
            let mut larger = body.clone();
            larger[1..].rotate_left(1);
            larger.push(b' ');
            // Without a length, a body is known to be too large only once it exceeds the limit.
            let response = put(&client, &envoy, send(&larger)).await;
            assert_eq!((response.status.as_u16(), &problem(&response)["code"]), (413, &"payload_too_large".into()));
            assert!(response.json().unwrap()["detail"].as_str().unwrap().contains("2564096"), "{response}");
            assert_eq!(api.map().await, map);
        }
    }
    no_vm_fell_over(&envoy, &api).await;
}

/// Bodies within the limit that are expensive to parse: all get their response soon, and no VM crashes.
#[tokio::test]
async fn a_hostile_body_is_rejected_in_time() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let half = LARGEST / 2;
    let many = |open: &str, member: &dyn Fn(usize) -> String, close: &str| {
        let mut text = String::from(open);
        for n in 0.. {
            let next = member(n);
            if text.len() + next.len() + close.len() + 1 > LARGEST {
                break;
            }
            text += if n == 0 { "" } else { "," };
            text += &next;
        }
        text + close
    };
    for (body, status) in [
        ("[".repeat(LARGEST), 400),
        ("{\"routes\":".repeat(half / 10), 400),
        ("[".repeat(half) + &"]".repeat(half), 400),
        (" ".repeat(LARGEST), 400),
        ("1".repeat(LARGEST), 400),
        (format!("\"{}\"", "\\u0000".repeat(400_000)), 422),
        (many("[", &|_| "0".into(), "]"), 422),
        (many("[", &|_| "[0]".into(), "]"), 422),
        (many("{", &|n| format!("\"{n:x}\":0"), "}"), 422),
        (many("{", &|_| "\"routes\":0".into(), "}"), 422),
        (many("{\"routes\":{", &|_| "\"a\":2000".into(), "}}"), 422),
        (many("{\"routes\":{", &|n| format!("\"{n:x}\":0"), "}}"), 422),
        (many("{\"routes\":{\"a\":{", &|n| format!("\"{n:x}\":0"), "}}}"), 422),
        (many("{\"routes\":{", &|n| format!("\"{n:x}\":2000"), "}}"), 422),
    ] {
        let shown = body.chars().take(20).collect::<String>();
        let started = std::time::Instant::now();
        for method in ["PUT", "PATCH"] {
            let response = api.call(method, "/v1/routes", &body).await;
            assert_eq!(response.status.as_u16(), status, "{shown}");
        }
        // This takes milliseconds on an idle machine. Quadratic time would be minutes.
        assert!(started.elapsed() < Duration::from_secs(20), "{shown}: {:?}", started.elapsed());
    }
    assert_eq!(api.map().await["routes"], json!({}));
    no_vm_fell_over(&envoy, &api).await;
}

/// Half a million errors make a short response and take little memory, which matters because a VM never returns memory.
#[tokio::test]
async fn a_body_full_of_errors_takes_little_memory() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = Api::open(&envoy).await;
    let count = (LARGEST - 20) / 5;
    let body = Bytes::from(format!("{{\"routes\":{{{}}}}}", vec![r#""":0"#; count].join(",")));
    let before = envoy.resident_bytes().unwrap();
    // Eight at once, so that both workers get some.
    let responses = (0..8).map(|_| api.call_with("PUT", "/v1/routes", &[("content-type", "application/json")], body.clone()));
    for response in futures_util::future::join_all(responses).await {
        let document = problem(&response);
        let listed = document["errors"].as_array().unwrap().len();
        assert_eq!((response.status.as_u16(), listed, document["errors_total"].as_u64()), (422, 100, Some(count as u64)));
        assert!(response.body.len() < 20_000, "{} bytes", response.body.len());
    }
    let grown = envoy.resident_bytes().unwrap().saturating_sub(before) >> 20;
    eprintln!("grown by {grown} MiB");
    assert!(grown < 150, "{grown} MiB");
    no_vm_fell_over(&envoy, &api).await;
}
