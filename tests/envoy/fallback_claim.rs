//! The fallback port together with a claim: what a token does not allow reaches the fallback as little as an agent.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::proto::DEPLOYMENT_ID;
use harness::{Envoy, agents, wait};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};

use crate::access_log_level::with_settings;
use crate::clients::http1;

/// The key that issuer and Envoy share.
const SECRET: [u8; 32] = *b"thirty-two bytes that are secret";

/// HMAC with SHA-256 (RFC 2104).
fn signature(text: &str) -> [u8; 32] {
    let mut block = [0; 64];
    block[..SECRET.len()].copy_from_slice(&SECRET);
    let hash = |pad: u8, message: &[u8]| -> [u8; 32] {
        let key = block.map(|byte| byte ^ pad);
        Sha256::new().chain_update(key).chain_update(message).finalize().into()
    };
    hash(0x5c, &hash(0x36, text.as_bytes()))
}

/// A valid token with this claim.
fn token(deployments: &Value) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({"iss": "i", "aud": "a", "exp": now + 600});
    if !deployments.is_null() {
        claims["deployments"] = deployments.clone();
    }
    let [head, body] = [json!({"alg": "HS256", "kid": "one"}), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{head}.{body}");
    let signature = URL_SAFE_NO_PAD.encode(signature(&signed));
    format!("{signed}.{signature}")
}

/// The agent that responded, or the reason why none did.
async fn ask(envoy: &Envoy, token: Option<&str>, id: &str, by_path: bool) -> String {
    let prefix = if by_path { format!("/agents/{id}") } else { String::new() };
    let mut request = http1().get(format!("{}{prefix}/x", envoy.data_url()));
    if !by_path {
        request = request.header(DEPLOYMENT_ID, id);
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    if let Some(reason) = response.headers().get("x-pixell-error") {
        return reason.to_str().unwrap().to_owned();
    }
    let seen: Value = response.json().await.unwrap();
    seen["agent"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_fallback_is_behind_the_claim() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("jwks.json");
    let key = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET), "kid": "one", "alg": "HS256"});
    std::fs::write(&keys, json!({"keys": [key]}).to_string()).unwrap();
    let (old, agent) = (agents::echo::start("old").unwrap(), agents::echo::start("agent").unwrap());
    let vars = [
        ("PIXELL_JWT_ISSUER", "i"),
        ("PIXELL_JWT_AUDIENCES", "a"),
        ("PIXELL_JWKS_FILE", keys.to_str().unwrap()),
        ("PIXELL_JWT_DEPLOYMENTS_CLAIM", "deployments"),
    ];
    let fallback = format!("\"deployments_claim\": \"deployments\", \"fallback_port\": {}", old.port());
    let envoy = with_settings(&vars).edit("\"deployments_claim\": \"deployments\"", &fallback).start().await.unwrap();

    let [of_a, of_new, of_all] = [json!(["a"]), json!(["new"]), json!("*")].map(|deployments| token(&deployments));
    // Before the first map, every id is one that it does not hold.
    let known = || async { Ok((ask(&envoy, Some(&of_new), "new", false).await == "old").then_some(())) };
    wait::until("the keys", Duration::from_secs(30), known).await.unwrap();
    assert_eq!(ask(&envoy, Some(&of_new), "a", false).await, "not_allowed");

    envoy.routes().put_all([("a", agent.port())]).await.unwrap();
    for by_path in [false, true] {
        for (token, id, expected) in [
            (Some(&of_a), "a", "agent"),
            (Some(&of_a), "new", "not_allowed"),
            (Some(&of_new), "new", "old"),
            (Some(&of_new), "a", "not_allowed"),
            (Some(&of_new), "newer", "not_allowed"),
            (Some(&of_all), "a", "agent"),
            (Some(&of_all), "anything", "old"),
            (None, "a", "unauthenticated"),
            (None, "new", "unauthenticated"),
        ] {
            assert_eq!(ask(&envoy, token.map(String::as_str), id, by_path).await, expected, "{id} {by_path}");
        }
        for nothing in [Value::Null, json!([]), json!("new"), json!(["*"])] {
            assert_eq!(ask(&envoy, Some(&token(&nothing)), "new", by_path).await, "not_allowed", "{nothing}");
        }
    }
    // A route that goes leads to the fallback, and only who was allowed to call it.
    envoy.routes().put_all([]).await.unwrap();
    assert_eq!(ask(&envoy, Some(&of_a), "a", false).await, "old");
    assert_eq!(ask(&envoy, Some(&of_new), "a", false).await, "not_allowed");
}
