//! Tests of the settings of TLS, and of what they write.

use super::*;
use std::os::unix::fs::symlink;

fn resolve(vars: &[(&str, &str)]) -> Result<Option<Tls>, String> {
    let raw = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    Tls::resolve(raw).map_err(|error| error.to_string())
}

fn files(certificate: &str, key: &str, client_ca: Option<&str>) -> Tls {
    let client_ca = client_ca.map(str::to_owned);
    Tls { names: &NAMES, certificate: certificate.to_owned(), key: key.to_owned(), client_ca, san: None }
}

#[test]
fn certificate_and_key_are_set_together() {
    assert_eq!(resolve(&[]), Ok(None));
    let pair = [(TLS_CERT_FILE, "/c"), (TLS_KEY_FILE, "/k")];
    assert_eq!(resolve(&pair), Ok(Some(files("/c", "/k", None))));
    assert_eq!(resolve(&[pair[0], pair[1], (TLS_CLIENT_CA_FILE, "/ca")]), Ok(Some(files("/c", "/k", Some("/ca")))));
    for (vars, expected) in [
        (
            vec![pair[0]],
            "PIXELL_TLS_KEY_FILE is \"\": expected the absolute path of a file, because PIXELL_TLS_CERT_FILE is set",
        ),
        (
            vec![pair[1]],
            "PIXELL_TLS_CERT_FILE is \"\": expected the absolute path of a file, because PIXELL_TLS_KEY_FILE is set",
        ),
        (
            vec![(TLS_CLIENT_CA_FILE, "/ca")],
            "PIXELL_TLS_CERT_FILE is \"\": expected the absolute path of a file, because PIXELL_TLS_CLIENT_CA_FILE is set",
        ),
        (
            vec![(TLS_CERT_FILE, "c.pem"), pair[1]],
            "PIXELL_TLS_CERT_FILE is not shown, because its 5 bytes are not an absolute path: expected the absolute path of a file with the server's certificates, in PEM",
        ),
        (
            vec![pair[0], (TLS_KEY_FILE, "/k/")],
            "PIXELL_TLS_KEY_FILE is \"/k/\": expected the absolute path of a file with the server's private key, in PEM",
        ),
        (
            vec![pair[0], pair[1], (TLS_CLIENT_CA_FILE, "ca\n")],
            "PIXELL_TLS_CLIENT_CA_FILE is not shown, because its 3 bytes are not an absolute path: expected the absolute path of a file with the CA certificates of clients, in PEM",
        ),
    ] {
        assert_eq!(resolve(&vars), Err(expected.to_owned()));
    }
}

#[test]
fn clients_need_a_certificate_only_if_their_ca_is_set() {
    let [socket, _log] = files("/c", "/k", None).edits();
    assert!(socket.text.contains("require_client_certificate: false") && !socket.text.contains("client_ca"), "{}", socket.text);
    let [socket, _log] = files("/c", "/k", Some("/ca")).edits();
    assert!(socket.text.contains("require_client_certificate: true"), "{}", socket.text);
    assert!(socket.text.contains("path: /run/pixell-envoy/tls-client-ca.yaml"), "{}", socket.text);
}

#[test]
fn a_change_is_looked_for_where_it_shows() {
    let home = std::env::temp_dir().join(format!("pixell-envoy-watched-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(home.join("v1")).unwrap();
    std::fs::write(home.join("v1/crt"), "").unwrap();
    symlink("v1", home.join("current")).unwrap();
    // As Kubernetes and cert-manager lay out a secret.
    symlink("current/crt", home.join("crt")).unwrap();
    let home = home.canonicalize().unwrap();
    let found = |path: &str| watched(home.join(path).to_str().unwrap());
    assert_eq!(found("v1/crt"), home.join("v1"));
    assert_eq!(found("current/crt"), home);
    assert_eq!(found("crt"), home);
    assert_eq!(watched("/crt"), Path::new("/"));
    let secrets = files("/a/c", "/a/\"k\\", None).secrets();
    assert_eq!(secrets.len(), 1);
    assert!(secrets[0].1.contains("private_key: { filename: \"/a/\\\"k\\\\\" }"), "{}", secrets[0].1);
    assert!(secrets[0].1.contains("watched_directory: { path: \"/a\", watch_modify: true }"), "{}", secrets[0].1);
    assert!(!files("/a/c", "/b/k", None).secrets()[0].1.contains("watched_directory"));
    std::fs::remove_dir_all(home).unwrap();
}

#[test]
fn a_file_that_cannot_be_used_is_named_without_its_content() {
    let home = std::env::temp_dir().join(format!("pixell-envoy-tls-{}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    let (key, gone) = (home.join("key"), home.join("gone"));
    std::fs::write(&key, "s3cret").unwrap();
    let (key, gone) = (key.to_str().unwrap(), gone.to_str().unwrap());
    let check = |certificate, key| files(certificate, key, None).check(Path::new("/nonexistent/envoy")).unwrap_err();
    assert_eq!(
        check(gone, key),
        format!(
            "PIXELL_TLS_CERT_FILE is {gone:?}: expected a file in PEM, but it cannot be read: No such file or directory (os error 2)"
        )
    );
    assert_eq!(check(key, key), format!("PIXELL_TLS_CERT_FILE is {key:?}: expected a file in PEM, but it holds no PEM block"));
    assert!(check("/dev/zero", key).contains("it is larger than 1 MiB"));
    std::fs::remove_dir_all(home).unwrap();
}

#[test]
fn the_reason_is_envoys_unless_there_is_a_plainer_one() {
    let line =
        "[2026-01-01 00:00:00.000][1][critical][main] [server.cc:76] error initializing configuration '': Failed to load x\n";
    assert_eq!(reason(line), "Envoy does not accept them: Failed to load x");
    assert_eq!(reason("... OPENSSL_internal:KEY_VALUES_MISMATCH\n"), "the key does not belong to the first certificate");
}
