//! Responses that would lead astray a client that named its agent by path or host: Location, Set-Cookie, Service-Worker-Allowed.

use harness::agents::{self, http as agent};
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy, EnvoyBuilder};
use hyper::Response;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};
use serde_json::json;

use crate::access_log_level::with_settings;

/// An agent that responds with the headers that its client asks for in `x-respond`, each as `name=value`, separated by `|`. `{port}` stands
/// for its own port, `{host}` for the authority that it received.
pub(crate) fn responds(name: &'static str) -> Agent {
    let port = std::sync::Arc::new(std::sync::OnceLock::new());
    let own = std::sync::Arc::clone(&port);
    let agent = agent::start(name, 0, agent::Version::Http1, move |request| {
        let own = std::sync::Arc::clone(&own);
        async move {
            let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
            let wanted = header("x-respond").replace("{port}", &format!("{}", own.get().unwrap()));
            let wanted = wanted.replace("{host}", header("host"));
            let mut response = Response::builder().status(302).header("x-served-by", format!("{name} {}", request.uri()));
            for (name, value) in wanted.split('|').filter_map(|pair| pair.split_once('=')) {
                response = response.header(name, value);
            }
            response.body(agent::whole("body")).unwrap()
        }
    });
    let agent = agent.unwrap();
    port.set(agent.port()).unwrap();
    agent
}

fn client() -> Client {
    Client::builder().no_proxy().http1_only().redirect(Policy::none()).build().unwrap()
}

fn http2() -> Client {
    Client::builder().no_proxy().http2_prior_knowledge().redirect(Policy::none()).build().unwrap()
}

/// The values of a header of the response.
async fn values(request: RequestBuilder, name: &str) -> Vec<String> {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 302, "{response:?}");
    response.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// An Envoy with the agent `x`, which has `a2a` and `rest`.
async fn started(builder: EnvoyBuilder) -> (Envoy, Agent, Agent) {
    let envoy = builder.start().await.unwrap();
    let (a2a, rest) = (responds("a2a"), responds("rest"));
    let routes = json!({"routes": {"x": {"port": a2a.port(), "endpoints": {"rest": rest.port()}}}});
    assert_eq!(envoy.routes().patch_routes(&routes).await.unwrap().status, 200);
    (envoy, a2a, rest)
}

#[tokio::test]
async fn a_redirect_leads_back_to_the_agent() {
    let (envoy, _a2a, _rest) = started(Envoy::builder()).await;
    let authority = envoy.data_addr().to_string();
    for (path, location, expected) in [
        ("/agents/x/y", "/login?next=/y", "/agents/x/login?next=/y"),
        ("/agents/x/api/y", "/login", "/agents/x/api/login"),
        ("/agents/x/api/y", "http://127.0.0.1:{port}/login", "/agents/x/api/login"),
        ("/agents/x/a2a", "http://{host}/login", &format!("http://{authority}/agents/x/a2a/login")),
        // With the client's prefix it would lead to another endpoint.
        ("/agents/x", "/a2a/login", "/agents/x/-/rest/a2a/login"),
        ("/agents/x/-/rest", "/../login", "/agents/x/-/rest/login"),
        ("/agents/x/api", "/agents/x/api/login", "/agents/x/api/login"),
        // Not the agent's.
        ("/agents/x/api", "http://127.0.0.1:9/login", "http://127.0.0.1:9/login"),
        ("/agents/x/api", "login", "login"),
        ("/agents/x/api", "//other.test/", "//other.test/"),
        ("/agents/x/api", "/\\other.test/", "/\\other.test/"),
        ("/agents/x/api", "http://{host}@other.test/", &format!("http://{authority}@other.test/")),
        ("/agents/x/api", "https://other.test/", "https://other.test/"),
    ] {
        let ask = |client: Client| client.get(envoy.data_url() + path).header("x-respond", format!("location={location}"));
        for client in [client(), http2()] {
            assert_eq!(values(ask(client), "location").await, [expected], "{path} {location}");
        }
        // A client that follows it reaches the endpoint that sent it there.
        if expected.contains("/agents/x") {
            let url = if expected.starts_with('/') { envoy.data_url() + expected } else { expected.to_owned() };
            let served = values(client().get(url), "x-served-by").await.concat();
            let endpoint = if path.contains("a2a") { "a2a" } else { "rest" };
            assert!(served.starts_with(&format!("{endpoint} /")) && served.contains("login"), "{expected}: {served}");
        }
    }
}

/// An agent that redirects to another endpoint of its own, whose port it knows, leads the client there.
#[tokio::test]
async fn a_redirect_to_another_endpoint_leads_there() {
    let (envoy, a2a, rest) = started(Envoy::builder()).await;
    let (a2a, rest) = (a2a.port(), rest.port());
    for (path, location, expected) in [
        ("/agents/x/api/y", format!("http://127.0.0.1:{a2a}/login?q"), "/agents/x/-/a2a/login?q"),
        ("/agents/x/y", format!("http://localhost:{a2a}"), "/agents/x/-/a2a"),
        ("/agents/x/a2a/y", format!("http://0.0.0.0:{rest}/login"), "/agents/x/-/rest/login"),
        ("/agents/x/-/a2a", format!("http://[::1]:{rest}/login"), "/agents/x/-/rest/login"),
    ] {
        for client in [client(), http2()] {
            let ask = client.get(envoy.data_url() + path).header("x-respond", format!("location={location}"));
            assert_eq!(values(ask, "location").await, [expected], "{path} {location}");
            let served = values(client.get(envoy.data_url() + expected), "x-served-by").await.concat();
            let endpoint = if expected.contains("a2a") { "a2a" } else { "rest" };
            assert!(served.starts_with(&format!("{endpoint} /")), "{expected}: {served}");
        }
    }
}

#[tokio::test]
async fn cookies_and_service_workers_keep_to_their_agent() {
    let (envoy, _a2a, _rest) = started(Envoy::builder()).await;
    let wanted =
        "set-cookie=a=1; Path=/; Domain=example.com; HttpOnly|service-worker-allowed=/|set-cookie=b=2|set-cookie=c=3; path=/d";
    for client in [client(), http2()] {
        let ask = || client.get(envoy.data_url() + "/agents/x/api/e/f").header("x-respond", wanted);
        let expected = ["a=1; HttpOnly; Path=/agents/x/api", "b=2; Path=/agents/x/api/e", "c=3; Path=/agents/x/api/d"];
        assert_eq!(values(ask(), "set-cookie").await, expected);
        assert_eq!(values(ask(), "service-worker-allowed").await, [""; 0]);
        // The directory of this path is that of all agents.
        for (path, scope) in [("/agents/x", "/agents/x/"), ("/agents/x?sw.js", "/agents/x/"), ("/agents/x/ui", "/agents/x/ui/")]
        {
            for wanted in ["service-worker-allowed=/", "x-other=1"] {
                let ask = client.get(envoy.data_url() + path).header("x-respond", wanted);
                assert_eq!(values(ask, "service-worker-allowed").await, [scope], "{path} {wanted}");
            }
        }
    }
}

/// The page of an agent opens a WebSocket below the agent's prefix, and gets a cookie with it.
#[tokio::test]
async fn a_websocket_s_cookie_keeps_to_its_agent() {
    let agent = agents::raw::start("a", |mut stream| async move {
        use tokio::io::AsyncWriteExt;
        crate::wire::head(&mut stream).await?;
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nset-cookie: a=1; Path=/\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        crate::wire::head(&mut stream).await.map(drop)
    });
    let agent = agent.unwrap();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("x", agent.port())]).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(envoy.data_addr()).await.unwrap();
    let head = "GET /agents/x/ui/ws HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let head = crate::wire::head(&mut stream).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("set-cookie: a=1; Path=/agents/x/ui\r\n"), "{head}");
}

const ALL: &str = "location=/y|set-cookie=a=1; Path=/|service-worker-allowed=/";

#[tokio::test]
async fn responses_to_header_addressed_requests_are_not_touched() {
    let (envoy, _a2a, _rest) = started(Envoy::builder()).await;
    for name in [DEPLOYMENT_ID, "deployment-id", "deployment_id"] {
        let ask = || client().get(envoy.data_url() + "/agents/x/api").header(name, "x").header("x-respond", ALL);
        for (header, value) in [("location", "/y"), ("set-cookie", "a=1; Path=/"), ("service-worker-allowed", "/")] {
            assert_eq!(values(ask(), header).await, [value], "{name}");
        }
        // An empty header names nobody, so the path does.
        let ask = client().get(envoy.data_url() + "/agents/x/api").header(name, "").header("x-respond", ALL);
        assert_eq!(values(ask, "location").await, ["/agents/x/api/y"], "{name}");
    }
}

#[tokio::test]
async fn a_host_of_its_own_needs_no_prefix() {
    let builder = Envoy::builder().edit("\"role\": \"router\"", "\"role\": \"router\", \"host_suffix\": \".h.test\"");
    let (envoy, _a2a, _rest) = started(builder).await;
    let ask = |location: &str| {
        let wanted = format!("location={location}|set-cookie=a=1; Domain=h.test; Path=/|service-worker-allowed=/");
        client().get(envoy.data_url() + "/y").header("host", "x.h.test").header("x-respond", wanted)
    };
    assert_eq!(values(ask("/z"), "location").await, ["/z"]);
    assert_eq!(values(ask("http://localhost:{port}/z"), "location").await, ["/z"]);
    assert_eq!(values(ask("http://x.h.test/z"), "location").await, ["http://x.h.test/z"]);
    assert_eq!(values(ask("/z"), "set-cookie").await, ["a=1; Path=/"]);
    // A service worker keeps to the directory of its script, as below a path.
    assert_eq!(values(ask("/z"), "service-worker-allowed").await, [""; 0]);
    // A header that names the agent goes before the host, and its response passes as it is.
    assert_eq!(values(ask("/z").header(DEPLOYMENT_ID, "x"), "service-worker-allowed").await, ["/"]);
}

#[tokio::test]
async fn only_external_origins_lead_to_urls_with_their_authority() {
    let origins = [("PIXELL_EXTERNAL_ORIGINS", "https://agents.test")];
    let (envoy, _a2a, _rest) = started(with_settings(&origins)).await;
    let ask = |host: &str, location: &str| {
        client()
            .get(envoy.data_url() + "/agents/x/api")
            .header("host", host)
            .header("x-respond", format!("location={location}"))
    };
    for (host, location, expected) in [
        ("agents.test", "http://agents.test/y", "http://agents.test/agents/x/api/y"),
        // The port of the origin's scheme may be left out, on either side.
        ("agents.test", "https://agents.test:443/y", "https://agents.test:443/agents/x/api/y"),
        ("agents.test:443", "https://agents.test/y", "https://agents.test/agents/x/api/y"),
        ("agents.test:443", "https://agents.test:443/y", "https://agents.test:443/agents/x/api/y"),
        ("agents.test:443", "https://agents.test:444/y", "https://agents.test:444/y"),
        ("agents.test:443", "http://agents.test:443/y", "http://agents.test:443/y"),
        ("agents.test:80", "http://agents.test:80/y", "http://agents.test:80/y"),
        ("evil.test", "http://evil.test/y", "http://evil.test/y"),
        ("evil.test", "/y", "/agents/x/api/y"),
    ] {
        assert_eq!(values(ask(host, location), "location").await, [expected], "{host} {location}");
    }
}

/// The scheme that Envoy tells the agent, here that of a trusted proxy in front.
#[tokio::test]
async fn the_client_s_scheme_decides_which_port_may_be_left_out() {
    let trusting = Envoy::builder().edit_times(3, "use_remote_address: true", "use_remote_address: false");
    let (envoy, _a2a, _rest) = started(trusting).await;
    for (scheme, authority, location, expected) in [
        ("https", "agents.test:443", "https://agents.test/y", "https://agents.test/agents/x/api/y"),
        ("https", "agents.test", "https://agents.test:443/y", "https://agents.test:443/agents/x/api/y"),
        ("https", "agents.test", "http://agents.test:443/y", "http://agents.test:443/y"),
        ("http", "agents.test:443", "https://agents.test/y", "https://agents.test/y"),
        ("http", "agents.test:443", "http://agents.test:443/y", "http://agents.test:443/agents/x/api/y"),
        ("http", "agents.test:80", "http://agents.test/y", "http://agents.test/agents/x/api/y"),
    ] {
        let ask = client().get(envoy.data_url() + "/agents/x/api").header("host", authority);
        let ask = ask.header("x-forwarded-proto", scheme).header("x-respond", format!("location={location}"));
        assert_eq!(values(ask, "location").await, [expected], "{scheme} {authority} {location}");
    }
}

/// However the agent is named, and whichever client asks.
#[tokio::test]
async fn the_images_settings_lead_to_the_same_responses() {
    let settings =
        [("PIXELL_ID_HEADERS", "none"), ("PIXELL_CORS_ORIGINS", "https://app.test"), ("PIXELL_HOST_SUFFIX", ".h.test")];
    let (envoy, _a2a, _rest) = started(with_settings(&settings)).await;
    for headers in [&[][..], &[("x-deployment-id", "y")], &[("origin", "https://app.test")]] {
        let ask = client().get(envoy.data_url() + "/agents/x/api").header("x-respond", ALL);
        let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(*name, *value));
        assert_eq!(values(ask, "location").await, ["/agents/x/api/y"], "{headers:?}");
    }
    drop(envoy);
    let (envoy, _a2a, _rest) = started(with_settings(&[("PIXELL_ID_HEADERS", "x-agent")])).await;
    let ask = |headers: &[(&str, &str)]| {
        let ask = client().get(envoy.data_url() + "/agents/x/api").header("x-respond", ALL);
        headers.iter().fold(ask, |ask, (name, value)| ask.header(*name, *value))
    };
    assert_eq!(values(ask(&[("x-agent", "x")]), "location").await, ["/y"]);
    assert_eq!(values(ask(&[("x-deployment-id", "y")]), "location").await, ["/agents/x/api/y"]);
}
