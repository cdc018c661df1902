//! Clients that name their agent by path or host, and pages of other origins, through a hop: responses lead back as they do in one task.

use harness::{Agent, agents};
use http::{Method, Response};
use serde_json::{Value, json};

use crate::both::{Seen, request};
use crate::tasks::Tasks;

const APP: &str = "https://app.test";
const CARD: &str = "/.well-known/agent-card.json";

/// An agent that serves a card with interfaces on its own port and on `other`, and preflights of its own; anything else is a redirect to `x-to`
/// with cookies, whose `x-saw` tells what the agent saw.
async fn agent(tasks: &Tasks, name: &'static str, other: u16) -> Agent {
    let respond = move |request: http::Request<hyper::body::Incoming>| async move {
        let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let response =
            Response::builder().header("x-served-by", name).header("access-control-allow-origin", "https://own.test");
        let path = request.uri().path();
        let response = if path.ends_with(CARD) || path.ends_with("/agent.json") {
            let card = json!({
                "url": "http://localhost/rpc", "name": "n", "preferredTransport": "JSONRPC",
                "additionalInterfaces": [
                    {"url": format!("http://127.0.0.1:{other}/v1"), "transport": "HTTP+JSON"},
                    {"url": format!("localhost:{other}"), "transport": "GRPC"},
                    {"url": "https://elsewhere.test/x", "transport": "HTTP+JSON"},
                ],
                "supportedInterfaces": [{"url": format!("http://{}/v2", header("host")), "protocolBinding": "JSONRPC"}],
            });
            response
                .header("content-type", "application/json")
                .header("etag", "\"1\"")
                .body(agents::http::whole(card.to_string()))
        } else if request.method() == Method::OPTIONS {
            response.status(204).body(agents::http::whole(""))
        } else {
            let names = ["host", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix", "x-deployment-id", "origin"];
            let saw = names.map(|name| format!("{name}={}", header(name))).join(" ");
            let to = header("x-to").replace("{host}", &header("host"));
            let response = response.status(302).header("location", to).header("x-saw", format!("{} {saw}", request.uri()));
            let response = response.header("set-cookie", "a=1; Path=/; Domain=h.test").header("set-cookie", "b=2; HttpOnly");
            response.header("service-worker-allowed", "/").body(agents::http::whole(""))
        };
        response.unwrap()
    };
    tasks.agent(1, move || agents::http::start(name, 0, agents::http::Version::Http1, respond)).await
}

/// Two tasks with these settings; the second one has the agent `x`, with `a2a`, `rest` and `ui`.
async fn started(settings: &[(&'static str, &str)]) -> (Tasks, [Agent; 3]) {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let tasks = Tasks::with(2, move |_| settings.clone()).await;
    let a2a = agent(&tasks, "a2a", 9).await;
    let [rest, ui] = [agent(&tasks, "rest", a2a.port()).await, agent(&tasks, "ui", a2a.port()).await];
    tasks.routes(0, json!({ "drains": {"port": 5000, "state": "draining"} })).await;
    let endpoints = json!({ "rest": rest.port(), "ui": ui.port() });
    let x = json!({ "port": a2a.port(), "endpoints": endpoints });
    tasks.routes(1, json!({ "x": x, "drains": {"port": 5000, "state": "draining"} })).await;
    tasks.fleet(0, &[("x", &[1]), ("stale", &[1]), ("gone", &[2])]).await;
    tasks.fleet(1, &[("gone", &[2])]).await;
    (tasks, [a2a, rest, ui])
}

#[track_caller]
fn check(seen: &Seen, expected: [&str; 4]) {
    let headers = ["x-served-by", "location", "set-cookie", "x-saw"].map(|name| seen.header(name).unwrap_or_default());
    assert_eq!(headers, expected, "{seen:?}");
    assert_eq!(seen.status(), 302);
}

#[tokio::test]
async fn paths_and_hosts_lead_to_endpoints_and_back() {
    let origins = "https://agents.test,https://*.h.test";
    let (tasks, _agents) = started(&[("PIXELL_HOST_SUFFIX", ".h.test"), ("PIXELL_EXTERNAL_ORIGINS", origins)]).await;
    let saw = |path: &str, prefix: &str| {
        format!(
            "{path} host=agents.test x-forwarded-proto=https x-forwarded-host=agents.test x-forwarded-prefix={prefix} \
             x-deployment-id=x origin="
        )
    };
    for (prefix, served) in [("", "rest"), ("/api", "rest"), ("/ui", "ui"), ("/a2a", "a2a"), ("/-/ui", "ui"), ("/-/a2a", "a2a")]
    {
        let prefix = format!("/agents/x{prefix}");
        let asked = [("host", "agents.test"), ("x-to", "/next?a=b")];
        let seen = tasks.get_both(&format!("{prefix}/some//%2F/x?y=z"), &asked).await;
        let location = format!("{prefix}/next?a=b");
        let cookies = format!("a=1; Path={prefix} | b=2; HttpOnly; Path={prefix}/some//%2F");
        check(&seen, [served, &location, &cookies, &saw("/some//%2F/x?y=z", &prefix)]);
        assert_eq!(seen.header("service-worker-allowed"), None, "{seen:?}");
        let leads_back = format!("http://agents.test{prefix}/y");
        for (to, expected) in
            [("http://{host}/y", &*leads_back), ("https://elsewhere.test/y", "https://elsewhere.test/y"), ("y", "y")]
        {
            let seen = tasks.get_both(&format!("{prefix}/"), &[("host", "agents.test"), ("x-to", to)]).await;
            let found = seen.header("location").unwrap();
            assert_eq!(found, expected, "{to}: {seen:?}");
        }
    }
    // By host, with a port as some clients send it.
    for host in ["x.h.test", "x.H.test:443"] {
        let seen = tasks.get_both("/some/x", &[("host", host), ("x-to", "/next")]).await;
        assert_eq!((seen.header("location"), seen.header("x-served-by")), (Some("/next"), Some("rest")), "{seen:?}");
        assert_eq!(seen.header("set-cookie"), Some("a=1; Path=/ | b=2; HttpOnly"), "{seen:?}");
    }
    // By the header nothing is changed.
    let seen = tasks.get_both("/agents/x/ui", &[("x-deployment-id", "x"), ("x-to", "/next"), ("host", "x.h.test")]).await;
    assert_eq!((seen.header("location"), seen.header("service-worker-allowed")), (Some("/next"), Some("/")), "{seen:?}");
    assert_eq!(seen.header("set-cookie"), Some("a=1; Path=/; Domain=h.test | b=2; HttpOnly"));
    for (path, code) in [
        ("/agents/x/-/none/", "unknown_endpoint"),
        ("/agents/nobody/", "unknown_deployment"),
        ("/agents/%78/", "invalid_deployment_id"),
        ("/v1/routes", "missing_deployment_id"),
        ("/agents/gone/", "peer_unreachable"),
        ("/agents/drains/", "deployment_draining"),
    ] {
        let seen = tasks.get_both(path, &[]).await;
        assert_eq!(seen.header("x-pixell-error"), Some(code), "{path}: {seen:?}");
    }
}

fn urls(card: &Value) -> Vec<&str> {
    let others = card["additionalInterfaces"].as_array().unwrap().iter().chain(card["supportedInterfaces"].as_array().unwrap());
    std::iter::once(card).chain(others).map(|interface| interface["url"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn cards_lead_back_to_the_origin_that_the_client_used() {
    let origins = "https://agents.test,https://*.h.test";
    let (tasks, _agents) = started(&[("PIXELL_HOST_SUFFIX", ".h.test"), ("PIXELL_EXTERNAL_ORIGINS", origins)]).await;
    let elsewhere = "https://elsewhere.test/x";
    for (host, path, expected) in [
        (
            "agents.test",
            format!("/agents/x/api{CARD}"),
            [
                "https://agents.test/agents/x/api/rpc",
                "https://agents.test/agents/x/-/a2a/v1",
                "x.h.test:443",
                elsewhere,
                "https://agents.test/agents/x/api/v2",
            ],
        ),
        (
            "x.h.test",
            "/.well-known/agent.json".to_owned(),
            ["https://x.h.test/rpc", "https://x.h.test/agents/x/-/a2a/v1", "x.h.test:443", elsewhere, "https://x.h.test/v2"],
        ),
    ] {
        let headers = [("host", host), ("accept-encoding", "gzip"), ("if-none-match", "\"1\"")];
        let seen = tasks.get_both(&path, &headers).await;
        assert_eq!((seen.status(), seen.header("etag")), (200, None), "{seen:?}");
        assert_eq!(seen.header("cache-control"), Some("private, no-store"));
        assert_eq!(urls(&seen.json()), expected, "{seen:?}");
    }
    // An origin that is not the proxy's, or a client that names its agent by the header: the card passes.
    for headers in [&[("host", "evil.test")][..], &[("host", "agents.test"), ("x-deployment-id", "x")]] {
        let path = if headers.len() == 1 { format!("/agents/x/api{CARD}") } else { CARD.to_owned() };
        let seen = tasks.get_both(&path, headers).await;
        assert_eq!(seen.header("etag"), Some("\"1\""), "{seen:?}");
        assert_eq!(urls(&seen.json())[0], "http://localhost/rpc");
    }
}

#[tokio::test]
async fn pages_of_other_origins_read_responses_and_rejections() {
    let (tasks, _agents) = started(&[("PIXELL_CORS_ORIGINS", APP), ("PIXELL_HOST_SUFFIX", ".h.test")]).await;
    let allowed = |seen: &Seen| seen.header("access-control-allow-origin").map(str::to_owned);
    let preflight = |path: &str, origin: &str, names: &str, host: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", names),
            ("host", host),
        ];
        request("OPTIONS", path, &headers)
    };
    let seen = tasks.both(preflight("/x", APP, "x-deployment-id", "any.test")).await;
    assert_eq!(
        (seen.status(), allowed(&seen).as_deref(), seen.header("access-control-max-age")),
        (200, Some(APP), Some("600"))
    );
    let seen = tasks.both(preflight("/x", "https://evil.test", "x-deployment-id", "any.test")).await;
    assert_eq!((seen.status(), allowed(&seen)), (400, None), "{seen:?}");
    for (id, status) in [("x", 302), ("nobody", 404), ("gone", 503), ("drains", 503), ("a b", 400), ("", 400)] {
        let seen = tasks.get_both("/x", &[("origin", APP), ("x-deployment-id", id), ("x-to", "/y")]).await;
        assert_eq!((seen.status(), allowed(&seen).as_deref()), (status, Some(APP)), "{id}: {seen:?}");
        assert!(seen.header("vary").unwrap().contains("origin"), "{seen:?}");
    }
    // What the other task rejects, too. In that task itself it is unknown.
    let response = tasks.send(0, "/x", |request| request.header("origin", APP).header("x-deployment-id", "stale")).await;
    response.is_rejected("deployment_moved");
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
    // By path and host, CORS is the agent's business.
    for (path, host) in [("/agents/x/y", "any.test"), ("/y", "x.h.test")] {
        let seen = tasks.both(preflight(path, APP, "content-type", host)).await;
        assert_eq!((seen.status(), allowed(&seen).as_deref()), (204, Some("https://own.test")), "{seen:?}");
        let seen = tasks.get_both(path, &[("origin", APP), ("host", host), ("x-to", "/z")]).await;
        assert_eq!((seen.status(), allowed(&seen).as_deref()), (302, Some("https://own.test")), "{seen:?}");
    }
}
