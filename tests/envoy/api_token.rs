//! The bearer token: it is needed only below /v1/, and shown nowhere.

use harness::Envoy;
use harness::envoy::is_native;
use reqwest::{Client, Method};

use crate::api::{Api, no_vm_fell_over, problem};

const VARIABLE: &str = "PIXELL_ADMIN_TOKEN";
const TOKEN: &str = "kX5-._~+/vB9pSf0q1nT==";

#[tokio::test]
async fn the_token_is_needed_for_everything_below_v1_and_shown_nowhere() {
    let envoy = Envoy::builder().env(VARIABLE, TOKEN).start().await.unwrap();
    let api = Api::open_as(&envoy, Some(TOKEN)).await;
    assert_eq!(api.call("PUT", "/v1/routes", r#"{"routes":{"a":2000}}"#).await.status, 200);
    let before = api.map().await;

    let client = Client::builder().no_proxy().build().unwrap();
    let ask = async |method: &str, path: &str, authorization: &[&str]| {
        let mut request = client.request(Method::from_bytes(method.as_bytes()).unwrap(), envoy.api_url() + path);
        for value in authorization {
            request = request.header("authorization", *value);
        }
        harness::RouteApi::send(request.header("content-type", "application/json").body(r#"{"routes":{}}"#)).await.unwrap()
    };
    let wrong = [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        "Basic a1g1",
        "Bearer kX5-._~+/vB9pSf0q1nT=",
        "Bearer kX5-._~+/vB9pSf0q1nT===",
        "Bearer kX5-._~+/vB9pSf0q1nU==",
        "Bearer KX5-._~+/VB9PSF0Q1NT==",
        "Bearer \"kX5-._~+/vB9pSf0q1nT==\"",
        "Token kX5-._~+/vB9pSf0q1nT==",
        "Bearer x kX5-._~+/vB9pSf0q1nT==",
    ];
    let mut responses = Vec::new();
    for (method, path) in [
        ("PUT", "/v1/routes"),
        ("GET", "/v1/routes"),
        ("PATCH", "/v1/routes"),
        ("GET", "/v1/routes/a"),
        ("DELETE", "/v1/routes/a"),
        ("GET", "/v1/status"),
        // Strangers do not learn which paths exist, or what is wrong with their request.
        ("GET", "/v1/nowhere"),
        ("GET", "/v1"),
        ("POST", "/v1/routes"),
        ("GET", "/v1/routes/none"),
        ("PUT", "/v1/routes/%zz"),
        ("PUT", "/v1/routes?x"),
        ("GET", "//v1/./routes"),
        // Envoy's own list of agents' ports.
        ("GET", "/clusters"),
        ("GET", "/%63lusters?format=json"),
    ] {
        responses.push(ask(method, path, &[]).await);
        for value in wrong {
            responses.push(ask(method, path, &[value]).await);
        }
        responses.push(ask(method, path, &[&format!("Bearer {TOKEN}"), "Bearer x"]).await);
    }
    for response in &responses {
        assert_eq!(problem(response)["code"], "unauthorized", "{response}");
        assert_eq!(
            (response.status.as_u16(), response.header("www-authenticate")),
            (401, Some("Bearer realm=\"pixell-envoy\""))
        );
        assert_eq!(response.header("etag"), None);
        assert_eq!(response.body, responses[0].body, "each stranger gets the same response");
    }
    assert_eq!(api.map().await, before);
    for value in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}"), format!("BEARER  {TOKEN}")] {
        assert_eq!(ask("GET", "/v1/routes", &[&value]).await.status, 200, "{value}");
    }
    // Readiness and stats need no token, and do not lead to the API.
    for path in ["/ready", "/stats", "/server_info"] {
        assert_eq!(ask("GET", path, &[]).await.status, 200);
    }

    // The errors of an authorised client, and everything that Envoy shows of itself to clients and operators.
    let mut shown = String::new();
    for (method, target, body) in [
        ("PUT", "/v1/routes", "{"),
        ("PUT", "/v1/routes/a", "80"),
        ("POST", "/v1/routes", ""),
        ("GET", "/v1/x", ""),
        ("GET", "/v1/status", ""),
    ] {
        let response = api.call(method, target, body).await;
        shown += &format!("{response} {:?}", response.headers);
    }
    for path in
        ["/server_info", "/config_dump?include_eds", "/stats", "/clusters", "/listeners", "/runtime", "/init_dump", "/certs"]
    {
        shown += &envoy.admin(path).await.unwrap();
    }
    shown += &envoy.log();
    shown += &String::from_utf8_lossy(&responses[0].body);
    // The native filter reads its environment by itself.
    assert!(is_native() || shown.contains(VARIABLE), "what was read includes the configuration, which names the variable");
    assert!(!shown.contains(TOKEN.trim_matches('=')), "the token is shown");
    no_vm_fell_over(&envoy, &api).await;
}

#[tokio::test]
async fn without_a_configured_token_loopback_is_enough_and_a_sent_token_does_no_harm() {
    let envoy = Envoy::builder().start().await.unwrap();
    assert_eq!(envoy.routes().status().await.unwrap().status, 200);
    assert_eq!(envoy.routes().token(TOKEN).status().await.unwrap().status, 200);
}

/// An empty or damaged secret must not open the API.
#[tokio::test]
async fn an_invalid_token_keeps_envoy_from_starting() {
    for token in ["", " ", "two words", "tab\tbed", "s3cret-ä", "==", "s3=cret"] {
        let error = Envoy::builder().env(VARIABLE, token).start().await.unwrap_err().to_string();
        assert!(error.contains("Envoy ended at its start"), "{token:?}: {error}");
        assert!(error.contains("PIXELL_ADMIN_TOKEN is empty or holds characters other than"), "{token:?}: {error}");
        assert!(error.contains("openssl rand"), "the error says what to do: {error}");
        assert!(token.trim().len() < 3 || !error.contains(token), "the error does not repeat the value: {error}");
    }
}
