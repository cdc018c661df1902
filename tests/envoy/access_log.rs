//! The access log: what a line tells, that no header can break one, and how much is logged.

use std::time::{Duration, Instant};

use harness::proto::{self, ActionRequest, DEPLOYMENT_ID, Empty};
use harness::{Agent, Envoy, agents};
use reqwest::Client;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

async fn envoy_with(agents: &[&Agent]) -> Envoy {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all(agents.iter().map(|agent| (agent.name(), agent.port()))).await.unwrap();
    envoy
}

/// The one line of the data path whose path is `path`.
async fn line_of(envoy: &Envoy, path: &str) -> Value {
    envoy.logged(1, |line| line["log"] == "access" && line["path"] == path).await.unwrap().remove(0)
}

fn number(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("{field} is no number in {line}"))
}

#[tokio::test]
async fn a_line_tells_all_about_a_request() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let url = envoy.data_url() + "/some/path?token=secret";
    let request = client().post(url).header(DEPLOYMENT_ID, "a").header("traceparent", TRACEPARENT).header("user-agent", "me/1");
    assert_eq!(request.body("12345").send().await.unwrap().status(), 200);

    let line = line_of(&envoy, "/some/path").await;
    for (field, expected) in [
        ("deployment_id", json!("a")),
        ("method", json!("POST")),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("grpc_status", Value::Null),
        ("rejection", Value::Null),
        ("code_details", json!("via_upstream")),
        ("upstream", json!(format!("127.0.0.1:{}", agent.port()))),
        ("bytes_received", json!(5)),
        ("response_flags", json!("-")),
        ("user_agent", json!("me/1")),
        ("traceparent", json!(TRACEPARENT)),
    ] {
        assert_eq!(line[field], expected, "{field} of {line}");
    }
    assert!(number(&line, "bytes_sent") > 0);
    assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 36), "{line}");
    assert!(line["caller"].as_str().is_some_and(|caller| caller.starts_with("127.0.0.1:")), "{line}");
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 24), "{line}");
    assert!(!line.to_string().contains("secret"), "a query is not logged: {line}");
}

/// The agent's time and the proxy's are told apart, and together they are the whole.
#[tokio::test]
async fn the_agents_time_is_told_from_the_proxys() {
    const SLOW: Duration = Duration::from_millis(300);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = tokio::spawn(async move {
        let (mut caller, _) = listener.accept().await.unwrap();
        let read = caller.read(&mut [0; 4096]).await.unwrap();
        assert!(read > 0);
        tokio::time::sleep(SLOW).await;
        caller.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-pixell-error: made_up\r\n\r\nok").await.unwrap();
    });
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("slow", port)]).await.unwrap();
    client().get(envoy.data_url() + "/slow").header(DEPLOYMENT_ID, "slow").send().await.unwrap();
    agent.await.unwrap();

    let line = line_of(&envoy, "/slow").await;
    let [total, before, agent, first_byte, after] =
        ["duration_us", "proxy_request_us", "agent_us", "agent_first_byte_us", "proxy_response_us"]
            .map(|field| number(&line, field));
    let slow = u64::try_from(SLOW.as_micros()).unwrap();
    assert!(agent >= slow && first_byte >= slow && first_byte <= agent, "{line}");
    assert!(before + after < slow, "the proxy is not blamed for the agent: {line}");
    assert!(total.abs_diff(before + agent + after) <= 3, "the parts are the whole, but for rounding: {line}");
    assert_eq!(line["rejection"], Value::Null, "an agent cannot make up a rejection: {line}");
}

#[tokio::test]
async fn refusals_and_failures_say_why() {
    let grpc = agents::grpc::start("g").unwrap();
    let gone = agents::echo::start("gone").unwrap();
    let envoy = envoy_with(&[&grpc, &gone]).await;
    gone.kill();
    let http = client();
    http.get(envoy.data_url() + "/missing").send().await.unwrap();
    http.get(envoy.data_url() + "/unknown").header(DEPLOYMENT_ID, "nobody").send().await.unwrap();
    http.get(envoy.data_url() + "/gone").header(DEPLOYMENT_ID, "gone").send().await.unwrap();
    let mut client = proto::connect(envoy.data_addr()).await.unwrap();
    client.ping(proto::request_to("nobody", Empty {}).unwrap()).await.unwrap_err();
    let parameters = [("code".to_owned(), "7".to_owned())].into();
    let failing = ActionRequest { action: "fail".into(), parameters, request_id: String::new() };
    client.invoke(proto::request_to("g", failing).unwrap()).await.unwrap_err();

    let check = async |path: &str, expected: [(&str, Value); 4]| {
        let line = line_of(&envoy, path).await;
        for (field, value) in expected {
            assert_eq!(line[field], value, "{field} of {line}");
        }
    };
    let refused = |code: &str, status: u16, grpc: Value| {
        [("rejection", json!(code)), ("status", json!(status)), ("grpc_status", grpc), ("upstream", Value::Null)]
    };
    check("/missing", refused("missing_deployment_id", 400, Value::Null)).await;
    check("/unknown", refused("unknown_deployment", 404, Value::Null)).await;
    check("/pixell.agent.AgentService/Ping", refused("unknown_deployment", 200, json!("NOT_FOUND"))).await;
    let unreachable = [
        ("rejection", Value::Null),
        ("status", json!(503)),
        ("response_flags", json!("URX,UF")),
        ("upstream", json!(format!("127.0.0.1:{}", envoy_port(&envoy, "gone").await))),
    ];
    check("/gone", unreachable).await;
    let failed = [
        ("rejection", Value::Null),
        ("status", json!(200)),
        ("grpc_status", json!("PERMISSION_DENIED")),
        ("code_details", json!("via_upstream")),
    ];
    check("/pixell.agent.AgentService/Invoke", failed).await;
}

async fn envoy_port(envoy: &Envoy, id: &str) -> u64 {
    envoy.routes().route(id).await.unwrap().json().unwrap()["port"].as_u64().unwrap()
}

/// Every byte that a header can carry, in every header that is logged, and in a request that is none.
#[tokio::test]
async fn hostile_bytes_break_no_line() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let http = client();
    let mut hostile: Vec<Vec<u8>> = (1..=255_u8).map(|byte| vec![b'a', byte, b'"', byte]).collect();
    hostile.extend([
        br#""},{"log":"access","#.to_vec(),
        b"\\".repeat(300),
        b"\xe2\x80\xa8\xf0\x9f\x92\xa9\xed\xa0\x80".to_vec(),
        b"%REQ(authorization)% %START_TIME%".to_vec(),
        // Cut off in the middle of a character.
        "ä".repeat(4000).into_bytes(),
    ]);
    let mut sent = 0;
    for value in &hostile {
        // What is no header at all (line breaks, NUL) does not get past this client; it is sent below.
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        let mut request = http.get(envoy.data_url() + "/hostile");
        for name in [DEPLOYMENT_ID, "user-agent", "x-request-id", "traceparent", "x-forwarded-for", "content-type"] {
            request = request.header(name, value.clone());
        }
        request.send().await.unwrap();
        sent += 1;
    }
    assert!(sent > 200, "{sent}");
    let raw: &[&[u8]] = &[
        b"GET /raw\"\\\xff\x01 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /raw HTTP/1.1\r\nhost: x\r\nx-deployment-id: a\r\n {\"log\":\"access\"}\r\n\r\n",
        b"GET /raw HTTP/1.1\r\nhost: x\r\nx-deployment-id: a\x00\n{\"log\":\"access\"}\n\r\n\r\n",
        b"B\"AD /raw HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\xff\xfe{}\n\n\r\n",
    ];
    for bytes in raw {
        let mut stream = tokio::net::TcpStream::connect(envoy.data_addr()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    }
    http.get(envoy.data_url() + "/last").header(DEPLOYMENT_ID, "a").send().await.unwrap();
    line_of(&envoy, "/last").await;
    // Reading the log parses every line of it.
    let lines = envoy.logged(sent, |line| line["path"] == "/hostile").await.unwrap();
    assert_eq!(lines.len(), sent, "a request is a line");
    let quoted = lines.iter().filter(|line| line["user_agent"].as_str().is_some_and(|agent| agent.contains('"')));
    assert!(quoted.count() > 200);
}

/// The lines about id `a`, once those of everything that `http` has asked are written: its requests go over one connection, and so
/// by one worker, whose lines keep their order.
async fn lines_of(envoy: &Envoy, http: &Client) -> Vec<Value> {
    let marks = |lines: Vec<Value>| lines.iter().filter(|line| line["path"] == "/no-id").count();
    let before = marks(envoy.access_log().unwrap());
    http.get(envoy.data_url() + "/no-id").send().await.unwrap().bytes().await.unwrap();
    envoy.logged(before + 1, |line| line["path"] == "/no-id").await.unwrap();
    envoy.access_log().unwrap().into_iter().filter(|line| line["deployment_id"] == "a").collect()
}

async fn ask(envoy: &Envoy, http: &Client, times: usize) {
    for _ in 0..times {
        let answer = http.get(envoy.data_url() + "/ok").header(DEPLOYMENT_ID, "a").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        // Only a connection whose answer was read is used again.
        answer.bytes().await.unwrap();
    }
}

#[tokio::test]
async fn successes_are_sampled_and_failures_always_logged() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = envoy_with(&[&agent]).await;
    let set = async |full: u32, brief: u32| {
        let path = format!("/runtime_modify?pixell.access_log.full={full}&pixell.access_log.brief={brief}");
        envoy.admin_post(&path).await.unwrap();
    };
    let http = client();
    ask(&envoy, &http, 3).await;
    assert_eq!(lines_of(&envoy, &http).await.len(), 3);

    // Nothing of what goes well; the request without an id, by which the test knows that it waited long enough, is a failure.
    set(0, 0).await;
    ask(&envoy, &http, 20).await;
    assert_eq!(lines_of(&envoy, &http).await.len(), 3);

    set(0, 100).await;
    ask(&envoy, &http, 5).await;
    let lines = lines_of(&envoy, &http).await;
    assert_eq!(lines.len(), 8);
    let brief = lines.last().unwrap();
    let mut fields: Vec<_> = brief.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["deployment_id", "duration_us", "grpc_status", "log", "request_id", "status", "time"]);
    let failures: Vec<_> = envoy.access_log().unwrap().into_iter().filter(|line| line["rejection"].is_string()).collect();
    assert_eq!(failures.len(), 3, "a failure is logged once, and in full");

    set(50, 0).await;
    ask(&envoy, &http, 400).await;
    let sampled = lines_of(&envoy, &http).await.len() - 8;
    // Six standard deviations (of 10) to either side.
    assert!((140..=260).contains(&sampled), "{sampled} of 400");
}

#[tokio::test]
async fn writes_to_the_map_are_logged_and_polls_are_not() {
    let envoy = Envoy::builder().start().await.unwrap();
    let api = envoy.routes();
    api.put_all([("a", 5000)]).await.unwrap();
    api.put_routes(&json!({"routes": {"a": 1}})).await.unwrap();
    for path in ["/ready", "/stats", "/v1/status", "/v1/routes"] {
        assert_eq!(api.get(path).await.unwrap().status, 200);
    }
    let lines = envoy.logged(2, |line| line["log"] == "route_api").await.unwrap();
    let told: Vec<_> = lines.iter().map(|line| [&line["method"], &line["path"], &line["status"], &line["refusal"]]).collect();
    assert_eq!(
        told,
        [
            [&json!("PUT"), &json!("/v1/routes"), &json!(200), &Value::Null],
            [&json!("PUT"), &json!("/v1/routes"), &json!(422), &json!("invalid_routes")],
        ]
    );
    let etag = lines[0]["etag"].as_str().unwrap();
    assert!(etag.ends_with("-1\""), "it tells the generation: {etag}");
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        assert_eq!(envoy.access_log().unwrap().len(), 2, "polls are not logged");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
