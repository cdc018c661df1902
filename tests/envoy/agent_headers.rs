//! Agents cannot set `x-pixell-*`, which are the proxy's own headers. All other headers pass.

use harness::agents::{self, http as agent};
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy};
use hyper::Response;

use crate::clients::{http1, http2};

const FORGED: [&str; 4] = ["x-pixell-error", "x-pixell-misdirected", "x-pixell-anything", "X-Pixell-Error"];
const PASSING: [&str; 4] = ["x-envoy-upstream-service-time", "x-envoy-overloaded", "x-pixel-error", "xpixell-error"];

/// An agent that responds with this status and all of these headers.
fn forging(status: u16) -> Agent {
    let agent = agent::start("a", 0, agent::Version::Http1, move |_| async move {
        let mut response = Response::builder().status(status);
        for name in FORGED.into_iter().chain(PASSING) {
            response = response.header(name, "the agent's");
        }
        response.body(agent::whole("body")).unwrap()
    });
    agent.unwrap()
}

#[tokio::test]
async fn an_agent_cannot_forge_a_reason() {
    let agents = [200, 404, 503].map(|status| (format!("s{status}"), forging(status)));
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all(agents.iter().map(|(id, agent)| (id.as_str(), agent.port()))).await.unwrap();
    for client in [http1(), http2()] {
        for (id, _) in &agents {
            let response = client.get(envoy.data_url()).header(DEPLOYMENT_ID, id).send().await.unwrap();
            assert_eq!(format!("s{}", response.status().as_u16()), *id);
            for name in FORGED {
                assert!(!response.headers().contains_key(name), "{name}");
            }
            for name in PASSING {
                assert_eq!(response.headers()[name], "the agent's", "{name}");
            }
            assert_eq!(response.text().await.unwrap(), "body");
        }
        // The proxy's own reason arrives.
        let response = client.get(envoy.data_url()).header(DEPLOYMENT_ID, "nobody").send().await.unwrap();
        assert_eq!(response.headers()["x-pixell-error"], "unknown_deployment");
    }
}

/// In trailers, too: there, a gRPC client would read it as metadata of the status.
#[tokio::test]
async fn an_agent_cannot_forge_a_reason_in_trailers() {
    let agent = agents::raw::start("a", |stream| async move {
        let mut connection = h2::server::handshake(stream).await.map_err(std::io::Error::other)?;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let head = http::Response::builder().header("content-type", "application/grpc");
            let ends = [("grpc-status", "14"), ("x-pixell-error", "agent_unreachable"), ("x-trailer", "passes")];
            if request.uri().path() == "/only" {
                let head = ends.into_iter().fold(head, |head, (name, value)| head.header(name, value));
                respond.send_response(head.body(()).unwrap(), true).map_err(std::io::Error::other)?;
            } else {
                let mut body = respond.send_response(head.body(()).unwrap(), false).map_err(std::io::Error::other)?;
                body.send_data(bytes::Bytes::from_static(&[0; 5]), false).map_err(std::io::Error::other)?;
                let ends = ends.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
                body.send_trailers(http::HeaderMap::from_iter(ends)).map_err(std::io::Error::other)?;
            }
        }
        Ok(())
    });
    let agent = agent.unwrap();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for path in ["/only", "/after-a-message"] {
        let stream = tokio::net::TcpStream::connect(envoy.data_addr()).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://h{path}"));
        let request = request.header(DEPLOYMENT_ID, "a").header("content-type", "application/grpc").body(()).unwrap();
        let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        while body.data().await.is_some() {}
        let ends = if path == "/only" { head.headers } else { body.trailers().await.unwrap().unwrap() };
        assert_eq!((&ends["grpc-status"], &ends["x-trailer"]), (&"14".parse().unwrap(), &"passes".parse().unwrap()), "{path}");
        assert!(!ends.contains_key("x-pixell-error"), "{path}");
    }
}
