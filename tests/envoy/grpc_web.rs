//! gRPC-Web, which browsers speak instead of gRPC: what its clients get from a gRPC agent, and how they learn of failures.

use std::time::Duration;

use harness::agents::{self, http as agent};
use harness::proto::{ActionRequest, AgentServiceClient, DEPLOYMENT_ID, Empty, HealthStatus};
use harness::{Agent, Envoy};
use http_body_util::BodyExt;
use hyper::Response;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use reqwest::Client;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tonic::Code;
use tonic_web::GrpcWebClientService;

use crate::clients::{grpc_rejection, http1, http2};

/// An empty message, in its frame.
const EMPTY: &[u8] = &[0, 0, 0, 0, 0];
const HEALTH: &str = "/pixell.agent.AgentService/Health";

/// What a gRPC-Web client sees of a call.
#[derive(Debug, PartialEq)]
struct Seen {
    content_type: String,
    message: Option<Vec<u8>>,
    grpc_status: String,
    grpc_message: String,
    error: Option<String>,
}

/// Calls Health at this path.
async fn call(client: &Client, envoy: &Envoy, path: &str, headers: &[(&str, &str)], content_type: &str) -> Seen {
    let request = client.post(format!("{}{path}", envoy.data_url())).header("content-type", content_type).body(EMPTY);
    // Envoy's filter would respond in the text form, which it holds in memory without a limit.
    let request = request.header("accept", "application/grpc-web-text");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.header("x-grpc-web", "1").send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let error = header("x-pixell-error");
    let content_type = header("content-type").unwrap_or_else(|| panic!("{path} {headers:?} {response:?}"));
    let (mut grpc_status, mut grpc_message) = (header("grpc-status"), header("grpc-message"));
    let body = response.bytes().await.unwrap();
    let (mut message, mut rest) = (None, &*body);
    while let Some((frame, after)) = rest.split_at_checked(5) {
        let (content, after) = after.split_at(u32::from_be_bytes(frame[1..].try_into().unwrap()) as usize);
        rest = after;
        if frame[0] & 0x80 == 0 {
            message = Some(content.to_vec());
            continue;
        }
        for line in String::from_utf8(content.to_vec()).unwrap().lines() {
            match line.split_once(':').unwrap() {
                ("grpc-status", value) => grpc_status = Some(value.trim().to_owned()),
                ("grpc-message", value) => grpc_message = Some(value.trim().to_owned()),
                _ => {}
            }
        }
    }
    assert_eq!(rest, [0; 0], "a part of a frame");
    let (grpc_status, grpc_message) = (grpc_status.unwrap(), grpc_message.unwrap_or_default());
    Seen { content_type, message, grpc_status, grpc_message, error }
}

#[tokio::test]
async fn a_grpc_agent_is_called_by_header_and_by_path() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (grpc, rest) = (agents::grpc::start("a").unwrap(), agents::echo::start("rest").unwrap());
    let routes = json!({"routes": {"a": {"port": grpc.port(), "endpoints": {"rest": rest.port()}}}});
    assert_eq!(envoy.routes().patch_routes(&routes).await.unwrap().status, 200);
    let by_path = format!("/agents/a/a2a{HEALTH}");
    let default = format!("/agents/a{HEALTH}");
    for client in [http1(), http2()] {
        for (path, headers) in [(HEALTH, &[(DEPLOYMENT_ID, "a")][..]), (&by_path, &[]), (&default, &[])] {
            for (sent, expected) in [
                ("application/grpc-web", "application/grpc-web+proto"),
                ("application/grpc-web+proto", "application/grpc-web+proto"),
            ] {
                let seen = call(&client, &envoy, path, headers, sent).await;
                assert_eq!((seen.grpc_status.as_str(), seen.content_type.as_str()), ("0", expected), "{path} {seen:?}");
                let message = HealthStatus::decode(seen.message.unwrap().as_slice()).unwrap();
                assert_eq!((message.ok, message.message.as_str()), (true, "a"), "{path}");
            }
        }
    }
    // These content types do not become gRPC, so the requests go to the agent's other endpoint.
    for other in ["s", "-text", "-text+proto", "+json", ";charset=utf-8", "+proto;x=y"] {
        let content_type = format!("application/grpc-web{other}");
        let request = http1().post(envoy.data_url() + "/x").header(DEPLOYMENT_ID, "a").header("content-type", content_type);
        let seen = request.send().await.unwrap().json::<serde_json::Value>().await.unwrap();
        assert_eq!((&seen["agent"], &seen["version"]), (&"rest".into(), &"HTTP/1.1".into()), "{other}");
    }
}

/// What the shipped configuration leaves out of the counters: Envoy's filter makes one for each service and method.
const LEFT_OUT: &str = "{ prefix: cluster.agents_http2.grpc-web. }";

/// The counters of calls of gRPC-Web that the filter has made.
async fn counted(envoy: &Envoy) -> Vec<(String, u64)> {
    let stats = envoy.stats().await.unwrap();
    stats.matching("grpc-web").unwrap().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// With its counters, which show what the filter has seen.
#[tokio::test]
async fn only_calls_of_grpc_web_meet_envoys_filter() {
    let envoy = Envoy::builder().edit(LEFT_OUT, "{ prefix: none. }").start().await.unwrap();
    let (grpc, rest) = (agents::grpc::start("a").unwrap(), agents::echo::start("rest").unwrap());
    let routes = json!({"routes": {"a": {"port": grpc.port(), "endpoints": {"rest": rest.port()}}}});
    assert_eq!(envoy.routes().patch_routes(&routes).await.unwrap().status, 200);
    let others = async || {
        for client in [http1(), http2()] {
            for content_type in ["text/plain", "application/json", "application/grpc-web-text", "application/grpc-web+json"] {
                for (path, id) in [(HEALTH, "a"), (HEALTH, "nobody"), (HEALTH, ""), ("/agents/a", "")] {
                    let request = client.post(format!("{}{path}", envoy.data_url())).header("x-grpc-web", "1");
                    request.header(DEPLOYMENT_ID, id).header("content-type", content_type).body(EMPTY).send().await.unwrap();
                }
            }
            client.get(envoy.data_url() + HEALTH).header(DEPLOYMENT_ID, "a").send().await.unwrap();
        }
        let mut client = harness::proto::connect(envoy.data_addr()).await.unwrap();
        client.health(harness::proto::request_to("a", Empty {}).unwrap()).await.unwrap();
        client.health(harness::proto::request_to("nobody", Empty {}).unwrap()).await.unwrap_err();
    };
    others().await;
    assert_eq!(counted(&envoy).await, []);
    for content_type in ["application/grpc-web", "application/grpc-web+proto"] {
        let seen = call(&http1(), &envoy, HEALTH, &[(DEPLOYMENT_ID, "a")], content_type).await;
        assert_eq!(seen.grpc_status, "0");
    }
    let two = counted(&envoy).await;
    let total = ("cluster.agents_http2.grpc-web.pixell.agent.AgentService.Health.total".to_owned(), 2);
    assert!(two.contains(&total), "{two:?}");
    others().await;
    assert_eq!(counted(&envoy).await, two);
}

/// Envoy never forgets a counter, and clients may name any service.
#[tokio::test]
async fn what_clients_name_leaves_no_counters() {
    let envoy = Envoy::builder().start().await.unwrap();
    let grpc = agents::grpc::start("a").unwrap();
    envoy.routes().put_all([("a", grpc.port())]).await.unwrap();
    let ask = async |number: usize| {
        for id in ["a", "nobody", ""] {
            let path = format!("/{}{number}/Z", "x".repeat(2000));
            call(&http1(), &envoy, &path, &[(DEPLOYMENT_ID, id)], "application/grpc-web").await;
        }
    };
    for number in 0..5 {
        ask(number).await;
    }
    let stats = envoy.stats().await.unwrap();
    assert_eq!(stats.matching("grpc-web|xxxx").unwrap(), []);
}

/// A client from a library.
#[tokio::test]
async fn tonic_web_calls_an_agent_by_path() {
    let envoy = Envoy::builder().start().await.unwrap();
    let grpc = agents::grpc::start("a").unwrap();
    envoy.routes().put_all([("a", grpc.port())]).await.unwrap();
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let client = |id: &str| {
        let origin = format!("{}/agents/{id}/a2a", envoy.data_url()).parse().unwrap();
        AgentServiceClient::with_origin(GrpcWebClientService::new(http.clone()), origin)
    };
    assert_eq!(client("a").health(Empty {}).await.unwrap().into_inner().message, "a");
    let failing = ActionRequest {
        action: "fail".into(),
        parameters: [("code".to_owned(), "7".to_owned())].into(),
        request_id: String::new(),
    };
    assert_eq!(client("a").invoke(failing).await.unwrap_err().code(), Code::PermissionDenied);
    let status = client("nobody").health(Empty {}).await.unwrap_err();
    let expected = (Code::NotFound, "Deployment nobody not found or not ready");
    assert_eq!((status.code(), status.message()), expected);
    assert_eq!(status.metadata().get("x-pixell-error").unwrap(), "unknown_deployment");
}

#[tokio::test]
async fn the_agent_gets_grpc() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agent::start("a", 0, agent::Version::Http2, |request| async move {
        let header = |name| request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let names = ["content-type", "te", "x-pixell-grpc-web", "x-deployment-id"].map(header);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, EMPTY);
        let mut response = Response::new(agent::whole(""));
        for (name, value) in
            [("content-type", "application/grpc"), ("grpc-status", "9"), ("grpc-message", &format!("{names:?}"))]
        {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    });
    let agent = agent.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let seen = call(&http1(), &envoy, "/agents/a/x.Y/Z", &[("x-pixell-grpc-web", "no")], "application/grpc-web").await;
    assert_eq!(seen.grpc_status, "9");
    let expected = [Some("application/grpc"), Some("trailers"), Some("1"), Some("a")].map(|name| name.map(str::to_owned));
    assert_eq!(seen.grpc_message, format!("{expected:?}"));
    let line = envoy.logged(1, |line| line["deployment_id"] == "a").await.unwrap().remove(0);
    assert_eq!((&line["grpc_status"], &line["status"]), (&"FAILED_PRECONDITION".into(), &200.into()), "{line}");
}

/// As docs/data-path.md warns: who shares a host with such an agent shares its cookies.
#[tokio::test]
async fn a_cookie_of_a_grpc_agent_passes_unchanged() {
    const COOKIE: &str = "a=1; Path=/; Domain=example.com; HttpOnly";
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agent::start("a", 0, agent::Version::Http2, |_| async {
        let mut response = Response::new(agent::whole(""));
        for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "0"), ("set-cookie", COOKIE)] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    });
    let agent = agent.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for client in [http1(), http2()] {
        for (path, id) in [("/agents/a/a2a/x.Y/Z", ""), ("/agents/a/x.Y/Z", ""), ("/x.Y/Z", "a")] {
            let request = client.post(envoy.data_url() + path).header("content-type", "application/grpc-web").body(EMPTY);
            let response = request.header(DEPLOYMENT_ID, id).send().await.unwrap();
            assert_eq!(response.headers()["set-cookie"], COOKIE, "{path}");
        }
    }
}

/// An agent that reads the request and closes the connection without a response.
fn mute() -> Agent {
    let mute = agents::raw::start("mute", |mut stream| async move {
        let mut some = [0; 64];
        stream.read(&mut some).await.map(drop)
    });
    mute.unwrap()
}

#[tokio::test]
async fn failures_are_statuses() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (grpc, gone, mute) = (agents::grpc::start("a").unwrap(), agents::grpc::start("gone").unwrap(), mute());
    let slow = agent::start("slow", 0, agent::Version::Http2, |_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Response::new(agent::whole(""))
    });
    let slow = slow.unwrap();
    let routes = json!({"routes": {
        "a": grpc.port(), "gone": gone.port(), "mute": mute.port(), "slow": slow.port(),
        "drains": {"port": 5000, "state": "draining"},
    }});
    envoy.routes().put_routes(&routes).await.unwrap();
    gone.kill();
    for client in [http1(), http2()] {
        for content_type in ["application/grpc-web+proto", "application/grpc-web"] {
            for (path, id, status, code, message) in [
                ("/", "nobody", "5", "unknown_deployment", "Deployment nobody not found or not ready"),
                ("/agents/nobody/x", "", "5", "unknown_deployment", "Deployment nobody not found or not ready"),
                ("/agents/a/-/ui/x", "", "5", "unknown_endpoint", "Deployment a has no such endpoint"),
                ("/", "", "3", "missing_deployment_id", "Missing x-deployment-id header"),
                ("/", "drains", "14", "deployment_draining", "Deployment drains is draining and takes no new requests"),
                ("/", "gone", "14", "agent_unreachable", "The agent of this deployment cannot be reached"),
                ("/agents/gone/x", "", "14", "agent_unreachable", "The agent of this deployment cannot be reached"),
                (
                    "/",
                    "mute",
                    "14",
                    "agent_closed",
                    "The agent ended the request before it responded, or its response headers exceed 1 MiB or 1000 fields",
                ),
                ("/", "slow", "4", "deadline_exceeded", "The deadline has passed before the agent responded"),
            ] {
                let mut headers = vec![(DEPLOYMENT_ID, id)];
                headers.retain(|(_, id)| !id.is_empty());
                if id == "slow" {
                    headers.push(("grpc-timeout", "300m"));
                }
                let seen = call(&client, &envoy, path, &headers, content_type).await;
                let found = (seen.grpc_status.as_str(), seen.error.as_deref(), seen.grpc_message.as_str());
                assert_eq!(found, (status, Some(code), message), "{path} {id} {content_type}");
                assert!(seen.content_type.starts_with("application/grpc-web"), "{seen:?}");
                assert_eq!(seen.message, None, "{seen:?}");
            }
        }
    }
}

/// Only the proxy sets the mark of gRPC-Web. A gRPC client that sends it gets the same rejection as without it.
#[tokio::test]
async fn a_client_of_grpc_cannot_pass_for_one_of_grpc_web() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    let expected = grpc_rejection(&envoy, "nobody").await;
    let mut client = harness::proto::connect(envoy.data_addr()).await.unwrap();
    let mut request = harness::proto::request_to("nobody", Empty {}).unwrap();
    request.metadata_mut().insert("x-pixell-grpc-web", "1".parse().unwrap());
    request.metadata_mut().insert("x-grpc-web", "1".parse().unwrap());
    let status = client.health(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (expected.0, expected.2.as_str()));
}
