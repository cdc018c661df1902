//! Agents learn the origin under which their client reached the proxy.

use bytes::Bytes;
use harness::agents::http as agent;
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy};
use http_body_util::{BodyExt, Empty};
use hyper::Response;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::access_log_level::with_settings;

/// An agent that responds with the headers that say how its client reached it.
fn echo_of_origin() -> Agent {
    let agent = agent::start("a", 0, agent::Version::Http1, |request| async move {
        // To an agent of WSGI an underscore is a hyphen, and fields of one name are one.
        let header = |name: &str| {
            let same = request.headers().iter().filter(|(own, _)| own.as_str().replace('_', "-") == name);
            let values: Vec<_> = same.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
            (!values.is_empty()).then(|| values.join(","))
        };
        let names =
            ["host", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix", "x-pixell-anything", "x-deployment-id"];
        let seen: serde_json::Map<_, _> = names.into_iter().map(|name| (name.to_owned(), json!(header(name)))).collect();
        Response::new(agent::whole(Value::Object(seen).to_string()))
    });
    agent.unwrap()
}

/// What the agent sees of a client that uses this authority and lies in all other headers.
async fn ask(envoy: &Envoy, authority: &str) -> Value {
    let lies = [
        ("x-forwarded-proto", "ftp"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-prefix", "/evil"),
        ("x-pixell-anything", "evil"),
        ("x_pixell_anything", "evil"),
        ("x_pixell-anything", "evil"),
        ("x-pixell_anything", "evil"),
        ("x_forwarded_host", "evil.test"),
        ("x-forwarded_host", "evil.test"),
        ("x_forwarded-host", "evil.test"),
        ("x_forwarded_prefix", "/evil"),
        ("x-forwarded_prefix", "/evil"),
        ("x_forwarded-prefix", "/evil"),
        ("x_deployment_id", "evil"),
        ("x-deployment_id", "evil"),
        ("x_deployment-id", "evil"),
    ];
    let request = |target: &str| {
        let request = lies.into_iter().fold(http::Request::get(target), |request, (name, value)| request.header(name, value));
        request.header(DEPLOYMENT_ID, "a").body(Empty::<Bytes>::new()).unwrap()
    };
    let stream = || async { TokioIo::new(TcpStream::connect(envoy.data_addr()).await.unwrap()) };

    let (mut client, connection) = hyper::client::conn::http1::handshake(stream().await).await.unwrap();
    tokio::spawn(connection);
    let mut over_http1 = request("/");
    over_http1.headers_mut().insert("host", authority.parse().unwrap());
    let first = body_of(client.send_request(over_http1).await.unwrap()).await;

    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream().await).await.unwrap();
    tokio::spawn(connection);
    let second = body_of(client.send_request(request(&format!("http://{authority}/"))).await.unwrap()).await;
    assert_eq!(first, second, "HTTP/1.1 and HTTP/2");
    first
}

async fn body_of(response: Response<hyper::body::Incoming>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn agents_learn_the_origin_that_their_client_used() {
    let agent = echo_of_origin();
    let origins = [("PIXELL_EXTERNAL_ORIGINS", "https://agents.test,http://plain.test:8080,https://*.hosts.test")];
    let envoy = with_settings(&origins).start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for (host, proto, forwarded_host) in [
        ("agents.test", "https", Some("agents.test")),
        ("plain.test:8080", "http", Some("plain.test:8080")),
        ("x.hosts.test", "https", Some("x.hosts.test")),
        ("other.test", "http", None),
        ("agents.test.evil", "http", None),
    ] {
        let expected = json!({
            "host": host, "x-forwarded-proto": proto, "x-forwarded-host": forwarded_host, "x-forwarded-prefix": null,
            "x-pixell-anything": null, "x-deployment-id": "a",
        });
        assert_eq!(ask(&envoy, host).await, expected, "{host}");
    }
}

#[tokio::test]
async fn without_origins_agents_learn_what_envoy_knows() {
    let agent = echo_of_origin();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    let expected = json!({
        "host": "agents.test", "x-forwarded-proto": "http", "x-forwarded-host": null, "x-forwarded-prefix": null,
        "x-pixell-anything": null, "x-deployment-id": "a",
    });
    assert_eq!(ask(&envoy, "agents.test").await, expected);
}
