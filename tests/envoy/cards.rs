//! Agent cards of clients that named their agent by path or host: their URLs lead back, whatever the agent knows of the proxy.

use std::time::Duration;

use harness::agents::{self, http as agent};
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy, wait};
use hyper::Response;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::access_log_level::with_settings;
use crate::clients::{http1, http2};
use crate::wire;

const CARD: &str = "/.well-known/agent-card.json";
const LARGEST: usize = 1 << 20;

/// An agent that responds with `head` (after the status line) and `body` in parts of these sizes, over HTTP/1.1 with chunks; without a size
/// in one part with a length.
fn serves(head: &'static str, body: Vec<u8>, sizes: Vec<usize>) -> Agent {
    let agent = agents::raw::start("x", move |mut stream| {
        let (body, sizes) = (body.clone(), sizes.clone());
        async move {
            stream.set_nodelay(true)?;
            loop {
                wire::head(&mut stream).await?;
                let framing = match sizes.first() {
                    None => format!("content-length: {}", body.len()),
                    Some(_) => "transfer-encoding: chunked".to_owned(),
                };
                stream.write_all(format!("HTTP/1.1 {head}\r\n{framing}\r\n\r\n").as_bytes()).await?;
                if sizes.is_empty() {
                    stream.write_all(&body).await?;
                    continue;
                }
                let mut rest = body.as_slice();
                for size in sizes.iter().cycle() {
                    let (part, tail) = rest.split_at((*size).min(rest.len()));
                    stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await?;
                    stream.write_all(part).await?;
                    stream.write_all(b"\r\n").await?;
                    stream.flush().await?;
                    rest = tail;
                    if rest.is_empty() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                stream.write_all(b"0\r\n\r\n").await?;
            }
        }
    });
    agent.unwrap()
}

const JSON: &str = "200 OK\r\ncontent-type: application/json\r\netag: \"1\"";

async fn started(agent: &Agent) -> Envoy {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("x", agent.port())]).await.unwrap();
    envoy
}

async fn fetch(client: &Client, envoy: &Envoy) -> (reqwest::header::HeaderMap, Vec<u8>) {
    let response = client.get(format!("{}/agents/x/a2a{CARD}", envoy.data_url())).send().await.unwrap();
    assert_eq!(response.status(), 200);
    (response.headers().clone(), response.bytes().await.unwrap().to_vec())
}

/// How many cards passed unchanged, by reason.
async fn unchanged(envoy: &Envoy, reason: &str) -> u64 {
    let text = http1().get(envoy.api_url() + "/stats/prometheus").send().await.unwrap().text().await.unwrap();
    let name = format!("pixell_agent_cards_unchanged_total{{reason=\"{reason}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no counter of {reason} in {text}")).parse().unwrap()
}

/// A card that the agent believes to be at this address, filled up to `size` bytes.
fn card(url: &str, size: usize) -> Vec<u8> {
    let text = |filling: &str| format!(r#"{{"url":"{url}", "n":1.0e2, "name":"x","description":"{filling}"}}"#);
    text(&"x".repeat(size.saturating_sub(text("").len()))).into_bytes()
}

#[tokio::test]
async fn a_card_leads_back_however_it_is_cut() {
    for (size, sizes) in [
        (0, vec![]),
        (0, vec![1]),
        (0, vec![7, 1, 30]),
        (5_000, vec![4_999, 1]),
        (300_000, vec![65_536]),
        (300_000, vec![]),
        (LARGEST, vec![10_000, 1, 70_000]),
        (LARGEST, vec![]),
    ] {
        let body = card("http://localhost:7/", size);
        let agent = serves(JSON, body.clone(), sizes.clone());
        let envoy = started(&agent).await;
        let url = format!("{}/agents/x/a2a/", envoy.data_url());
        let expected = String::from_utf8(body).unwrap().replace("http://localhost:7/", &url);
        for client in [http1(), http2()] {
            let (headers, found) = fetch(&client, &envoy).await;
            assert!(found == expected.as_bytes(), "{size} {sizes:?}: {} bytes", found.len());
            assert_eq!(headers["cache-control"], "private, no-store");
            assert!(!headers.contains_key("etag") && !headers.contains_key("content-length"), "{headers:?}");
        }
    }
}

#[tokio::test]
async fn a_card_that_is_too_large_passes_as_it_is() {
    for sizes in [vec![], vec![50_000, 3], vec![LARGEST, 1], vec![LARGEST + 1]] {
        let body = card("http://localhost:7/", LARGEST + 1);
        let agent = serves(JSON, body.clone(), sizes.clone());
        let envoy = started(&agent).await;
        for (number, client) in [http1(), http2()].into_iter().enumerate() {
            let (headers, found) = fetch(&client, &envoy).await;
            assert!(found == body, "{sizes:?}: {} bytes", found.len());
            // If it was known before the head was sent, that is as the agent made it.
            assert_eq!(headers.contains_key("etag"), sizes.is_empty(), "{headers:?}");
            assert_eq!(unchanged(&envoy, "too_large").await, number as u64 + 1);
        }
        let line = "the agent card of x passes unchanged, and its URLs may lead nowhere: it is larger than 1 MiB";
        assert!(envoy.log().contains(line), "{}", envoy.log());
    }
}

#[tokio::test]
async fn signed_encoded_and_malformed_cards_pass_as_they_are() {
    let plain = "200 OK\r\ncontent-type: application/json";
    let gzip = "200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\netag: \"1\"";
    let deep = [b"{\"url\":\"http://localhost:7/\",\"x\":", "[".repeat(500_000).as_bytes()].concat();
    for (head, body, reason) in [
        (plain, br#"{"url":"http://localhost:7/","signatures":[{"protected":"e30","signature":"x"}]}"#.to_vec(), "signed"),
        (gzip, b"\x1f\x8b not really".to_vec(), "encoded"),
        (plain, b"{\"url\":\"http://localhost:7/\xff\"}".to_vec(), "invalid"),
        (plain, b"{\"url\":\"http://localhost:7/\"".to_vec(), "invalid"),
        (plain, deep, "invalid"),
    ] {
        for sizes in [vec![], vec![5, 100_000]] {
            let agent = serves(head, body.clone(), sizes);
            let envoy = started(&agent).await;
            for client in [http1(), http2()] {
                let (_, found) = fetch(&client, &envoy).await;
                assert!(found == body, "{reason}: {}", String::from_utf8_lossy(&found[..found.len().min(200)]));
            }
            assert_eq!(unchanged(&envoy, reason).await, 2, "{reason}");
            assert!(envoy.log().contains("the agent card of x passes unchanged"), "{reason}");
            for other in ["signed", "encoded", "too_large", "invalid", "origin_not_allowed", "overloaded"] {
                assert!(other == reason || unchanged(&envoy, other).await == 0, "{other}");
            }
        }
    }
}

#[tokio::test]
async fn hostile_cards_that_are_json_lead_back() {
    let deep = format!(r#"{{"x":{}{},"url":"http://localhost:7/"}}"#, "[".repeat(400_000), "]".repeat(400_000));
    let twice = r#"{"url":"http://localhost:7/","url":"http://localhost:7/","n":1e999999,"m":-0.000,"n":123456789012345678901234567890}"#;
    for text in [deep.as_str(), twice] {
        let agent = serves(JSON, text.into(), vec![60_000]);
        let envoy = started(&agent).await;
        let (_, found) = fetch(&http1(), &envoy).await;
        let expected = text.replace("http://localhost:7/", &format!("{}/agents/x/a2a/", envoy.data_url()));
        assert!(found == expected.as_bytes());
    }
}

/// What the test's agent received, and its responses to what is no card.
#[tokio::test]
async fn what_is_no_card_is_not_touched() {
    let agent = agent::start("x", 0, agent::Version::Http1, |request| async move {
        let path = request.uri().path();
        let (status, content_type) = if path.starts_with("/missing") {
            (404, "application/json")
        } else if path.starts_with("/page") {
            (200, "text/html")
        } else {
            (200, "application/json")
        };
        let names: Vec<_> =
            request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        let body = json!({"url": "http://localhost:7/", "headers": names}).to_string();
        let response = Response::builder().status(status).header("content-type", content_type).header("etag", "\"1\"");
        response.body(agent::whole(body)).unwrap()
    });
    let agent = agent.unwrap();
    let envoy = started(&agent).await;
    let ask = |method: Method, path: &str| {
        let request = http1().request(method, format!("{}/agents/x/a2a{path}", envoy.data_url()));
        request.header("accept-encoding", "gzip").header("if-none-match", "\"1\"").header("range", "bytes=0-1")
    };
    let own = "http://localhost:7/";
    for (method, path) in [
        (Method::GET, format!("/missing{CARD}")),
        (Method::GET, format!("/page{CARD}")),
        (Method::GET, "/card.json".to_owned()),
        (Method::POST, CARD.to_owned()),
        (Method::HEAD, CARD.to_owned()),
    ] {
        let response = ask(method.clone(), &path).send().await.unwrap();
        assert_eq!(response.headers()["etag"], "\"1\"", "{method} {path}");
        assert!(response.headers().contains_key("content-length") && !response.headers().contains_key("cache-control"));
        let body = response.text().await.unwrap();
        assert!(method == Method::HEAD || body.contains(own), "{method} {path}: {body}");
    }
    // A card, which the agent is asked for as a whole, plain, and without conditions.
    let response: Value = ask(Method::GET, CARD).send().await.unwrap().json().await.unwrap();
    assert_eq!(response["url"], format!("{}/agents/x/a2a/", envoy.data_url()));
    let headers: Vec<_> = response["headers"].as_array().unwrap().iter().map(|header| header.as_str().unwrap()).collect();
    assert!(headers.contains(&"accept-encoding: identity"), "{headers:?}");
    assert!(!headers.iter().any(|header| header.starts_with("if-none-match") || header.starts_with("range")), "{headers:?}");
    // If a header names the agent, the proxy changes nothing of this.
    let by_header = http1().get(envoy.data_url() + CARD).header(DEPLOYMENT_ID, "x").header("if-none-match", "\"1\"");
    let response = by_header.send().await.unwrap();
    assert_eq!(response.headers()["etag"], "\"1\"");
    let response: Value = response.json().await.unwrap();
    assert_eq!(response["url"], own);
    assert!(response["headers"].as_array().unwrap().contains(&json!("if-none-match: \"1\"")), "{response}");
}

/// Both generations of cards, of an agent with two endpoints; every URL that comes back is called.
#[tokio::test]
async fn every_interface_leads_to_its_endpoint() {
    let a2a = agents::echo::start("a2a").unwrap();
    let a2a_port = a2a.port();
    let rest = agent::start("rest", 0, agent::Version::Http1, move |request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let body = if request.uri().path().ends_with(CARD) {
            json!({
                "url": format!("http://127.0.0.1:{a2a_port}/rpc"), "preferredTransport": "JSONRPC",
                "additionalInterfaces": [
                    {"url": format!("http://{host}/v1"), "transport": "HTTP+JSON"},
                    {"url": format!("0.0.0.0:{a2a_port}"), "transport": "GRPC"},
                ],
                "supportedInterfaces": [{"url": "http://localhost/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
                "documentationUrl": "http://localhost:7/docs",
            })
        } else {
            json!({"agent": "rest", "path": request.uri().to_string()})
        };
        Response::builder().header("content-type", "application/json").body(agent::whole(body.to_string())).unwrap()
    });
    let rest = rest.unwrap();
    let envoy = Envoy::builder().start().await.unwrap();
    let routes = json!({"routes": {"x": {"port": a2a.port(), "endpoints": {"rest": rest.port()}}}});
    assert_eq!(envoy.routes().patch_routes(&routes).await.unwrap().status, 200);
    for prefix in ["/agents/x", "/agents/x/api", "/agents/x/-/rest"] {
        let card: Value =
            http1().get(format!("{}{prefix}{CARD}", envoy.data_url())).send().await.unwrap().json().await.unwrap();
        assert_eq!(card["additionalInterfaces"][1]["url"], envoy.data_addr().to_string(), "{card}");
        assert_eq!(card["documentationUrl"], "http://localhost:7/docs");
        for (url, agent, path) in [
            (&card["url"], "a2a", "/rpc"),
            (&card["additionalInterfaces"][0]["url"], "rest", "/v1"),
            (&card["supportedInterfaces"][0]["url"], "rest", "/a2a"),
        ] {
            let url = url.as_str().unwrap();
            let reached: Value = http1().get(url).send().await.unwrap().json().await.unwrap();
            assert_eq!((&reached["agent"], &reached["path"]), (&agent.into(), &path.into()), "{prefix} {url}");
        }
    }
}

#[tokio::test]
async fn only_external_origins_are_written_into_cards() {
    let agent = serves(JSON, card("http://localhost:7/", 0), vec![]);
    let envoy = with_settings(&[("PIXELL_EXTERNAL_ORIGINS", "https://agents.test")]).start().await.unwrap();
    envoy.routes().put_all([("x", agent.port())]).await.unwrap();
    for (host, expected) in [("agents.test", "https://agents.test/agents/x/"), ("evil.test", "http://localhost:7/")] {
        let request = http1().get(format!("{}/agents/x{CARD}", envoy.data_url())).header("host", host);
        let card: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(card["url"], expected, "{host}");
    }
    assert_eq!(unchanged(&envoy, "origin_not_allowed").await, 1);
}

/// Nobody asks for trailers, and hardly anybody sends them with a card.
#[tokio::test]
async fn a_card_with_trailers_is_never_taken_for_an_empty_one() {
    let body = r#"{"url":"http://localhost:7/"}"#;
    let agent = agents::raw::start("x", move |mut stream| async move {
        wire::head(&mut stream).await?;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{:x}\r\n{body}\r\n0\r\nx-trailer: 1\r\n\r\n", body.len()).as_bytes()).await?;
        wire::head(&mut stream).await.map(drop)
    });
    let agent = agent.unwrap();
    let envoy = started(&agent).await;
    for client in [http1(), http2()] {
        let response = client.get(format!("{}/agents/x{CARD}", envoy.data_url())).send().await.unwrap();
        let found = response.text().await;
        if harness::envoy::is_native() {
            let expected = body.replace("http://localhost:7/", &format!("{}/agents/x/", envoy.data_url()));
            assert_eq!(found.unwrap(), expected);
        } else {
            assert!(found.is_err(), "{found:?}");
        }
    }
}

/// If an agent breaks off, no half card is delivered, and the client sees the failure.
#[tokio::test]
async fn a_card_that_breaks_off_is_an_error() {
    let agent = agents::raw::start("x", |mut stream| async move {
        wire::head(&mut stream).await?;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"url\":";
        stream.write_all(head.as_bytes()).await
    });
    let agent = agent.unwrap();
    let envoy = started(&agent).await;
    for client in [http1(), http2()] {
        let response = client.get(format!("{}/agents/x{CARD}", envoy.data_url())).send().await.unwrap();
        assert!(response.text().await.is_err());
    }
}

/// Slow cards hold a bounded amount of memory; what does not fit passes unchanged.
#[tokio::test]
async fn cards_that_arrive_for_ever_do_not_use_up_the_memory() {
    let agent = agents::raw::start("x", |mut stream| async move {
        let head = wire::head(&mut stream).await?;
        let begin = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(begin.as_bytes()).await?;
        if head.starts_with("GET /slow") {
            let part = vec![b' '; 1_000_000];
            stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await?;
            stream.write_all(&part).await?;
            wire::head(&mut stream).await?;
        }
        stream.write_all(b"2\r\n{}\r\n0\r\n\r\n").await
    });
    let agent = agent.unwrap();
    let envoy = Envoy::builder().concurrency(1).start().await.unwrap();
    envoy.routes().put_all([("x", agent.port())]).await.unwrap();
    let slow = format!("{}/agents/x/slow{CARD}", envoy.data_url());
    let client = http1();
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(client.get(&slow).send().await.unwrap());
    }
    wait::until("cards that do not fit", Duration::from_secs(20), || async {
        Ok((unchanged(&envoy, "overloaded").await == 4).then_some(()))
    })
    .await
    .unwrap();
    drop(held);
    let (_, found) = wait::until("room for a card", Duration::from_secs(20), || async {
        let before = unchanged(&envoy, "overloaded").await;
        let fetched = fetch(&client, &envoy).await;
        Ok((unchanged(&envoy, "overloaded").await == before).then_some(fetched))
    })
    .await
    .unwrap();
    assert_eq!(found, b"{}");
}
