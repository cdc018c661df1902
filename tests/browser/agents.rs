//! Agents reached from pages: by path what no page can give a header, by header from other origins, and gRPC by gRPC-Web.

use harness::agents::{self, http as agent, page};
use harness::{Agent, Envoy, EnvoyBuilder};
use hyper::Response;
use launcher::filter::Filter;
use launcher::settings::Settings;
use reqwest::Method;
use serde_json::json;

use crate::driver::Browser;

pub(crate) const FILTERS: [Filter; 2] = [Filter::Wasm, Filter::Native];

pub(crate) fn with_settings(vars: &[(&str, &str)]) -> EnvoyBuilder {
    let find = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    Envoy::builder().settings(&Settings::resolve(find).unwrap())
}

/// Waits until the output with this id of the page shows these words.
pub(crate) async fn shows(browser: &Browser, id: &str, words: &str) {
    browser.until(&format!("document.getElementById({}).value.startsWith({})", json!(id), json!(words))).await.unwrap();
}

#[tokio::test]
async fn a_page_below_a_path_or_a_host_has_its_events_and_its_websocket() {
    let page = page::start("a", 0).unwrap();
    for filter in FILTERS {
        let envoy = with_settings(&[("PIXELL_HOST_SUFFIX", ".localhost")]).filter(filter).start().await.unwrap();
        let other = page::start("b", 0).unwrap();
        let routes = json!({"routes": {"a": {"port": 5000, "endpoints": {"ui": page.port()}}, "b": other.port()}});
        assert_eq!(envoy.routes().put_routes(&routes).await.unwrap().status, 200);
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        let by_host = format!("http://b.localhost:{}/", envoy.data_addr().port());
        for (url, id) in [(format!("{}/agents/a/ui/", envoy.data_url()), "a"), (by_host, "b")] {
            browser.open(&url).await.unwrap();
            shows(&browser, "events", "event 2").await;
            shows(&browser, "echo", "said over a WebSocket").await;
            shows(&browser, "hello", &format!("{id} says hello")).await;
            // The browser asks each origin for an icon, which the agent does not have.
            let console = browser.console().await.unwrap();
            assert!(console.iter().all(|line| line.contains("favicon.ico")), "{console:#?}");
        }
    }
}

/// A page of another origin than the data path, whose host is `localhost` or 127.0.0.1: two origins.
async fn page_elsewhere(browser: &Browser, page: &Agent, host: &str) {
    browser.open(&format!("http://{host}:{}/", page.port())).await.unwrap();
}

/// What the page gets from `fetch`: status, reason and body of the response, or that it cannot read one.
async fn fetch(browser: &Browser, url: &str, init: serde_json::Value) -> serde_json::Value {
    let script = format!(
        "fetch({}, {init}).then(async (r) => [r.status, r.headers.get('x-pixell-error'), await r.text()], (e) => [e.name])",
        json!(url)
    );
    browser.eval(&script).await.unwrap()
}

#[tokio::test]
async fn a_page_of_another_origin_calls_by_header_and_reads_why_it_was_rejected() {
    let (page, echo) = (page::start("page", 0).unwrap(), agents::echo::start("a").unwrap());
    let origin = format!("http://127.0.0.1:{}", page.port());
    for filter in FILTERS {
        let envoy = with_settings(&[("PIXELL_CORS_ORIGINS", &origin)]).filter(filter).start().await.unwrap();
        let gone = agents::echo::start("gone").unwrap();
        envoy.routes().put_all([("a", echo.port()), ("gone", gone.port())]).await.unwrap();
        gone.kill();
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        let call = async |id: &str| {
            let headers = json!({"x-deployment-id": id, "authorization": "Bearer t", "content-type": "application/json"});
            fetch(&browser, &envoy.data_url(), json!({"method": "PUT", "headers": headers, "body": "{}"})).await
        };
        page_elsewhere(&browser, &page, "127.0.0.1").await;
        let seen = call("a").await;
        assert_eq!(seen[0], 200, "{seen}");
        let received: serde_json::Value = serde_json::from_str(seen[2].as_str().unwrap()).unwrap();
        assert_eq!((&received["agent"], &received["method"]), (&json!("a"), &json!("PUT")));
        assert!(received["headers"].as_array().unwrap().contains(&json!(["authorization", "Bearer t"])), "{received}");
        for (id, status, error) in [
            ("nobody", 404, "unknown_deployment"),
            ("gone", 503, "agent_unreachable"),
            ("not an id", 400, "invalid_deployment_id"),
        ] {
            let seen = call(id).await;
            assert_eq!((&seen[0], &seen[1]), (&json!(status), &json!(error)), "{seen}");
            let problem: serde_json::Value = serde_json::from_str(seen[2].as_str().unwrap()).unwrap();
            assert_eq!(problem["code"], error);
        }
        // Another origin, although of the same machine.
        page_elsewhere(&browser, &page, "localhost").await;
        assert_eq!(call("a").await, json!(["TypeError"]));
    }
}

#[tokio::test]
async fn a_preflight_by_path_goes_to_the_agent() {
    let page = page::start("page", 0).unwrap();
    let origin = format!("http://127.0.0.1:{}", page.port());
    let allowed = origin.clone();
    let own = agent::start("own", 0, agent::Version::Http1, move |request| {
        let mut response = Response::new(agent::whole(format!("{} {}", request.method(), request.uri())));
        let allow = |value: &str| value.parse().unwrap();
        let headers = response.headers_mut();
        headers.insert("access-control-allow-origin", allow(&allowed));
        headers.insert("access-control-allow-methods", allow("PUT"));
        headers.insert("access-control-allow-headers", allow("x-own"));
        async { response }
    });
    let (own, silent) = (own.unwrap(), agents::echo::start("silent").unwrap());
    for filter in FILTERS {
        // Envoy does not respond to these preflights, whether CORS is configured or not.
        for settings in [&[][..], &[("PIXELL_CORS_ORIGINS", origin.as_str())]] {
            let envoy = with_settings(settings).filter(filter).start().await.unwrap();
            envoy.routes().put_all([("own", own.port()), ("silent", silent.port())]).await.unwrap();
            let browser = Browser::start(1200, 900, &[]).await.unwrap();
            page_elsewhere(&browser, &page, "127.0.0.1").await;
            let call = async |id: &str, header: &str| {
                let url = format!("{}/agents/{id}/x?y", envoy.data_url());
                fetch(&browser, &url, json!({"method": "PUT", "headers": {header: "1"}})).await
            };
            assert_eq!(call("own", "x-own").await, json!([200, null, "PUT /x?y"]));
            assert_eq!(call("own", "x-other").await, json!(["TypeError"]));
            assert_eq!(call("silent", "x-own").await, json!(["TypeError"]));
        }
    }
}

/// A call of gRPC-Web made by hand: one frame of an empty message; the response's frames, and the header with the status if there are none.
const HEALTH: &str = "
    const response = await fetch(url, { method: 'POST', body: new Uint8Array(5),
      headers: { 'content-type': 'application/grpc-web+proto', 'x-grpc-web': '1', ...headers } });
    let bytes = new Uint8Array(await response.arrayBuffer()), found = [];
    while (bytes.length) {
      const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1), kind = bytes[0];
      found.push([kind, new TextDecoder().decode(bytes.subarray(5, 5 + length))]);
      bytes = bytes.subarray(5 + length);
    }
    return { found, status: response.headers.get('grpc-status'), message: response.headers.get('grpc-message') };";

#[tokio::test]
async fn a_page_calls_a_grpc_agent() {
    let (page, grpc) = (page::start("page", 0).unwrap(), agents::grpc::start("g").unwrap());
    let elsewhere = format!("http://127.0.0.1:{}", page.port());
    for filter in FILTERS {
        let envoy = with_settings(&[("PIXELL_CORS_ORIGINS", &elsewhere)]).filter(filter).start().await.unwrap();
        let routes = json!({"routes": {"g": {"port": grpc.port(), "endpoints": {"ui": page.port()}}}});
        assert_eq!(envoy.routes().put_routes(&routes).await.unwrap().status, 200);
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        let health = async |base: &str, id: Option<&str>| {
            let url = format!("{base}/pixell.agent.AgentService/Health");
            let headers = id.map_or(json!({}), |id| json!({"x-deployment-id": id}));
            let script = format!("(async (url, headers) => {{ {HEALTH} }})({}, {headers})", json!(url));
            browser.eval(&script).await.unwrap()
        };
        let check = |seen: &serde_json::Value| {
            let [message, trailers] = &seen["found"].as_array().unwrap()[..] else { panic!("{seen}") };
            assert_eq!(message[0], 0, "{seen}");
            assert!(message[1].as_str().unwrap().contains('g'), "{seen}");
            assert_eq!(trailers[0], 128, "{seen}");
            assert!(trailers[1].as_str().unwrap().contains("grpc-status:0"), "{seen}");
        };
        // From a page of the agent itself, by path.
        browser.open(&format!("{}/agents/g/ui/", envoy.data_url())).await.unwrap();
        check(&health("../a2a", None).await);
        // From another origin, by header; the status of a rejection is a header that the page can read.
        page_elsewhere(&browser, &page, "127.0.0.1").await;
        check(&health(&envoy.data_url(), Some("g")).await);
        let rejected = health(&envoy.data_url(), Some("nobody")).await;
        let expected = json!({"found": [], "status": "5", "message": "Deployment nobody not found or not ready"});
        assert_eq!(rejected, expected);
    }
}

/// The example of docs/addressing.md in JavaScript that holds this text.
fn example(containing: &str) -> String {
    let text = include_str!("../../docs/addressing.md");
    let blocks = text.split("```js\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let found: Vec<_> = blocks.filter(|block| block.contains(containing)).collect();
    let [block] = found[..] else { panic!("{containing}: {found:?}") };
    block.to_owned()
}

/// Runs an example in the page, and gives what it writes to the console.
async fn run(browser: &Browser, example: &str) -> Vec<serde_json::Value> {
    let script = format!(
        "(async () => {{ const said = []; const console = {{ log: (...words) => said.push(words) }}; {example}; return said; }})()"
    );
    let said = browser.eval(&script).await.unwrap();
    said.as_array().unwrap_or_else(|| panic!("{said}")).clone()
}

/// The very text of the document, but for the host, which is the test's own.
#[tokio::test]
async fn the_examples_of_the_document_run() {
    let (page, ui, grpc) = (page::start("my-agent", 0), page::start("alpha", 0), agents::grpc::start("alpha"));
    let (page, ui, grpc) = (page.unwrap(), ui.unwrap(), grpc.unwrap());
    let text = include_str!("../../docs/addressing.md");
    assert_eq!(text.matches("```js\n").count(), 2, "each example is run here");
    let elsewhere = format!("http://127.0.0.1:{}", page.port());
    let by_header = example("'x-deployment-id': 'my-agent'");
    assert_eq!(by_header.matches("https://agents.example.com").count(), 1, "{by_header}");
    for filter in FILTERS {
        let envoy = with_settings(&[("PIXELL_CORS_ORIGINS", &elsewhere)]).filter(filter).start().await.unwrap();
        let routes = json!({"routes": {
            "my-agent": page.port(),
            "alpha": {"port": grpc.port(), "endpoints": {"ui": ui.port()}},
        }});
        assert_eq!(envoy.routes().put_routes(&routes).await.unwrap().status, 200);
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        page_elsewhere(&browser, &page, "127.0.0.1").await;
        let here = by_header.replace("https://agents.example.com", &envoy.data_url());
        assert_eq!(run(&browser, &here).await, [json!([200, null, "my-agent says hello"])]);
        // The same page reads why a call was rejected.
        let nobody = here.replace("my-agent", "nobody");
        let said = run(&browser, &nobody).await;
        assert_eq!((&said[0][0], &said[0][1]), (&json!(404), &json!("unknown_deployment")), "{said:?}");
        browser.open(&format!("{}/agents/alpha/ui/", envoy.data_url())).await.unwrap();
        let said = run(&browser, &example("grpc-web+proto")).await;
        let [message, trailers] = [1, 3].map(|n| said[0][n].as_str().unwrap().to_owned());
        assert!(message.contains("alpha") && trailers.contains("grpc-status:0"), "{said:?}");
    }
}

/// A person who has read the README gets from the status page to the page of an agent.
#[tokio::test]
async fn the_status_page_leads_to_the_pages_of_agents() {
    let (ui, rest) = (page::start("ui", 0).unwrap(), page::start("rest", 0).unwrap());
    for filter in FILTERS {
        // The links contain the port.
        let envoy = Envoy::on_free_port(|_| Envoy::builder().filter(filter)).await.unwrap();
        let routes = json!({"routes": {
            "with-rest": {"port": 5000, "endpoints": {"rest": rest.port()}},
            "with-ui": {"port": 5001, "endpoints": {"ui": ui.port(), "other": 5002}},
            "both": {"port": 5003, "endpoints": {"rest": 5004, "ui": 5005}},
            "without": 5006,
            "..": {"port": 5007, "endpoints": {"rest": 5008}},
        }});
        assert_eq!(envoy.routes().put_routes(&routes).await.unwrap().status, 200);
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        browser.open(&envoy.api_url()).await.unwrap();
        browser.until(&crate::has_rows(5)).await.unwrap();
        let links = browser.eval("[...document.querySelectorAll('#rows a')].map((a) => [a.innerText, a.href])").await.unwrap();
        let url = |path: &str| format!("{}/agents/{path}", envoy.data_url());
        let expected = json!([
            ["both", url("both/")],
            ["ui", url("both/ui/")],
            ["with-rest", url("with-rest/")],
            ["with-ui", url("with-ui/ui/")],
            ["ui", url("with-ui/ui/")],
        ]);
        assert_eq!(links, expected);
        for (id, says) in [("with-rest", "rest says hello"), ("with-ui", "ui says hello")] {
            let page = links.as_array().unwrap().iter().find(|link| link[0] == id).unwrap()[1].as_str().unwrap();
            let seen = Browser::start(1200, 900, &[]).await.unwrap();
            seen.open(page).await.unwrap();
            shows(&seen, "hello", says).await;
        }
        browser.assert_clean().await.unwrap();
        assert_eq!(reqwest::Client::new().request(Method::GET, url("")).send().await.unwrap().status(), 400);
    }
}

#[tokio::test]
async fn links_follow_the_settings() {
    for (settings, link) in [
        (("PIXELL_EXTERNAL_ORIGINS", "https://*.a.test,https://agents.test"), Some("https://agents.test/agents/a/")),
        (("PIXELL_PATH_PREFIXES", "/a/{id}"), None),
    ] {
        let envoy = with_settings(&[settings]).start().await.unwrap();
        let routes = json!({"routes": {"a": {"port": 5000, "endpoints": {"rest": 5001}}}});
        assert_eq!(envoy.routes().put_routes(&routes).await.unwrap().status, 200);
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        browser.open(&envoy.api_url()).await.unwrap();
        browser.until(&crate::has_rows(1)).await.unwrap();
        let found = browser.eval("[...document.querySelectorAll('#rows a')].map((a) => a.href)").await.unwrap();
        assert_eq!(found, json!(link.into_iter().collect::<Vec<_>>()));
    }
}
