//! Settings that meet: prefixes and a host suffix of one's own, external origins, CORS, a fallback port.

use harness::agents::http as agent;
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy, EnvoyBuilder};
use hyper::Response;
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::access_log_level::with_settings;

const CARD: &str = "/.well-known/agent-card.json";
const APP: &str = "https://app.test";

/// An agent that serves a card, whose interfaces are on its own port and on `{other}`, responds to preflights itself, and otherwise redirects to
/// where its client says in `x-to`. `{own}` stands for its own address, `{host}` for the authority that it received.
fn agent(name: &'static str, other: u16) -> Agent {
    let agent = agent::start(name, 0, agent::Version::Http1, move |request| async move {
        let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
        let own = "http://localhost";
        let response = Response::builder().header("x-served-by", name).header("x-saw", header("x-forwarded-proto"));
        let response = if request.uri().path().ends_with(CARD) {
            let card = json!({
                "url": format!("{own}/rpc"), "preferredTransport": "JSONRPC",
                "additionalInterfaces": [
                    {"url": format!("http://127.0.0.1:{other}/v1"), "transport": "HTTP+JSON"},
                    {"url": format!("localhost:{other}"), "transport": "GRPC"},
                ],
                "supportedInterfaces": [{"url": format!("http://{}/v2", header("host")), "protocolBinding": "JSONRPC"}],
            });
            response.header("content-type", "application/json").body(agent::whole(card.to_string()))
        } else if request.method() == Method::OPTIONS {
            response.status(204).header("access-control-allow-origin", "https://own.test").body(agent::whole(""))
        } else {
            let to = header("x-to").replace("{host}", header("host"));
            response.status(302).header("location", to).header("x-path", request.uri().to_string()).body(agent::whole(""))
        };
        response.unwrap()
    });
    agent.unwrap()
}

/// An agent `x` behind Envoy, with `a2a` and `rest`.
struct Setup {
    envoy: Envoy,
    a2a: Agent,
    rest: Agent,
}

/// What a client sees: status, Location, and which endpoint served it under which path.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    location: Option<String>,
    served: String,
    allowed_origin: Option<String>,
}

impl Setup {
    async fn start(builder: EnvoyBuilder) -> Self {
        Self::behind(builder.start().await.unwrap()).await
    }

    /// Starts the agent behind this Envoy.
    async fn behind(envoy: Envoy) -> Self {
        let a2a = agent("a2a", 9);
        let rest = agent("rest", a2a.port());
        let routes = json!({"routes": {"x": {"port": a2a.port(), "endpoints": {"rest": rest.port()}}}});
        assert_eq!(envoy.routes().put_routes(&routes).await.unwrap().status, 200);
        Self { envoy, a2a, rest }
    }

    /// The URL of a path on a host that both protocols take as the authority.
    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.envoy.data_addr().port())
    }

    /// Clients of HTTP/1.1 and of HTTP/2 that know only this host, and follow no redirect.
    fn clients(&self, host: &str) -> [Client; 2] {
        let client = || Client::builder().no_proxy().redirect(Policy::none()).resolve(host, self.envoy.data_addr());
        [client().http1_only().build().unwrap(), client().http2_prior_knowledge().build().unwrap()]
    }

    /// Sends a request by both protocols; both must see the same.
    async fn ask(&self, method: Method, host: &str, path: &str, headers: &[(&str, &str)]) -> Seen {
        let mut seen = Vec::new();
        for client in self.clients(host) {
            let request = client.request(method.clone(), self.url(host, path));
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let response = request.send().await.unwrap();
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let served = ["x-served-by", "x-path", "x-saw"].iter().filter_map(|name| header(name)).collect::<Vec<_>>();
            seen.push(Seen {
                status: response.status().as_u16(),
                location: header("location"),
                served: served.join(" "),
                allowed_origin: header("access-control-allow-origin"),
            });
        }
        assert_eq!(seen[0], seen[1], "HTTP/1.1 and HTTP/2");
        seen.remove(0)
    }

    async fn location(&self, host: &str, path: &str, to: &str) -> String {
        let seen = self.ask(Method::GET, host, path, &[("x-to", to)]).await;
        assert_eq!(seen.status, 302, "{path} {seen:?}");
        seen.location.unwrap()
    }

    /// The URLs of a card: the agent's own, then those of `HTTP+JSON`, `GRPC` and version 1.0.
    async fn card(&self, host: &str, path: &str) -> [String; 4] {
        let mut seen = Vec::new();
        for client in self.clients(host) {
            let card: Value = client.get(self.url(host, path)).send().await.unwrap().json().await.unwrap();
            let others = &card["additionalInterfaces"];
            let urls = [&card["url"], &others[0]["url"], &others[1]["url"], &card["supportedInterfaces"][0]["url"]];
            seen.push(urls.map(|url| url.as_str().unwrap().to_owned()));
        }
        assert_eq!(seen[0], seen[1], "HTTP/1.1 and HTTP/2");
        seen.remove(0)
    }
}

#[tokio::test]
async fn origins_cors_and_prefixes_together() {
    let origin = |port| format!("https://agents.test:{port}");
    // The port is part of the origin, so it must be known before Envoy starts.
    let envoy = Envoy::on_free_port(|port| {
        with_settings(&[
            ("PIXELL_EXTERNAL_ORIGINS", &origin(port)),
            ("PIXELL_CORS_ORIGINS", APP),
            ("PIXELL_PATH_PREFIXES", "/a/{id}/-/{endpoint},/a/{id}/rpc a2a,/a/{id}"),
        ])
    });
    let setup = Setup::behind(envoy.await.unwrap()).await;
    let port = setup.envoy.data_addr().port();
    let origin = origin(port);

    // By path: the agent's own response to the preflight, its redirects and its card lead back with the origin's scheme.
    let preflight = [("origin", APP), ("access-control-request-method", "PUT"), ("access-control-request-headers", "x-own")];
    for (path, endpoint) in [("/a/x/rpc/y", "a2a"), ("/a/x/y", "rest")] {
        let seen = setup.ask(Method::OPTIONS, "agents.test", path, &preflight).await;
        let expected = (204, format!("{endpoint} https"), Some("https://own.test".to_owned()));
        assert_eq!((seen.status, seen.served, seen.allowed_origin), expected, "{path}");
    }
    let located = [("origin", APP), ("x-to", "https://{host}/z")];
    let seen = setup.ask(Method::GET, "agents.test", "/a/x/rpc/y", &located).await;
    assert_eq!(seen.location, Some(format!("{origin}/a/x/rpc/z")), "with an Origin, which has a route of its own");
    assert_eq!(setup.location("agents.test", "/a/x/y", "https://{host}/rpc/z").await, format!("{origin}/a/x/-/rest/rpc/z"));
    let other = format!("http://127.0.0.1:{}/z", setup.a2a.port());
    assert_eq!(setup.location("agents.test", "/a/x/y", &other).await, "/a/x/-/a2a/z");
    let urls = setup.card("agents.test", &format!("/a/x{CARD}")).await;
    let expected = ["/a/x/rpc", "/a/x/-/a2a/v1", "", "/a/x/v2"].map(|path| format!("{origin}{path}"));
    // `/a/x/rpc` leads to `a2a`, so the agent's own `/rpc` has the canonical form.
    assert_eq!(urls[0], format!("{origin}/a/x/-/rest/rpc"));
    assert_eq!([&urls[1], &urls[3]], [&expected[1], &expected[3]]);
    assert_eq!(urls[2], format!("agents.test:{port}"));

    // By header: the proxy responds to the preflight and adds its headers, and nothing is changed.
    let preflight =
        [("origin", APP), ("access-control-request-method", "PUT"), ("access-control-request-headers", DEPLOYMENT_ID)];
    let seen = setup.ask(Method::OPTIONS, "agents.test", "/a/x/y", &preflight).await;
    assert_eq!((seen.status, seen.served.as_str(), seen.allowed_origin.as_deref()), (200, "", Some(APP)));
    let headers = [("origin", APP), (DEPLOYMENT_ID, "x"), ("x-to", "/z")];
    let seen = setup.ask(Method::GET, "agents.test", "/a/x/y", &headers).await;
    assert_eq!((seen.location.as_deref(), seen.served.as_str()), (Some("/z"), "rest /a/x/y https"));
    assert_eq!(seen.allowed_origin.as_deref(), Some(APP));

    // Another host: its authority is not written, and paths are changed all the same. The default prefixes are gone.
    assert_eq!(setup.location("evil.test", "/a/x/y", "/z").await, "/a/x/z");
    let foreign = setup.location("evil.test", "/a/x/y", "http://{host}/z").await;
    assert_eq!(foreign, setup.url("evil.test", "/z"));
    assert_eq!(setup.card("evil.test", &format!("/a/x{CARD}")).await[0], "http://localhost/rpc");
    let seen = setup.ask(Method::GET, "agents.test", "/agents/x/y", &[("origin", APP)]).await;
    assert_eq!((seen.status, seen.allowed_origin.as_deref()), (400, Some(APP)));
}

/// An id that the map does not hold goes to the port of another router, which may be one of these agents.
#[tokio::test]
async fn what_the_fallback_port_serves_leads_back() {
    let fallback = agent("fallback", 9);
    let settings = format!("\"role\": \"router\", \"fallback_port\": {}", fallback.port());
    let setup = Setup::start(Envoy::builder().edit("\"role\": \"router\"", &settings)).await;
    let base = setup.url("c.test", "/agents/unknown");
    for (path, to, expected) in [
        ("/agents/unknown/y", "/z".to_owned(), "/agents/unknown/z".to_owned()),
        ("/agents/unknown/ui/y", "/z".to_owned(), "/agents/unknown/ui/z".to_owned()),
        ("/agents/unknown/a2a/y", "http://{host}/z".to_owned(), format!("{base}/a2a/z")),
        ("/agents/unknown", format!("http://127.0.0.1:{}/z", fallback.port()), "/agents/unknown/z".to_owned()),
        // No port of this route.
        ("/agents/unknown", format!("http://127.0.0.1:{}/z", setup.rest.port()), {
            format!("http://127.0.0.1:{}/z", setup.rest.port())
        }),
    ] {
        assert_eq!(setup.location("c.test", path, &to).await, expected, "{path} {to}");
    }
    let seen = setup.ask(Method::GET, "c.test", "/agents/unknown/z?q", &[("x-to", "/")]).await;
    assert_eq!(seen.served, "fallback /z?q http");
    let urls = setup.card("c.test", &format!("/agents/unknown{CARD}")).await;
    let authority = base.strip_prefix("http://").unwrap().split('/').next().unwrap();
    assert_eq!(urls, [format!("{base}/rpc"), format!("{base}/v1"), authority.to_owned(), format!("{base}/v2")]);
}

#[tokio::test]
async fn a_card_of_an_agent_with_a_host_of_its_own() {
    let setup = Setup::start(with_settings(&[("PIXELL_HOST_SUFFIX", ".h.test")])).await;
    let (by_host, by_path) = ("x.h.test", "c.test");
    let (host, path) = (setup.url(by_host, ""), setup.url(by_path, ""));
    let target = host.strip_prefix("http://").unwrap();
    // gRPC has no path that could name the agent, so its interface gets the agent's own host, whatever the client used.
    let urls = setup.card(by_host, CARD).await;
    assert_eq!(urls, [format!("{host}/rpc"), format!("{host}/agents/x/-/a2a/v1"), target.to_owned(), format!("{host}/v2")]);
    let urls = setup.card(by_path, &format!("/agents/x{CARD}")).await;
    let base = format!("{path}/agents/x");
    assert_eq!(urls, [format!("{base}/rpc"), format!("{base}/-/a2a/v1"), target.to_owned(), format!("{base}/v2")]);
    // They lead there.
    for (host, path, served) in [
        (by_host, "/v2", "rest /v2 http"),
        (by_host, "/agents/x/-/a2a/v1", "a2a /v1 http"),
        (by_path, "/agents/x/rpc", "rest /rpc http"),
    ] {
        assert_eq!(setup.ask(Method::GET, host, path, &[("x-to", "/")]).await.served, served);
    }
}

#[tokio::test]
async fn without_prefixes_no_path_names_an_agent() {
    let settings = [("PIXELL_PATH_PREFIXES", "none"), ("PIXELL_HOST_SUFFIX", ".h.test"), ("PIXELL_CORS_ORIGINS", APP)];
    let setup = Setup::start(with_settings(&settings)).await;
    for path in ["/agents/x/y", "/agents/x", "/agents/x/a2a/y", "/"] {
        let seen = setup.ask(Method::GET, "c.test", path, &[]).await;
        assert_eq!((seen.status, seen.served.as_str()), (400, ""), "{path}");
        let seen = setup.ask(Method::GET, "c.test", path, &[(DEPLOYMENT_ID, "x"), ("x-to", "/z")]).await;
        assert_eq!((seen.served, seen.location.as_deref()), (format!("rest {path} http"), Some("/z")));
        let seen = setup.ask(Method::GET, "x.h.test", path, &[("x-to", "/z")]).await;
        assert_eq!((seen.served, seen.location.as_deref()), (format!("rest {path} http"), Some("/z")));
    }
    // By host everything of this endpoint leads back, and there is no way to another one.
    let own = format!("http://127.0.0.1:{}/z", setup.rest.port());
    assert_eq!(setup.location("x.h.test", "/y", &own).await, "/z");
    let other = format!("http://127.0.0.1:{}/z", setup.a2a.port());
    assert_eq!(setup.location("x.h.test", "/y", &other).await, other);
    let urls = setup.card("x.h.test", CARD).await;
    let base = setup.url("x.h.test", "");
    let unreachable = format!("http://127.0.0.1:{}/v1", setup.a2a.port());
    let target = base.strip_prefix("http://").unwrap().to_owned();
    assert_eq!(urls, [format!("{base}/rpc"), unreachable, target, format!("{base}/v2")]);
    // The preflight of a path is not an agent's, since no path is.
    let preflight = [("origin", APP), ("access-control-request-method", "PUT"), ("access-control-request-headers", "x-own")];
    let seen = setup.ask(Method::OPTIONS, "c.test", "/agents/x/y", &preflight).await;
    assert_eq!((seen.status, seen.allowed_origin.as_deref()), (200, Some(APP)));
}
