//! The access log: what a line says about a request, field by field, for each way in which a request can end.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use harness::agents::streams;
use harness::envoy::is_native;
use harness::proto::streams::Chunk;
use harness::proto::{self, ActionRequest, DEPLOYMENT_ID, Empty};
use harness::{Agent, Envoy, agents};
use reqwest::Client;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::clients::{http1, http2};

pub(crate) const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The parts of a request's time.
const PARTS: [&str; 4] = ["proxy_request_us", "agent_us", "agent_first_byte_us", "proxy_response_us"];

pub(crate) async fn envoy_with(agents: &[&Agent]) -> Envoy {
    // These tests write more lines than the shipped rate allows.
    let envoy = Envoy::builder().log_rate(1 << 20).start().await.unwrap();
    envoy.routes().put_all(agents.iter().map(|agent| (agent.name(), agent.port()))).await.unwrap();
    envoy
}

/// The only line of the data path for `path`.
pub(crate) async fn line_of(envoy: &Envoy, path: &str) -> Value {
    envoy.logged(1, |line| line["log"] == "access" && line["path"] == path).await.unwrap().remove(0)
}

pub(crate) fn number(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("{field} is not a number in {line}"))
}

/// The response code details of the filter's own responses. A native filter has to give some, a Wasm filter gives none.
pub(crate) fn filter_details() -> &'static str {
    if is_native() { "pixell" } else { "" }
}

/// The fields of a line, unless a case says otherwise: those of a GET over HTTP/1.1, rejected, without any of the headers.
fn expected(of_case: &Value) -> Map<String, Value> {
    let details = filter_details();
    let usual = json!({
        "log": "access", "deployment_id": null, "method": "GET", "protocol": "HTTP/1.1", "grpc_status": null, "rejection": null,
        "error": null, "code_details": details, "response_flags": "-", "upstream": null, "bytes_received": 0, "user_agent": null,
        "trace_id": null, "traceparent": null,
    });
    let Value::Object(mut all) = usual else { unreachable!() };
    all.extend(of_case.as_object().unwrap().clone());
    all
}

/// Compares every field of the line for this path with the case. For fields that are measured, checks the form only. Which parts of
/// the time are `known` depends on how far the request got: all if an agent has responded, none if no agent got the request.
pub(crate) async fn check(envoy: &Envoy, path: &str, of_case: Value) -> Value {
    let line = line_of(envoy, path).await;
    let mut expected = expected(&of_case);
    expected.insert("path".into(), path.into());
    let known =
        expected.remove("known").unwrap_or_else(|| if of_case["upstream"].is_null() { json!([]) } else { json!(PARTS) });
    for (field, value) in line.as_object().unwrap() {
        match (field.as_str(), expected.remove(field)) {
            (_, Some(wanted)) => assert_eq!(*value, wanted, "{field} of {line}"),
            ("bytes_sent" | "duration_ms" | "duration_us", None) => assert!(value.is_u64(), "{field} of {line}"),
            ("time", None) => assert!(value.as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{line}"),
            ("caller", None) => assert!(value.as_str().is_some_and(|caller| caller.starts_with("127.0.0.1:")), "{line}"),
            ("request_id", None) => assert!(value.as_str().is_some_and(|id| id.len() == 36), "{line}"),
            (part, None) if PARTS.contains(&part) => {
                let known = known.as_array().unwrap().contains(&json!(part));
                assert!(if known { value.is_u64() } else { value.is_null() }, "{field} of {line}");
            }
            _ => panic!("{field} is not expected in {line}"),
        }
    }
    assert_eq!(expected, Map::new(), "missing in {line}");
    for field in PARTS.into_iter().chain(["time", "caller", "request_id", "duration_ms", "duration_us", "bytes_sent"]) {
        assert!(line.get(field).is_some(), "{field} is missing in {line}");
    }
    line
}

pub(crate) fn at(agent: &Agent) -> String {
    format!("127.0.0.1:{}", agent.port())
}

#[tokio::test]
async fn a_success() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let url = envoy.data_url() + "/some/path?token=secret";
    let request = http1().post(url).header(DEPLOYMENT_ID, "a").header("traceparent", TRACEPARENT).header("user-agent", "me/1");
    let response = request.body("12345").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let length = response.bytes().await.unwrap().len();
    let case = json!({
        "deployment_id": "a", "method": "POST", "status": 200, "code_details": "via_upstream", "upstream": at(&agent),
        "bytes_received": 5, "bytes_sent": length, "user_agent": "me/1", "traceparent": TRACEPARENT,
    });
    let line = check(&envoy, "/some/path", case).await;
    assert!(!line.to_string().contains("secret"), "a query is not logged: {line}");

    // A request id that the client sets is logged. An `x-pixell-error` that an agent sets is not.
    let agent = agents::raw::start("own words", |mut stream| async move {
        stream.read_u8().await?;
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx-pixell-error: made_up\r\n\r\n").await
    });
    let agent = agent.unwrap();
    envoy.routes().put_all([("own", agent.port())]).await.unwrap();
    let request = http1().get(envoy.data_url() + "/own").header(DEPLOYMENT_ID, "own").header("x-request-id", "number 7");
    assert_eq!(request.send().await.unwrap().status(), 404);
    let case = json!({
        "deployment_id": "own", "status": 404, "code_details": "via_upstream", "upstream": at(&agent), "bytes_sent": 0,
        "error": null, "request_id": "number 7",
    });
    check(&envoy, "/own", case).await;
}

#[tokio::test]
async fn a_rejection() {
    let envoy = envoy_with(&[]).await;
    let draining = json!({"routes": {"leaving": {"port": 5000, "state": "draining"}}});
    envoy.routes().put_routes(&draining).await.unwrap();
    for (path, id, status, code) in [
        ("/missing", None, 400, "missing_deployment_id"),
        ("/invalid", Some("two words"), 400, "invalid_deployment_id"),
        ("/unknown", Some("nobody"), 404, "unknown_deployment"),
        ("/leaving", Some("leaving"), 503, "deployment_draining"),
    ] {
        let mut request = http2().get(envoy.data_url() + path);
        if let Some(id) = id {
            request = request.header(DEPLOYMENT_ID, id);
        }
        let length = request.send().await.unwrap().bytes().await.unwrap().len();
        let case = json!({
            "deployment_id": id, "protocol": "HTTP/2", "status": status, "rejection": code, "error": code, "bytes_sent": length,
        });
        check(&envoy, path, case).await;
    }
}

#[tokio::test]
async fn a_grpc_call() {
    let agent = agents::grpc::start("g").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    let user_agent = "tonic/".to_owned() + "0.14.9";
    let grpc = |case: Value| {
        let mut all = json!({"method": "POST", "protocol": "HTTP/2", "status": 200, "user_agent": user_agent});
        all.as_object_mut().unwrap().extend(case.as_object().unwrap().clone());
        all
    };
    client.health(proto::request_to("g", Empty {}).unwrap()).await.unwrap();
    let case = json!({
        "deployment_id": "g", "grpc_status": "OK", "code_details": "via_upstream", "upstream": at(&agent), "bytes_received": 5,
    });
    check(&envoy, "/pixell.agent.AgentService/Health", grpc(case)).await;

    let parameters = [("code".to_owned(), "7".to_owned())].into();
    let failing = ActionRequest { action: "fail".into(), parameters, request_id: String::new() };
    client.invoke(proto::request_to("g", failing).unwrap()).await.unwrap_err();
    let case = json!({
        "deployment_id": "g", "grpc_status": "PERMISSION_DENIED", "code_details": "via_upstream", "upstream": at(&agent),
        "bytes_received": 22, "bytes_sent": 0,
    });
    check(&envoy, "/pixell.agent.AgentService/Invoke", grpc(case)).await;

    client.ping(proto::request_to("nobody", Empty {}).unwrap()).await.unwrap_err();
    let case = json!({
        "deployment_id": "nobody", "grpc_status": "NOT_FOUND", "rejection": "unknown_deployment", "error": "unknown_deployment",
        "bytes_sent": 0, "duration_us": null,
    });
    check(&envoy, "/pixell.agent.AgentService/Ping", grpc(case)).await;

    // A stream gets one line, when it ends.
    let (talker, _) = streams::start("talker").unwrap();
    envoy.routes().patch_routes(&json!({"routes": {"talker": talker.port()}})).await.unwrap();
    let mut client = streams::connect(envoy.data_addr()).await.unwrap();
    let many = Chunk { number: 10, data: vec![1; 100] };
    let mut stream = client.download(proto::request_to("talker", many).unwrap()).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let case = json!({
        "deployment_id": "talker", "grpc_status": "OK", "code_details": "via_upstream", "upstream": at(&talker),
        "bytes_received": 109,
    });
    let line = check(&envoy, "/pixell.test.Streams/Download", grpc(case)).await;
    assert!(number(&line, "bytes_sent") > 1000, "{line}");
}

/// Server-sent events: a line when the stream ends. It has the time to the first event and that of the whole stream.
#[tokio::test]
async fn server_sent_events() {
    const PAUSE: Duration = Duration::from_millis(100);
    static CHECKED: Notify = Notify::const_new();
    let agent = agents::raw::start("sse", |mut stream| async move {
        stream.read_u8().await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        for _ in 0..3 {
            stream.write_all(b"9\r\ndata: 1\n\n\r\n").await?;
            tokio::time::sleep(PAUSE).await;
        }
        CHECKED.notified().await;
        stream.write_all(b"0\r\n\r\n").await
    });
    let agent = agent.unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let request = http2().get(envoy.data_url() + "/events").header(DEPLOYMENT_ID, "sse").header("accept", "text/event-stream");
    let mut events = request.send().await.unwrap().bytes_stream();
    events.next().await.unwrap().unwrap();
    assert!(envoy.access_log().unwrap().iter().all(|line| line["path"] != "/events"), "a line before the end");
    CHECKED.notify_one();
    while let Some(event) = events.next().await {
        event.unwrap();
    }
    let case = json!({
        "deployment_id": "sse", "protocol": "HTTP/2", "status": 200, "code_details": "via_upstream", "upstream": at(&agent),
        "bytes_sent": 27,
    });
    let line = check(&envoy, "/events", case).await;
    let whole = u64::try_from(PAUSE.as_micros() * 3).unwrap();
    assert!(number(&line, "agent_us") >= whole && number(&line, "duration_us") >= whole, "{line}");
    assert!(number(&line, "agent_first_byte_us") < number(&line, "agent_us") - whole / 2, "{line}");
}

#[tokio::test]
async fn writes_to_the_map_are_logged_and_polls_are_not() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = envoy.routes();
    api.put_all([("a", 5000)]).await.unwrap();
    api.put_routes(&json!({"routes": {"a": 1}})).await.unwrap();
    for path in ["/", "/ready", "/stats", "/v1/status", "/v1/routes"] {
        assert_eq!(api.get(path).await.unwrap().status, 200);
    }
    let lines = envoy.logged(2, |line| line["log"] == "route_api").await.unwrap();
    let found: Vec<_> = lines.iter().map(|line| [&line["method"], &line["path"], &line["status"], &line["refusal"]]).collect();
    assert_eq!(
        found,
        [
            [&json!("PUT"), &json!("/v1/routes"), &json!(200), &Value::Null],
            [&json!("PUT"), &json!("/v1/routes"), &json!(422), &json!("invalid_routes")],
        ]
    );
    let etag = lines[0]["etag"].as_str().unwrap();
    assert!(etag.ends_with("-1\""), "it has the generation: {etag}");
    // The line of a poll would come before that of a later write on the same connection, because one worker writes both.
    api.delete_route("a").await.unwrap();
    envoy.logged(1, |line| line["method"] == "DELETE").await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        assert_eq!(envoy.access_log().unwrap().len(), 3, "polls are not logged");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A client for tests to which its protocol does not matter.
pub(crate) fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}
