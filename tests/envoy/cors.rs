//! Pages of other origins: how Envoy responds to their preflights, what it adds to responses, and what it leaves to agents.

use std::collections::BTreeMap;

use harness::agents::{self, http as agent};
use harness::proto::DEPLOYMENT_ID;
use harness::{Agent, Envoy};
use hyper::Response;
use reqwest::Method;

use crate::access_log_level::with_settings;
use crate::clients::{http1, http2};

const APP: &str = "https://app.test";
const ORIGINS: &str = "https://app.test,http://*.apps.test:3000";

/// The status of a response, and its CORS headers.
type Seen = (u16, BTreeMap<String, String>);

struct Request<'r> {
    method: Method,
    path: &'r str,
    headers: Vec<(&'r str, &'r str)>,
}

impl<'r> Request<'r> {
    fn get(path: &'r str, headers: &[(&'r str, &'r str)]) -> Self {
        Self { method: Method::GET, path, headers: headers.to_vec() }
    }

    /// The preflight that a browser sends before a GET with these headers.
    fn preflight(path: &'r str, origin: &'r str, headers: &'r str) -> Self {
        let headers =
            vec![("origin", origin), ("access-control-request-method", "GET"), ("access-control-request-headers", headers)];
        Self { method: Method::OPTIONS, path, headers }
    }

    async fn send(&self, envoy: &Envoy) -> Seen {
        let mut seen = Vec::new();
        // Over HTTP/2 the client takes the authority from the URL.
        let is_elsewhere = self.headers.iter().any(|(name, _)| *name == "host");
        for client in if is_elsewhere { vec![http1()] } else { vec![http1(), http2()] } {
            let url = format!("{}{}", envoy.data_url(), self.path);
            let request =
                self.headers.iter().fold(client.request(self.method.clone(), url), |r, (name, value)| r.header(*name, *value));
            let response = request.send().await.unwrap();
            let of_cors = response.headers().iter().filter(|(name, _)| name.as_str().starts_with("access-control-"));
            let of_cors = of_cors.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
            seen.push((response.status().as_u16(), of_cors));
        }
        assert!(seen.iter().all(|one| *one == seen[0]), "HTTP/1.1 and HTTP/2: {seen:?}");
        seen.remove(0)
    }
}

#[track_caller]
fn check(seen: &Seen, status: u16, headers: &[(&str, &str)]) {
    let expected = headers.iter().map(|(name, value)| (format!("access-control-{name}"), (*value).to_owned())).collect();
    assert_eq!(*seen, (status, expected));
}

/// The headers of Envoy's response to a preflight of this origin.
fn preflight_of(origin: &str) -> [(&'static str, &str); 5] {
    let [allow_origin, expose] = added_for(origin);
    // Envoy allows any method that the preflight names.
    [allow_origin, expose, ("allow-methods", "GET"), ("allow-headers", "*, authorization"), ("max-age", "600")]
}

fn added_for(origin: &str) -> [(&'static str, &str); 2] {
    [("allow-origin", origin), ("expose-headers", "*")]
}

/// A cache must not give the response to one page, or of one agent, to another.
#[tokio::test]
async fn responses_vary_with_the_page_and_the_agent() {
    let agent = agent::start("a", 0, agent::Version::Http1, |_| async {
        let mut response = Response::new(agent::whole(""));
        response.headers_mut().insert("vary", "accept".parse().unwrap());
        response
    });
    let agent = agent.unwrap();
    let settings = [("PIXELL_CORS_ORIGINS", ORIGINS), ("PIXELL_EXTERNAL_ORIGINS", "http://agents.test")];
    let names = "accept,origin, x-deployment-id, deployment-id, deployment_id";
    for (settings, expected) in [(&settings[..], names), (&settings[1..], "accept")] {
        let envoy = with_settings(settings).start().await.unwrap();
        envoy.routes().put_all([("a", agent.port())]).await.unwrap();
        for host in ["any.test", "agents.test"] {
            let call = http1().get(envoy.data_url()).header("host", host).header(DEPLOYMENT_ID, "a");
            for call in [call.try_clone().unwrap(), call.header("origin", APP)] {
                let response = call.send().await.unwrap();
                let vary: Vec<_> = response.headers().get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
                assert_eq!(vary.join(","), expected, "{host}");
            }
        }
    }
}

/// An agent with its own CORS headers.
fn own() -> Agent {
    let own = agent::start("own", 0, agent::Version::Http1, |request| async move {
        let mut response = Response::new(agent::whole(""));
        if request.method() == Method::OPTIONS {
            *response.status_mut() = hyper::StatusCode::IM_A_TEAPOT;
        }
        response.headers_mut().insert("access-control-allow-origin", "https://own.test".parse().unwrap());
        response
    });
    own.unwrap()
}

const OWN: [(&str, &str); 1] = [("allow-origin", "https://own.test")];

#[tokio::test]
async fn pages_of_configured_origins_call_by_header_and_can_read_rejections() {
    let echo = agents::echo::start("a").unwrap();
    let settings = [("PIXELL_CORS_ORIGINS", ORIGINS), ("PIXELL_EXTERNAL_ORIGINS", "http://agents.test")];
    let envoy = with_settings(&settings).start().await.unwrap();
    envoy.routes().put_all([("a", echo.port())]).await.unwrap();
    for host in ["any.test", "agents.test"] {
        for origin in [APP, "http://x.apps.test:3000"] {
            let of_host = |mut request: Request<'static>| {
                request.headers.push(("host", host));
                request
            };
            let preflight = Request::preflight("/x", origin, "authorization,x-deployment-id");
            check(&of_host(preflight).send(&envoy).await, 200, &preflight_of(origin));
            let call = Request::get("/x", &[("origin", origin), (DEPLOYMENT_ID, "a")]);
            check(&of_host(call).send(&envoy).await, 200, &added_for(origin));
            let rejected = Request::get("/x", &[("origin", origin), (DEPLOYMENT_ID, "nobody")]);
            check(&of_host(rejected).send(&envoy).await, 404, &added_for(origin));
            let nameless = Request::get("/x", &[("origin", origin)]);
            check(&of_host(nameless).send(&envoy).await, 400, &added_for(origin));
        }
    }
    // The header names the agent, whatever the path is.
    check(&Request::preflight("/agents/b", APP, "x-deployment-id").send(&envoy).await, 200, &preflight_of(APP));
    let call = Request::get("/agents/b", &[("origin", APP), (DEPLOYMENT_ID, "a")]);
    check(&call.send(&envoy).await, 200, &added_for(APP));
    // Other origins get no CORS headers.
    for origin in [
        "https://other.test",
        "https://app.test.evil",
        "https://xapp.test",
        "http://app.test",
        "http://apps.test:3000",
        "http://x.apps.test",
        "null",
    ] {
        check(&Request::preflight("/x", origin, "x-deployment-id").send(&envoy).await, 400, &[]);
        check(&Request::get("/x", &[("origin", origin), (DEPLOYMENT_ID, "a")]).send(&envoy).await, 200, &[]);
    }
    check(&Request::get("/x", &[(DEPLOYMENT_ID, "a")]).send(&envoy).await, 200, &[]);
}

#[tokio::test]
async fn by_path_and_host_the_agents_own_response_passes() {
    let own = own();
    let settings = [("PIXELL_CORS_ORIGINS", ORIGINS), ("PIXELL_HOST_SUFFIX", ".h.test"), ("PIXELL_CALL_TIMEOUT_SECONDS", "60")];
    let envoy = with_settings(&settings).start().await.unwrap();
    envoy.routes().put_all([("own", own.port())]).await.unwrap();
    for (path, host) in
        [("/agents/own/x", "any.test"), ("/agents/own", "any.test"), ("/x", "own.h.test"), ("/x", "own.H.test:80")]
    {
        for headers in ["content-type", ""] {
            let mut preflight = Request::preflight(path, APP, headers);
            preflight.headers.push(("host", host));
            check(&preflight.send(&envoy).await, 418, &OWN);
        }
        check(&Request::get(path, &[("origin", APP), ("host", host)]).send(&envoy).await, 200, &OWN);
        let upgrade = [("origin", APP), ("host", host), ("connection", "upgrade"), ("upgrade", "websocket")];
        let websocket =
            upgrade.iter().fold(http1().get(envoy.data_url() + path), |request, (name, value)| request.header(*name, *value));
        let websocket = websocket.send().await.unwrap();
        assert_eq!(websocket.headers()["access-control-allow-origin"], "https://own.test");
    }
    // By the header, Envoy's headers replace those of the agent.
    let call = Request::get("/x", &[("origin", APP), (DEPLOYMENT_ID, "own")]);
    check(&call.send(&envoy).await, 200, &added_for(APP));
}

#[tokio::test]
async fn the_routes_follow_the_settings_of_addressing() {
    let own = own();
    let settings = [("PIXELL_CORS_ORIGINS", ORIGINS), ("PIXELL_ID_HEADERS", "x-agent"), ("PIXELL_PATH_PREFIXES", "/{id}")];
    let envoy = with_settings(&settings).start().await.unwrap();
    envoy.routes().put_all([("own", own.port())]).await.unwrap();
    check(&Request::preflight("/own", APP, "x-agent").send(&envoy).await, 200, &preflight_of(APP));
    check(&Request::get("/own", &[("origin", APP), ("x-agent", "own")]).send(&envoy).await, 200, &added_for(APP));
    check(&Request::preflight("/own", APP, "x-deployment-id").send(&envoy).await, 418, &OWN);
    check(&Request::get("/own", &[("origin", APP), (DEPLOYMENT_ID, "nobody")]).send(&envoy).await, 200, &OWN);
}

/// A header whose name only contains that of an id header names no agent, so such a preflight is the agent's.
#[tokio::test]
async fn a_preflight_names_headers_as_a_whole() {
    let own = own();
    // The longest name that the filter takes, of the letters that take most in a regular expression.
    let long = format!("x-{}", "sk".repeat(127));
    let names = format!("id,a.b'c,{long}");
    let settings = [("PIXELL_CORS_ORIGINS", ORIGINS), ("PIXELL_ID_HEADERS", &names)];
    let envoy = with_settings(&settings).start().await.unwrap();
    envoy.routes().put_all([("own", own.port())]).await.unwrap();
    for others in ["x-client-id", "identity", "id-x", "x-id,y", "authorization,x-client-id", "aXb'c", "i d", "x-sk"] {
        check(&Request::preflight("/agents/own", APP, others).send(&envoy).await, 418, &OWN);
    }
    let long = format!("accept,{long}");
    for named in ["id", "ID", "authorization,id", "id,x-client-id", "accept, id ,range", "accept,\tid", "a.b'c,x", &long] {
        check(&Request::preflight("/agents/own", APP, named).send(&envoy).await, 200, &preflight_of(APP));
    }
    // The actual requests go the same way.
    let by_path = Request::get("/agents/own", &[("origin", APP), ("x-client-id", "nobody")]);
    check(&by_path.send(&envoy).await, 200, &OWN);
    check(&Request::get("/x", &[("origin", APP), ("id", "own")]).send(&envoy).await, 200, &added_for(APP));
}

#[tokio::test]
async fn without_the_setting_every_preflight_goes_to_the_agent() {
    let own = own();
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("own", own.port())]).await.unwrap();
    check(&Request::preflight("/agents/own", APP, "x").send(&envoy).await, 418, &OWN);
    check(&Request::get("/x", &[("origin", APP), (DEPLOYMENT_ID, "own")]).send(&envoy).await, 200, &OWN);
    check(&Request::preflight("/x", APP, "x-deployment-id").send(&envoy).await, 400, &[]);
}
