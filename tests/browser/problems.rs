//! Everything that can be red or amber: the page shows the problem, says what to do, and announces it.

use std::path::Path;
use std::time::Duration;

use harness::proto::DEPLOYMENT_ID;
use harness::tokens::{Algorithm, Issuer};
use harness::{Envoy, agents, certificate, ports};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agents::{FILTERS, with_settings};
use crate::driver::Browser;
use crate::{ask, shows, tells};

/// A page with one route and no problem.
async fn quiet_page(envoy: &Envoy) -> Browser {
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    browser
}

#[tokio::test]
async fn a_draining_envoy_is_not_ready() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = quiet_page(&envoy).await;
    envoy.admin_post("/healthcheck/fail").await.unwrap();
    tells(&browser, "bad", "Envoy says DRAINING", "draining before it ends", "not ready").await;
    assert_eq!(browser.text("ready").await.unwrap(), "DRAINING");
    envoy.admin_post("/healthcheck/ok").await.unwrap();
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    assert_eq!(browser.text("health").await.unwrap(), "Live");
}

#[tokio::test]
async fn a_crash_of_the_filter_stays_on_the_page() {
    let modules = harness::envoy::modules::locate_trap().unwrap();
    let envoy = Envoy::builder().modules(modules).start().await.unwrap();
    let browser = quiet_page(&envoy).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let trap = || client.get(envoy.data_url()).header("x-deployment-id", "a").header("x-test-trap", "1");
    // The response to this request does not matter. Envoy restarts the filter at the worker's next request, and any worker may get a
    // connection.
    drop(trap().send().await);
    let is_restarted = || async {
        // All at once, because one idle worker might take one after the other.
        futures_util::future::join_all((0..50).map(|_| ask(&envoy, None))).await;
        Ok((envoy.stats().await?.sum(r"^wasm\.pixell\.router\.vm_reload_success$")? > 0).then_some(()))
    };
    harness::wait::until("the filter to be restarted", Duration::from_secs(10), is_restarted).await.unwrap();
    tells(&browser, "bad", "The filter has crashed and was restarted", "please report it", "the filter has crashed").await;
}

/// The limit is below what Envoy uses without traffic. Envoy may then reset any stream, even one of the page, so the test does not check
/// the console.
#[tokio::test]
async fn memory_near_its_limit_is_a_problem() {
    let heap = "max_heap_size_bytes: 369098752";
    let envoy = Envoy::builder().edit(heap, "max_heap_size_bytes: 20971520").start().await.unwrap();
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    tells(&browser, "bad", "% of the limit of memory is used", "clients and agents that do not read", "memory run out").await;
}

#[tokio::test]
async fn connections_near_their_limit_are_a_problem_until_they_close() {
    let shipped = "max_active_downstream_connections: 10000";
    let envoy = Envoy::builder().edit(shipped, &shipped.replace("10000", "5")).start().await.unwrap();
    let browser = quiet_page(&envoy).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpStream::connect(envoy.data_addr()).await.unwrap());
    }
    tells(
        &browser,
        "bad",
        "80 % of the limit of connections is used",
        "clients and agents that do not read",
        "connections run out",
    )
    .await;
    drop(held);
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    browser.assert_clean().await.unwrap();
}

#[tokio::test]
async fn dropped_lines_of_the_log_are_a_problem_but_a_count_of_none_is_not() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.tell_dropped_lines(0, 0).await.unwrap();
    let browser = quiet_page(&envoy).await;
    envoy.tell_dropped_lines(1200, 34).await.unwrap();
    tells(&browser, "bad", "1,234 × line of the log dropped", "log driver stalled", "log lines dropped").await;
    browser.assert_clean().await.unwrap();
}

/// A wrong token is a problem. A precondition that keeps two writers apart is not.
#[tokio::test]
async fn rejected_writes_are_shown_by_reason_and_a_failed_precondition_is_no_problem() {
    const TOKEN: &str = "a-token-for-the-problems";
    let envoy = Envoy::builder().env("PIXELL_ADMIN_TOKEN", TOKEN).start().await.unwrap();
    envoy.routes().token(TOKEN).put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('route-count').innerText === '1'").await.unwrap();
    let routes = envoy.routes().token(TOKEN);
    let stale = routes.request(Method::DELETE, "/v1/routes/a").header("if-match", "\"0-0\"").send().await.unwrap();
    assert_eq!(stale.status(), 412);
    let seen = "seen.writes.sum('precondition_failed', 60) === 1";
    browser.until(seen).await.unwrap();
    browser.until("document.getElementById('problems').hidden").await.unwrap();
    let wrong = envoy.routes().token("wrong").request(Method::DELETE, "/v1/routes/a").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    tells(
        &browser,
        "bad",
        "write to the route map rejected, unauthorized",
        "PIXELL_ADMIN_TOKEN differ",
        "writes rejected: unauthorized",
    )
    .await;
}

/// Errors of clients are amber, and each reason has its own advice.
#[tokio::test]
async fn each_error_of_clients_is_a_warning_with_its_own_advice() {
    let envoy = Envoy::builder().start().await.unwrap();
    let agent = agents::echo::start("a").unwrap();
    let draining = json!({"routes": {"a": {"port": agent.port()}, "b": {"port": 5001, "state": "draining"}}});
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until(&shows("problems", "No route map has been pushed")).await.unwrap();
    assert_eq!(ask(&envoy, Some("a")).await, 503);
    browser.until(&shows("problems", "1 × route_map_not_loaded")).await.unwrap();
    assert_eq!(envoy.routes().put_routes(&draining).await.unwrap().status, 200);
    assert_eq!(ask(&envoy, Some("b")).await, 503);
    assert_eq!(ask(&envoy, Some("not an id")).await, 400);
    assert_eq!(ask(&envoy, None).await, 400);
    tells(&browser, "warn", "1 × deployment_draining", "PAR left them draining", "deployment_draining").await;
    tells(&browser, "warn", "1 × invalid_deployment_id", "not an id, or several different ids", "invalid_deployment_id").await;
    tells(&browser, "warn", "1 × missing_deployment_id", "fix these clients", "missing_deployment_id").await;
    browser.assert_clean().await.unwrap();
}

#[tokio::test]
async fn a_displaced_route_is_a_warning() {
    let envoy = Envoy::builder().start().await.unwrap();
    let browser = quiet_page(&envoy).await;
    let taken = envoy.routes().request(Method::PUT, "/v1/routes/b").json(&json!({"port": 5000})).send().await.unwrap();
    assert_eq!(taken.status(), 201);
    tells(
        &browser,
        "warn",
        "1 × route displaced by another id in the last minute",
        "names both ids and the port",
        "displaced routes",
    )
    .await;
}

/// A stock Envoy cannot make the filter fail with `internal`, so the test gives the page a counter that says it did.
#[tokio::test]
async fn an_internal_error_of_the_filter_is_red() {
    let envoy = Envoy::builder().start().await.unwrap();
    envoy.routes().put_all([("a", 5000)]).await.unwrap();
    let browser = Browser::start(1200, 900, &[]).await.unwrap();
    let fake = "(() => { const real = window.fetch; window.fetch = async (path, options) => {
        const response = await real(path, options);
        if (!path.startsWith('/stats') || !window.internalErrors) return response;
        const found = await response.json(), name = 'wasmcustom.pixell_rejections_total.reason.internal';
        found.stats = found.stats.filter((one) => one.name !== name).concat({name, value: window.internalErrors});
        return new Response(JSON.stringify(found), {headers: response.headers});
    }; })()";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": fake})).await.unwrap();
    browser.open(&envoy.api_url()).await.unwrap();
    browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
    browser.eval("window.internalErrors = 2").await.unwrap();
    tells(&browser, "bad", "2 × internal in the last minute", "Envoy’s log says which", "internal").await;
}

/// Envoy's own rejections have their advice, and so has what they need: keys that cannot be fetched, a certificate that ends soon.
#[tokio::test]
async fn tokens_rates_and_certificates_have_their_advice() {
    for filter in FILTERS {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = certificate::self_signed(directory.path(), 5).unwrap();
        // Nobody listens at this port.
        let tokens = [
            ("PIXELL_JWT_ISSUER", "i"),
            ("PIXELL_JWT_AUDIENCES", "a"),
            ("PIXELL_JWKS_URL", "http://127.0.0.1:9/keys"),
            ("PIXELL_TLS_CERT_FILE", certificate.to_str().unwrap()),
            ("PIXELL_TLS_KEY_FILE", key.to_str().unwrap()),
        ];
        let envoy = with_settings(&tokens).filter(filter).start().await.unwrap();
        envoy.routes().put_all([("a", 5000)]).await.unwrap();
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        browser.open(&envoy.api_url()).await.unwrap();
        tells(&browser, "bad", "The certificate expires in 4 days", "Envoy reads them again", "the certificate expires").await;
        tells(&browser, "bad", "fetch of the keys of tokens failed", "The last keys stay in use", "fetch of the keys").await;

        let agent = agents::echo::start("a").unwrap();
        let envoy = with_settings(&[("PIXELL_RATE_LIMIT", "1/m")]).filter(filter).start().await.unwrap();
        envoy.routes().put_all([("a", agent.port())]).await.unwrap();
        browser.open(&envoy.api_url()).await.unwrap();
        browser.until("document.getElementById('health').innerText === 'Live'").await.unwrap();
        for _ in 0..3 {
            ask(&envoy, Some("a")).await;
        }
        tells(&browser, "warn", "× rate_limited", "more often than PIXELL_RATE_LIMIT allows", "rate_limited").await;

        let ca = directory.path().join("ca.crt");
        std::fs::copy(&certificate, &ca).unwrap();
        let files = [tokens[3], tokens[4], ("PIXELL_TLS_CLIENT_CA_FILE", ca.to_str().unwrap())];
        let envoy = with_settings(&files).filter(filter).start().await.unwrap();
        envoy.routes().put_all([("a", agent.port())]).await.unwrap();
        browser.open(&envoy.api_url()).await.unwrap();
        browser.until("document.getElementById('health').innerText === 'Live, with problems'").await.unwrap();
        let advice = "Does the file of PIXELL_TLS_CLIENT_CA_FILE hold certificates in PEM?";
        tells_of_file(&browser, &ca, "new CA of clients not used", advice).await;
        let advice = "if certificate and key have just been replaced";
        tells_of_file(&browser, &key, "new certificate not used", advice).await;
    }
}

#[tokio::test]
async fn certificates_between_tasks_have_their_advice() {
    for filter in FILTERS {
        let directory = tempfile::tempdir().unwrap();
        let files = certificate::of_peers(directory.path()).unwrap();
        let mut vars: Vec<_> = files.iter().map(|(name, value)| (*name, value.as_str())).collect();
        vars.push(("PIXELL_FLEET_CIDRS", "10.0.0.0/8"));
        let start = |_| with_settings(&vars).filter(filter).peer_port(ports::any_free().unwrap());
        let envoy = Envoy::on_free_port(start).await.unwrap();
        envoy.routes().put_all([("a", 5000)]).await.unwrap();
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        browser.open(&envoy.api_url()).await.unwrap();
        tells(&browser, "bad", "The certificate expires in 1 day", "PIXELL_PEER_CERT_FILE", "the certificate expires").await;
        let advice = "Does the file of PIXELL_PEER_CA_FILE hold certificates in PEM?";
        tells_of_file(&browser, &directory.path().join("ca.crt"), "new CA of tasks not used", advice).await;
        let title = "new certificate between tasks not used";
        tells_of_file(&browser, &directory.path().join("peer.key"), title, "no other task can be reached").await;
        assert!(!browser.eval(&shows("problems", "new certificate not used")).await.unwrap().as_bool().unwrap());
    }
}

/// Replaces a file by one that Envoy cannot use. The page must be there before, so that it sees Envoy fail.
async fn tells_of_file(browser: &Browser, file: &Path, title: &str, advice: &str) {
    assert!(!browser.eval(&shows("problems", title)).await.unwrap().as_bool().unwrap(), "{title}");
    let next = file.with_extension("next");
    std::fs::write(&next, "-----BEGIN nothing").unwrap();
    std::fs::rename(next, file).unwrap();
    tells(browser, "bad", title, advice, title).await;
}

/// Clients without a valid token, and clients whose token does not allow what they call. A preflight with a body is one of the first.
#[tokio::test]
async fn clients_without_a_right_are_a_warning() {
    for filter in FILTERS {
        let directory = tempfile::tempdir().unwrap();
        let issuer = Issuer::new(directory.path(), Algorithm::Hs256).unwrap();
        let mut vars = issuer.settings(directory.path()).unwrap();
        vars.push(("PIXELL_JWT_DEPLOYMENTS_CLAIM", "deployments".to_owned()));
        let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let envoy = with_settings(&vars).filter(filter).start().await.unwrap();
        let agent = agents::echo::start("a").unwrap();
        envoy.routes().put_all([("a", agent.port()), ("b", 5000)]).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let token = issuer.token("alice", &json!({"deployments": ["a"]})).unwrap();
        let call = async |id: &str, token: &str| {
            client.get(envoy.data_url()).header(DEPLOYMENT_ID, id).bearer_auth(token).send().await.unwrap().status().as_u16()
        };
        let has_keys = || async { Ok((call("a", &token).await == 200).then_some(())) };
        harness::wait::until("Envoy to have the keys", Duration::from_secs(20), has_keys).await.unwrap();

        // What came before the page was opened is not shown.
        let browser = Browser::start(1200, 900, &[]).await.unwrap();
        browser.open(&envoy.api_url()).await.unwrap();
        browser
            .until("document.getElementById('health').dataset.level !== 'unknown' && seen.rejections.last !== null")
            .await
            .unwrap();
        assert!(!browser.eval(&shows("problems", "unauthenticated")).await.unwrap().as_bool().unwrap());
        assert!(!browser.eval(&shows("problems", "not_allowed")).await.unwrap().as_bool().unwrap());

        assert_eq!([ask(&envoy, Some("a")).await, call("a", "no token").await], [401, 401]);
        let advice =
            "Clients have no valid token. The access log names them (caller, user_agent) and the reason (code_details).";
        tells(&browser, "warn", "2 × unauthenticated in the last minute", advice, "unauthenticated").await;

        // Without a length, so that it takes a look at the body to tell it from what a browser sends.
        let preflight = "OPTIONS /agents/a/x HTTP/1.1\r\nhost: agents\r\norigin: https://page.test\r\naccess-control-request-method: GET\r\n\
            connection: close\r\ntransfer-encoding: chunked\r\n\r\n6\r\na body\r\n0\r\n\r\n";
        let mut stream = TcpStream::connect(envoy.data_addr()).await.unwrap();
        stream.write_all(preflight.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
        tells(&browser, "warn", "3 × unauthenticated in the last minute", advice, "unauthenticated").await;

        assert_eq!(call("b", &token).await, 403);
        let advice =
            "Clients call deployments that their tokens do not allow. The access log names them (subject, caller) and the id.";
        tells(&browser, "warn", "1 × not_allowed in the last minute", advice, "not_allowed").await;
        browser.assert_clean().await.unwrap();
    }
}
