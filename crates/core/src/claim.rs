//! Which deployments a client's token allows it to call, by one claim of the token.

use crate::deployment_id::DeploymentId;
use crate::json::Json;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The header in which Envoy hands over the payload of a token that it has verified, in base64url. Clients' own are removed before, and agents
/// do not get it (see envoy.yaml and the launcher's `jwt.rs`).
pub const CLAIMS_HEADER: &str = "x-pixell-claims";

/// The value of the claim that allows every deployment.
const EVERY: &str = "*";

/// The name of the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentsClaim(String);

impl DeploymentsClaim {
    /// The claim with this name; `None` if it is empty.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self(name.to_owned()))
    }

    /// Whether the token with this payload, as [`CLAIMS_HEADER`] has it, allows a client to call `id`. The claim must be the text `*` or an array of
    /// ids. Anything else allows nothing, and so does an array with one element that is no id, or a claim that is there twice.
    #[must_use]
    pub fn allows(&self, payload: Option<&[u8]>, id: DeploymentId<'_>) -> bool {
        let Some(Json::Object(claims)) = payload.and_then(decode) else { return false };
        let mut found = claims.iter().filter(|(name, _)| *name == self.0).map(|(_, value)| value);
        match (found.next(), found.next()) {
            (Some(Json::String(every)), None) => every == EVERY,
            (Some(Json::Array(ids)), None) => {
                let ids: Option<Vec<_>> = ids.iter().map(parse).collect();
                ids.is_some_and(|ids| ids.contains(&id))
            }
            _ => false,
        }
    }
}

fn parse(element: &Json) -> Option<DeploymentId<'_>> {
    match element {
        Json::String(text) => DeploymentId::parse(text.as_bytes()).ok(),
        _ => None,
    }
}

fn decode(payload: &[u8]) -> Option<Json> {
    Json::parse(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn allows(payload: &str, id: &str) -> bool {
        let claim = DeploymentsClaim::named("deployments").expect("not empty");
        let encoded = URL_SAFE_NO_PAD.encode(payload);
        claim.allows(Some(encoded.as_bytes()), DeploymentId::parse(id.as_bytes()).expect("valid"))
    }

    #[test]
    fn an_array_allows_the_ids_in_it_and_a_star_all() {
        for (payload, a, b) in [
            (r#"{"sub":"x","deployments":["a"]}"#, true, false),
            (r#"{"deployments":["b","a"]}"#, true, true),
            (r#"{"deployments":"*"}"#, true, true),
            (r#"{"deployments":["\u0061"]}"#, true, false),
            (r#"{"deployments":["A"]}"#, false, false),
            (r#"{"deployments":[]}"#, false, false),
        ] {
            assert_eq!((allows(payload, "a"), allows(payload, "b")), (a, b), "{payload}");
        }
    }

    #[test]
    fn an_absent_or_malformed_claim_allows_nothing() {
        for payload in [
            "",
            "{}",
            "[]",
            "null",
            "\"*\"",
            "{\"deployments\":\"*\"",
            r#"{"Deployments":["a"]}"#,
            r#"{"x":{"deployments":["a"]}}"#,
            r#"{"deployments":null}"#,
            r#"{"deployments":true}"#,
            r#"{"deployments":1}"#,
            r#"{"deployments":{"a":true}}"#,
            r#"{"deployments":"a"}"#,
            r#"{"deployments":""}"#,
            r#"{"deployments":"**"}"#,
            r#"{"deployments":" *"}"#,
            r#"{"deployments":["*"]}"#,
            r#"{"deployments":["a","*"]}"#,
            r#"{"deployments":["a",1]}"#,
            r#"{"deployments":["a",null]}"#,
            r#"{"deployments":["a",["a"]]}"#,
            r#"{"deployments":["a","not an id"]}"#,
            r#"{"deployments":["a",""]}"#,
            r#"{"deployments":[["a"]]}"#,
            r#"{"deployments":["a"],"deployments":"*"}"#,
            r#"{"deployments":["a"],"deployments":["a"]}"#,
        ] {
            assert!(!allows(payload, "a"), "{payload}");
        }
        let claim = DeploymentsClaim::named("deployments").expect("not empty");
        let a = DeploymentId::parse(b"a").expect("valid");
        let whole = URL_SAFE_NO_PAD.encode(r#"{"deployments":"*"}"#);
        let (twice, padded, cut) = (format!("{whole},{whole}"), format!("{whole}="), &whole[..whole.len() - 1]);
        for payload in [None, Some(""), Some("*"), Some(twice.as_str()), Some(padded.as_str()), Some(cut), Some("e30")] {
            assert!(!claim.allows(payload.map(str::as_bytes), a), "{payload:?}");
        }
        assert!(!claim.allows(Some(b"\xff\0"), a));
        assert!(claim.allows(Some(whole.as_bytes()), a));
        assert_eq!(DeploymentsClaim::named(""), None);
    }
}
