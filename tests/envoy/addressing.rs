//! How a request names its agent, and what the agent receives.

use harness::proto::{AgentServiceClient, Empty};
use harness::{Envoy, agents};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::access_log::line_of;
use crate::access_log_level::with_settings;
use crate::clients::http1;

/// What an agent that echoes received: path and headers.
async fn received(envoy: &Envoy, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut request = http1().get(format!("{}{path}", envoy.data_url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, body) = (response.status().as_u16(), response.text().await.unwrap());
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// The values of a header that the agent received.
fn header<'e>(echo: &'e Value, name: &str) -> Vec<&'e str> {
    let headers = echo["headers"].as_array().unwrap();
    headers.iter().filter(|header| header[0] == name).map(|header| header[1].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_path_names_the_agent_and_its_endpoint() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (a2a, rest) = (agents::echo::start("a2a").unwrap(), agents::echo::start("rest").unwrap());
    let routes = json!({"routes": {"a": {"port": a2a.port(), "endpoints": {"rest": rest.port()}}}});
    assert_eq!(envoy.routes().patch_routes(&routes).await.unwrap().status, 200);
    for (path, agent, forwarded, prefix) in [
        ("/agents/a/a2a/x?y=1", "a2a", "/x?y=1", "/agents/a/a2a"),
        ("/agents/a/api", "rest", "/", "/agents/a/api"),
        ("/agents/a/ui?q", "rest", "/?q", "/agents/a/ui"),
        ("/agents/a/x", "rest", "/x", "/agents/a"),
        ("/agents/a/-/a2a/agents/b", "a2a", "/agents/b", "/agents/a/-/a2a"),
    ] {
        let (status, echo) = received(&envoy, path, &[]).await;
        assert_eq!((status, &echo["agent"], &echo["path"]), (200, &agent.into(), &forwarded.into()), "{path}: {echo}");
        assert_eq!(header(&echo, "x-forwarded-prefix"), [prefix], "{echo}");
        assert_eq!(header(&echo, "x-deployment-id"), ["a"], "{echo}");
    }
    let (status, problem) = received(&envoy, "/agents/a/-/ui", &[]).await;
    assert_eq!((status, &problem["code"]), (404, &"unknown_endpoint".into()));
    let (status, echo) = received(&envoy, "/agents/b/a2a", &[("x-deployment-id", "a")]).await;
    assert_eq!((status, &echo["agent"], &echo["path"]), (200, &"rest".into(), &"/agents/b/a2a".into()), "{echo}");
}

/// A client of gRPC with a base path.
#[tokio::test]
async fn a_path_names_the_endpoint_of_a_grpc_call() {
    let envoy = Envoy::builder().start().await.unwrap();
    let (grpc, rest) = (agents::grpc::start("a").unwrap(), agents::echo::start("rest").unwrap());
    let routes = json!({"routes": {"a": {"port": grpc.port(), "endpoints": {"rest": rest.port()}}}});
    assert_eq!(envoy.routes().patch_routes(&routes).await.unwrap().status, 200);
    let channel = Endpoint::new(envoy.data_url()).unwrap().connect().await.unwrap();
    let health = async |base: &str| {
        let origin = format!("{}{base}", envoy.data_url()).parse().unwrap();
        AgentServiceClient::with_origin(channel.clone(), origin).health(Empty {}).await
    };
    for base in ["/agents/a", "/agents/a/a2a", "/agents/a/-/a2a"] {
        assert_eq!(health(base).await.unwrap().into_inner().message, "a", "{base}");
    }
    for (base, code, reason, message) in [
        ("/agents/a/-/ui", Code::NotFound, "unknown_endpoint", "Deployment a has no such endpoint"),
        ("/agents/b/a2a", Code::NotFound, "unknown_deployment", "Deployment b not found or not ready"),
        ("/agents/%61/a2a", Code::InvalidArgument, "invalid_deployment_id", "Invalid x-deployment-id header"),
        ("", Code::InvalidArgument, "missing_deployment_id", "Missing x-deployment-id header"),
    ] {
        let status = health(base).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message), "{base}");
        assert_eq!(status.metadata().get("x-pixell-error").unwrap(), reason, "{base}");
    }
}

#[tokio::test]
async fn the_images_settings_say_what_names_the_agent() {
    let (a2a, ui) = (agents::echo::start("a2a").unwrap(), agents::echo::start("ui").unwrap());
    let settings = [
        ("PIXELL_ID_HEADERS", "x-agent"),
        ("PIXELL_PATH_PREFIXES", "/a/{id} ui strip=false"),
        ("PIXELL_HOST_SUFFIX", ".h.test"),
    ];
    let envoy = with_settings(&settings).start().await.unwrap();
    let routes = json!({"routes": {"a": {"port": a2a.port(), "endpoints": {"ui": ui.port()}}}});
    assert_eq!(envoy.routes().patch_routes(&routes).await.unwrap().status, 200);
    for (path, headers, agent) in [
        ("/x", &[("x-agent", "a")][..], "a2a"),
        ("/a/a/x", &[], "ui"),
        ("/x", &[("host", "a.h.test")], "a2a"),
        ("/a/a/x", &[("x-deployment-id", "b"), ("host", "b.h.test")], "ui"),
    ] {
        let (status, echo) = received(&envoy, path, headers).await;
        assert_eq!((status, &echo["agent"], &echo["path"]), (200, &agent.into(), &path.into()), "{echo}");
        assert_eq!((header(&echo, "x-deployment-id"), header(&echo, "x-forwarded-prefix")), (vec!["a"], vec![]), "{echo}");
    }
    for (path, headers) in [("/agents/a", &[][..]), ("/x", &[("x-deployment-id", "a")]), ("/x", &[("deployment_id", "a")])] {
        let (status, problem) = received(&envoy, path, headers).await;
        assert_eq!((status, &problem["code"]), (400, &"missing_deployment_id".into()), "{path}");
    }
}

/// For gateways that authorise by path: no header of the client's leads anywhere, or gets to the agent or into the log.
#[tokio::test]
async fn without_id_headers_none_names_the_agent() {
    let (a, b) = (agents::echo::start("a").unwrap(), agents::echo::start("b").unwrap());
    let envoy = with_settings(&[("PIXELL_ID_HEADERS", "none")]).start().await.unwrap();
    envoy.routes().put_all([("a", a.port()), ("b", b.port())]).await.unwrap();
    let lies = [("x-deployment-id", "b"), ("deployment-id", "b"), ("deployment_id", "b")];
    let (status, echo) = received(&envoy, "/agents/a/x", &lies).await;
    assert_eq!((status, &echo["agent"]), (200, &"a".into()));
    assert_eq!(header(&echo, "x-deployment-id"), ["a"], "{echo}");
    let (status, problem) = received(&envoy, "/nameless", &lies).await;
    assert_eq!((status, &problem["code"]), (400, &"missing_deployment_id".into()));
    let line = line_of(&envoy, "/nameless").await;
    assert!(line["deployment_id"].is_null() || line["deployment_id"] == "", "{line}");
}

/// Whatever names the agent, whether it gets the request or not.
#[tokio::test]
async fn the_log_names_the_agent_however_it_was_addressed() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = with_settings(&[("PIXELL_HOST_SUFFIX", ".h.test")]).log_rate(1 << 20).start().await.unwrap();
    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for id in ["a", "nobody"] {
        let ways = [
            (format!("/agents/{id}/by-path-{id}"), vec![]),
            (format!("/by-header-{id}"), vec![("x-deployment-id", id.to_owned())]),
            (format!("/by-alias-{id}"), vec![("deployment_id", id.to_owned())]),
            (format!("/by-host-{id}"), vec![("host", format!("{id}.h.test"))]),
        ];
        for (path, headers) in ways {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let (status, _) = received(&envoy, &path, &headers).await;
            assert_eq!(status, if id == "a" { 200 } else { 404 }, "{path}");
            let end = path.rsplit('/').next().unwrap();
            let ends = |line: &Value| line["path"].as_str().is_some_and(|path| path.ends_with(end));
            let line = envoy.logged(1, ends).await.unwrap().remove(0);
            assert_eq!(line["deployment_id"], id, "{line}");
        }
    }
}

/// There is no list of agents: nothing in the response depends on the map.
#[tokio::test]
async fn the_directory_of_agents_reveals_nothing() {
    let agent = agents::echo::start("a").unwrap();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([]).await.unwrap();
    let ask = async || {
        let mut seen = Vec::new();
        for path in ["/agents/", "/agents", "/agents/?x", "/agents//", "/"] {
            seen.push(received(&envoy, path, &[]).await);
        }
        seen
    };
    let empty = ask().await;
    let routes = json!({"routes": {"secret": {"port": agent.port(), "endpoints": {"ui": 5000}}}});
    assert_eq!(envoy.routes().patch_routes(&routes).await.unwrap().status, 200);
    assert_eq!(ask().await, empty);
    for (status, problem) in empty {
        assert_eq!(status, 400, "{problem}");
    }
}
