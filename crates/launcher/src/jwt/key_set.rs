//! A file of keys: a JSON Web Key Set (RFC 7517) whose keys can verify tokens, but not make them.

use pixell_core::json::Json;

/// The members that only a private key has (RFC 7518, 6.2.2 and 6.3.2), and that of a shared key (6.4.1).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", SHARED];
const SHARED: &str = "k";

/// What is wrong with the set, in words that contain no part of a key.
pub(super) fn check(set: &Json) -> Result<(), String> {
    let keys = keys(set);
    if keys.is_empty() {
        return Err("the file has no member \"keys\" with a key in it".to_owned());
    }
    let private = keys.iter().enumerate().filter(|(_, key)| !is_shared(key)).find_map(|(index, key)| {
        let (name, _) = members(key).iter().find(|(name, _)| PRIVATE.contains(&name.as_str()))?;
        Some(format!(
            "/keys/{index} is a private key (it has the member {name:?}), with which its readers could make tokens: the file may hold \
             public keys only"
        ))
    });
    private.map_or(Ok(()), Err)
}

/// Whether a key of the set also makes tokens, because issuer and verifier share it (HS256).
pub(super) fn has_shared(set: &Json) -> bool {
    keys(set).iter().any(is_shared)
}

fn keys(set: &Json) -> &[Json] {
    let keys = members(set).iter().find_map(|(name, value)| match value {
        Json::Array(keys) if name == "keys" => Some(keys.as_slice()),
        _ => None,
    });
    keys.unwrap_or_default()
}

fn is_shared(key: &Json) -> bool {
    members(key).iter().any(|(name, value)| name == "kty" && matches!(value, Json::String(kind) if kind == "oct"))
}

fn members(json: &Json) -> &[(String, Json)] {
    match json {
        Json::Object(members) => members,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        check(&Json::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_private_key_is_named_by_its_place_alone() {
        let public = r#"{"kty": "EC", "crv": "P-256", "x": "a", "y": "b"}"#;
        assert_eq!(checked(&format!(r#"{{"keys": [{public}]}}"#)), Ok(()));
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            let private = format!(r#"{{"kty": "RSA", "n": "c", "e": "AQAB", "{member}": "the-secret"}}"#);
            let error = checked(&format!(r#"{{"keys": [{public}, {private}]}}"#)).unwrap_err();
            assert!(error.starts_with(&format!("/keys/1 is a private key (it has the member \"{member}\")")), "{error}");
            assert!(!error.contains("the-secret"), "{error}");
        }
    }

    #[test]
    fn a_shared_key_is_no_error() {
        let set = r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#;
        assert_eq!(checked(set), Ok(()));
        assert!(has_shared(&Json::parse(set.as_bytes()).unwrap()));
        assert!(!has_shared(&Json::parse(br#"{"keys": [{"kty": "EC"}, 1]}"#).unwrap()));
    }
}
