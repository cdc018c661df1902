//! Tests of the settings of tokens, and of what they write.

use std::os::unix::fs::PermissionsExt;

use super::*;

type Vars<'v> = Vec<(&'v str, &'v str)>;

fn resolve(vars: &[(&str, &str)]) -> Result<Option<Jwt>, String> {
    let raw = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    Jwt::resolve(raw).map_err(|error| error.to_string())
}

/// The least that is needed, with a URL.
fn with<'v>(more: &[(&'v str, &'v str)]) -> Vars<'v> {
    let least = [(JWT_ISSUER, "https://i.test"), (JWT_AUDIENCES, "a"), (JWKS_URL, "https://i.test/keys")];
    more.iter().copied().chain(least.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name))).collect()
}

fn text_of(jwt: &Jwt) -> String {
    jwt.edits(&["x-agent".to_owned()]).into_iter().map(|edit| edit.text + "\n").collect()
}

#[test]
fn issuer_audience_and_keys_are_needed() {
    assert_eq!(resolve(&[]), Ok(None));
    let jwt = resolve(&with(&[(JWT_AUDIENCES, "a,b")])).unwrap().unwrap();
    assert_eq!(
        (&*jwt.issuer, &*jwt.audiences, jwt.claim(), jwt.forward),
        ("https://i.test", &["a".into(), "b".into()][..], None, false)
    );
    let text = text_of(&jwt);
    for part in [
        "issuer: \"https://i.test\"",
        "audiences: [\"a\", \"b\"]",
        "require_expiration: true",
        "{ match: { prefix: \"\" }, requires: { provider_name: pixell } }",
        "{ name: \"x-agent\", present_match: false }",
        "forward: false",
        "sni: \"i.test\"",
        "port_value: 443",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let such = "PIXELL_JWKS_URL is {}: expected the URL of a key set, https://host/path, perhaps with a port; http only to 127.0.0.1 or localhost";
    for url in [
        "keys",
        "ftp://i.test/k",
        "http://i.test/k",
        "https://i.test",
        "https:///k",
        "https://i.test:0/k",
        "https://u@i.test/k",
        "https://i.test/a b",
        "https://[::1]/k",
    ] {
        assert_eq!(resolve(&with(&[(JWKS_URL, url)])), Err(such.replace("{}", &shown::url(url))));
    }
    for (vars, expected) in [
        (
            vec![(JWT_ISSUER, "i")],
            "PIXELL_JWT_AUDIENCES is \"\": expected the `aud` of clients' tokens, or several of them separated by commas",
        ),
        (
            with(&[(JWT_AUDIENCES, "a, b")]),
            "PIXELL_JWT_AUDIENCES is \"a, b\": expected the `aud` of clients' tokens, or several of them separated by commas",
        ),
        (
            with(&[(JWT_AUDIENCES, "a,")]),
            "PIXELL_JWT_AUDIENCES is \"a,\": expected the `aud` of clients' tokens, or several of them separated by commas",
        ),
        (
            vec![(JWT_ISSUER, "i"), (JWT_AUDIENCES, "a")],
            "PIXELL_JWKS_FILE is \"\": expected the absolute path of a file with a JSON Web Key Set, or PIXELL_JWKS_URL in place of it",
        ),
        (with(&[(JWKS_FILE, "/k")]), "PIXELL_JWKS_FILE is \"/k\": expected nothing, because PIXELL_JWKS_URL is set"),
        (with(&[(JWKS_CACHE_SECONDS, "0")]), "PIXELL_JWKS_CACHE_SECONDS is \"0\": expected a whole number from 1 to 86400"),
        (with(&[(JWT_FORWARD, "yes")]), "PIXELL_JWT_FORWARD is \"yes\": expected one of off, on"),
        (
            with(&[(JWT_DEPLOYMENTS_CLAIM, "a\"b")]),
            "PIXELL_JWT_DEPLOYMENTS_CLAIM is \"a\\\"b\": expected the name of a claim, such as deployments",
        ),
        (
            vec![(JWT_ISSUER, "i"), (JWT_AUDIENCES, "a"), (JWKS_FILE, "/k"), (JWKS_CACHE_SECONDS, "9")],
            "PIXELL_JWKS_CACHE_SECONDS is \"9\": expected nothing, because PIXELL_JWKS_URL is not set",
        ),
        (
            vec![(JWKS_FILE, "/k")],
            "PIXELL_JWT_ISSUER is \"\": expected the `iss` of clients' tokens, because PIXELL_JWKS_FILE is set",
        ),
        (
            vec![(JWT_DEPLOYMENTS_CLAIM, "d")],
            "PIXELL_JWT_ISSUER is \"\": expected the `iss` of clients' tokens, because PIXELL_JWT_DEPLOYMENTS_CLAIM is set",
        ),
    ] {
        assert_eq!(resolve(&vars), Err(expected.to_owned()));
    }
}

#[test]
fn agents_get_the_token_only_if_that_is_set_and_the_claims_never() {
    let jwt = resolve(&with(&[(JWT_FORWARD, "on"), (JWT_DEPLOYMENTS_CLAIM, "d")])).unwrap().unwrap();
    let text = text_of(&jwt);
    assert!(text.contains("forward: true") && text.contains("forward_payload_header: x-pixell-claims"), "{text}");
    assert!(text.contains("request_headers_to_remove: [x-pixell-claims]"), "{text}");
}

#[test]
fn a_server_of_keys_may_be_near_and_without_tls() {
    let text = text_of(&resolve(&with(&[(JWKS_URL, "http://127.0.0.1:81/k"), (JWKS_CACHE_SECONDS, "7")])).unwrap().unwrap());
    assert!(
        text.contains("port_value: 81") && text.contains("cache_duration: 7s") && !text.contains("transport_socket"),
        "{text}"
    );
    let text = text_of(&resolve(&with(&[(JWKS_URL, "https://10.0.0.1/k"), (JWKS_CA_FILE, "/ca")])).unwrap().unwrap());
    assert!(
        !text.contains("sni:") && text.contains("san_type: IP_ADDRESS") && text.contains("trusted_ca: { filename: \"/ca\" }"),
        "{text}"
    );
}

#[test]
fn a_file_of_keys_is_checked() {
    let path = std::env::temp_dir().join(format!("pixell-envoy-jwks-{}", std::process::id()));
    let place = path.to_str().unwrap();
    let jwt = resolve(&[(JWT_ISSUER, "i"), (JWT_AUDIENCES, "a"), (JWKS_FILE, place)]).unwrap().unwrap();
    let begin = format!("PIXELL_JWKS_FILE is {path:?}: expected a JSON Web Key Set, but the file ");
    assert_eq!(jwt.check(), Err(begin.clone() + "cannot be read: No such file or directory (os error 2)"));
    for (content, expected) in [
        ("s3cret", None),
        ("{}", Some("has no member \"keys\" with a key in it")),
        ("{\"keys\": []}", Some("has no member \"keys\" with a key in it")),
        ("[]", Some("has no member \"keys\" with a key in it")),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = jwt.check().unwrap_err();
        assert!(error.starts_with(&begin) && !error.contains("s3cret"), "{error}");
        assert!(expected.is_none_or(|expected| error == begin.clone() + expected), "{error}");
    }
    std::fs::write(&path, "{\"keys\": [{\"kty\": \"RSA\", \"d\": \"s3cret\"}]}").unwrap();
    let begin = format!(
        "PIXELL_JWKS_FILE is {path:?}: expected a JSON Web Key Set, but /keys/0 is a private key (it has the member \"d\")"
    );
    let error = jwt.check().unwrap_err();
    assert!(error.starts_with(&begin) && !error.contains("s3cret"), "{error}");
    for (content, warns) in
        [("{\"keys\": [{\"kty\": \"RSA\"}]}", false), ("{\"keys\": [{\"kty\": \"oct\", \"k\": \"s3cret\"}]}", true)]
    {
        std::fs::write(&path, content).unwrap();
        for (mode, is_open) in [(0o644, true), (0o600, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(jwt.check(), Ok(()));
            let warning = jwt.warning();
            assert_eq!(warning.is_some(), warns && is_open, "{content} {mode:o}");
            assert!(warning.is_none_or(|text| text.starts_with("warning: PIXELL_JWKS_FILE is ") && !text.contains("s3cret")));
        }
    }
    std::fs::remove_file(&path).unwrap();
    let url = resolve(&with(&[(JWKS_CA_FILE, "/nonexistent")])).unwrap().unwrap();
    assert_eq!(
        url.check(),
        Err("PIXELL_JWKS_CA_FILE is \"/nonexistent\": expected a file with CA certificates for PIXELL_JWKS_URL, but it cannot be read: No such \
             file or directory (os error 2)"
            .to_owned())
    );
}
