//! Tests of the settings: which values are allowed, and the errors for all others.

use super::names::{NAMES, NAMES_OF_PAR};
use super::*;

fn resolve(vars: &[(&str, &str)]) -> Result<Settings, Vec<SettingError>> {
    Settings::resolve(|name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
}

#[track_caller]
fn check_args(vars: &[(&str, &str)], expected: &str) {
    assert_eq!(resolve(vars).unwrap().envoy_args().join(" "), expected);
}

#[track_caller]
fn check_errors(vars: &[(&str, &str)], expected: &[&str]) {
    let errors: Vec<String> = resolve(vars).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected);
}

#[test]
fn settings_become_arguments() {
    check_args(&[], "--log-level info");
    check_args(&[(LOG_LEVEL, ""), (CONCURRENCY, "")], "--log-level info");
    check_args(&[(LOG_LEVEL, "debug"), (CONCURRENCY, "2")], "--log-level debug --concurrency 2");
    check_args(&[(CONCURRENCY, "256")], "--log-level info --concurrency 256");
}

#[test]
fn the_filter_is_wasm_unless_set() {
    assert_eq!([resolve(&[]), resolve(&[(FILTER, "wasm")])].map(|settings| settings.unwrap().filter), [Filter::Wasm; 2]);
    assert_eq!(resolve(&[(FILTER, "native")]).unwrap().filter, Filter::Native);
    check_errors(&[(FILTER, "Native")], &["PIXELL_FILTER is \"Native\": expected one of wasm, native"]);
}

#[test]
fn the_drain_time_has_a_default_and_may_be_zero() {
    assert_eq!(resolve(&[]).unwrap().drain, Duration::from_secs(30));
    assert_eq!(resolve(&[(DRAIN_SECONDS, "0")]).unwrap().drain, Duration::ZERO);
    assert_eq!(resolve(&[(DRAIN_SECONDS, "3600")]).unwrap().drain, Duration::from_secs(3600));
}

#[test]
fn connections_have_an_age_only_if_it_is_set() {
    let age = |value| resolve(&[(MAX_CONNECTION_SECONDS, value)]).unwrap().max_connection_seconds;
    assert_eq!([age(""), age("1"), age("86400")], [None, Some(1), Some(86400)]);
    for value in ["0", "86401", "60s"] {
        let expected = format!("PIXELL_MAX_CONNECTION_SECONDS is {value:?}: expected a whole number from 1 to 86400");
        check_errors(&[(MAX_CONNECTION_SECONDS, value)], &[&expected]);
    }
}

#[test]
fn calls_have_a_limit_and_origins_are_known_only_if_they_are_set() {
    let settings = resolve(&[]).unwrap();
    assert_eq!((settings.call_timeout_seconds, settings.external_origins), (None, Vec::new()));
    let settings = resolve(&[(CALL_TIMEOUT_SECONDS, "60"), (EXTERNAL_ORIGINS, "https://a.test,http://b.test")]).unwrap();
    assert_eq!((settings.call_timeout_seconds, settings.external_origins.len()), (Some(60), 2));
    check_errors(
        &[(CALL_TIMEOUT_SECONDS, "0"), (EXTERNAL_ORIGINS, "a.test")],
        &[
            "PIXELL_CALL_TIMEOUT_SECONDS is \"0\": expected a whole number from 1 to 86400",
            &format!("PIXELL_EXTERNAL_ORIGINS is \"a.test\": expected {}", origin::EXPECTED),
        ],
    );
}

#[test]
fn an_error_names_the_variable_the_value_and_what_is_allowed() {
    check_errors(&[(CONCURRENCY, "0")], &["PIXELL_CONCURRENCY is \"0\": expected a whole number from 1 to 256"]);
    check_errors(&[(CONCURRENCY, "two")], &["PIXELL_CONCURRENCY is \"two\": expected a whole number from 1 to 256"]);
    check_errors(&[(DRAIN_SECONDS, "30s")], &["PIXELL_DRAIN_SECONDS is \"30s\": expected a whole number from 0 to 3600"]);
    check_errors(&[(DRAIN_SECONDS, "-1")], &["PIXELL_DRAIN_SECONDS is \"-1\": expected a whole number from 0 to 3600"]);
    check_errors(&[(DRAIN_SECONDS, " ")], &["PIXELL_DRAIN_SECONDS is \" \": expected a whole number from 0 to 3600"]);
}

#[test]
fn the_access_log_and_tracing_are_set() {
    assert_eq!(resolve(&[]).unwrap().access_log, AccessLog { full: 100, brief: 0 });
    assert_eq!(resolve(&[(ACCESS_LOG_PERCENT, "10")]).unwrap().access_log, AccessLog { full: 10, brief: 0 });
    let brief = resolve(&[(ACCESS_LOG, "brief"), (ACCESS_LOG_PERCENT, "5")]).unwrap();
    assert_eq!(brief.access_log, AccessLog { full: 0, brief: 5 });
    assert_eq!(resolve(&[(ACCESS_LOG, "failures")]).unwrap().access_log, AccessLog { full: 0, brief: 0 });
    assert_eq!(resolve(&[]).unwrap().tracing, None);
    let tracing = resolve(&[(OTLP_ENDPOINT, "collector.internal:4317"), (TRACE_PERCENT, "1")]).unwrap().tracing;
    assert_eq!(tracing, Some(Tracing { host: "collector.internal".to_owned(), port: 4317, percent: 1 }));
    check_errors(&[(ACCESS_LOG, "none")], &["PIXELL_ACCESS_LOG is \"none\": expected one of full, brief, failures"]);
    for endpoint in ["localhost", ":4317", "localhost:0", "http://127.0.0.1:4317", "a\"b:1", "a:70000"] {
        let errors = resolve(&[(OTLP_ENDPOINT, endpoint)]).unwrap_err();
        assert!(errors.iter().all(|error| error.to_string().contains("such as 127.0.0.1:4317")), "{endpoint}");
    }
}

#[test]
fn a_proxy_protocol_header_is_believed_only_from_configured_networks() {
    let senders = |protocol, cidrs| resolve(&[(PROXY_PROTOCOL, protocol), (PROXY_CIDRS, cidrs)]).unwrap().proxy_senders;
    assert_eq!([senders("", ""), senders("off", "")], [None, None]);
    let parsed = ["10.0.1.0/24", "fd00::/8"].map(|cidr| cidr.parse().unwrap()).to_vec();
    assert_eq!(senders("v2", "10.0.1.0/24,fd00::/8"), Some(parsed));
    for value in ["v1", "V2", "on", "v1,v2"] {
        let expected = format!("PIXELL_PROXY_PROTOCOL is {value:?}: expected one of off, v2");
        check_errors(&[(PROXY_PROTOCOL, value), (PROXY_CIDRS, "10.0.1.0/24")], &[&expected]);
    }
    let such_as = "the load balancer's networks, separated by commas, such as 10.0.1.0/24,10.0.2.0/24";
    for value in ["", "10.0.1.0", "10.0.1.7/24", "10.0.1.0/24,", "10.0.1.0/24, 10.0.2.0/24", "10.0.1.0/33", "nlb.internal"] {
        let expected = format!("PIXELL_PROXY_CIDRS is {value:?}: expected {such_as}");
        check_errors(&[(PROXY_PROTOCOL, "v2"), (PROXY_CIDRS, value)], &[&expected]);
    }
    check_errors(
        &[(PROXY_CIDRS, "10.0.1.0/24")],
        &["PIXELL_PROXY_CIDRS is \"10.0.1.0/24\": expected nothing, because PIXELL_PROXY_PROTOCOL is not v2"],
    );
}

#[test]
fn connections_of_a_client_are_counted_only_if_their_number_is_set() {
    let most = |value| resolve(&[(CLIENT_CONNECTIONS, value)]).unwrap().client_connections;
    assert_eq!([most(""), most("1"), most("10000")], [None, Some(1), Some(10_000)]);
    for value in ["0", "10001", "off"] {
        let expected = format!("PIXELL_CLIENT_CONNECTIONS is {value:?}: expected a whole number from 1 to 10000");
        check_errors(&[(CLIENT_CONNECTIONS, value)], &[&expected]);
    }
}

#[test]
fn addressing_is_the_filters_own_unless_it_is_set() {
    assert!(resolve(&[(ID_HEADERS, ""), (PATH_PREFIXES, ""), (HOST_SUFFIX, "")]).unwrap().addressing.is_default());
    let set = [(ID_HEADERS, "x-agent"), (PATH_PREFIXES, "/a/{id} ui"), (HOST_SUFFIX, ".a.test")];
    let members = resolve(&set).unwrap().addressing.members();
    assert_eq!(
        members,
        ", \"id_headers\": [\"x-agent\"], \"path_prefixes\": [{\"prefix\": \"/a/{id}\", \"endpoints\": [\"ui\"], \"strip\": true}], \
         \"host_suffix\": \".a.test\""
    );
    check_errors(
        &[(ID_HEADERS, "X-Agent"), (PATH_PREFIXES, "/agents"), (HOST_SUFFIX, "a.test")],
        &[
            "PIXELL_ID_HEADERS is \"X-Agent\": expected different header names in lower case, separated by commas, such as \
             x-deployment-id, or none: no header names an agent",
            "PIXELL_PATH_PREFIXES is \"/agents\": expected prefixes of paths, separated by commas, such as /agents/{id}/api rest a2a, or \
             none; \"/agents\" must have the segment {id} exactly once",
            "PIXELL_HOST_SUFFIX is \"a.test\": expected a dot and a host name in lower case, such as .agents.example.com",
        ],
    );
    check_errors(
        &[(ID_HEADERS, "none"), (PATH_PREFIXES, "none")],
        &[
            "PIXELL_ID_HEADERS is \"none\": expected a header, because PIXELL_PATH_PREFIXES is none, too: without PIXELL_HOST_SUFFIX no \
           request could name an agent",
        ],
    );
    assert!(resolve(&[(ID_HEADERS, "none"), (PATH_PREFIXES, "none"), (HOST_SUFFIX, ".a.test")]).is_ok());
}

#[test]
fn pages_of_other_origins_may_call_only_if_these_are_set() {
    let origins = |value| resolve(&[(CORS_ORIGINS, value)]).unwrap().cors_origins;
    assert_eq!(origins(""), []);
    assert_eq!(origins("https://app.test,http://*.test:3000").len(), 2);
    for value in ["*", "null", "app.test", "https://app.test/", "https://a.test,https://a.test"] {
        check_errors(&[(CORS_ORIGINS, value)], &[&format!("PIXELL_CORS_ORIGINS is {value:?}: expected {}", cors::EXPECTED)]);
    }
}

#[test]
fn tokens_are_neither_logged_nor_unrestricted_by_mistake() {
    let jwt = [(JWT_ISSUER, "https://i.test"), (JWT_AUDIENCES, "a"), (JWKS_FILE, "/k")];
    let with = |name, value| jwt.into_iter().chain([(name, value)]).collect::<Vec<_>>();
    for level in ["trace", "debug"] {
        let expected = format!(
            "PIXELL_LOG_LEVEL is \"{level}\": expected one of info, warning, warn, error, critical, off, because PIXELL_JWT_ISSUER is set, and \
             Envoy would log tokens"
        );
        check_errors(&with(LOG_LEVEL, level), &[&expected]);
    }
    assert!(resolve(&with(LOG_LEVEL, "info")).is_ok());
    check_errors(
        &with(JWT_DEPLOYMENTS_CLAIM, ""),
        &[
            "PIXELL_JWT_DEPLOYMENTS_CLAIM is \"\": expected the name of a claim; if the variable is not set, every token allows every \
             deployment",
        ],
    );
    assert!(resolve(&[(JWT_DEPLOYMENTS_CLAIM, "")]).is_ok());
}

#[test]
fn every_error_is_reported() {
    check_errors(
        &[(LOG_LEVEL, "loud"), (CONCURRENCY, "257"), (DRAIN_SECONDS, "3601")],
        &[
            "PIXELL_LOG_LEVEL is \"loud\": expected one of trace, debug, info, warning, warn, error, critical, off",
            "PIXELL_CONCURRENCY is \"257\": expected a whole number from 1 to 256",
            "PIXELL_DRAIN_SECONDS is \"3601\": expected a whole number from 0 to 3600",
        ],
    );
}

#[test]
fn misspelt_names_are_found() {
    let names = ["PATH", "PIXELL_LOGLEVEL", LOG_LEVEL, ADMIN_TOKEN, "PIXELL_DRAIN"].map(OsString::from);
    assert_eq!(unknown_names(names.into_iter()), ["PIXELL_DRAIN", "PIXELL_LOGLEVEL"]);
    for name in ["PIXELL_JWT_CLAIM", "PIXELL_JWKS_URI", "PIXELL_TLS_CA_FILE", "PIXELL_RATELIMIT"] {
        assert!(is_grave(name), "{name}");
    }
    assert!(!is_grave("PIXELL_LOGLEVEL"));
}

#[test]
fn a_variable_of_par_is_told_from_a_misspelt_one() {
    // What the task definition gives PAR.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/task-definition.json");
    let definition = std::fs::read_to_string(path).unwrap();
    let texts = definition.split('"');
    let mut names: Vec<_> = texts.filter(|text| text.starts_with("PIXELL_FLEET") && !NAMES.contains(text)).collect();
    names.sort_unstable();
    let mut expected = NAMES_OF_PAR;
    expected.sort_unstable();
    assert_eq!(names, expected);
    for name in names {
        assert!(is_grave(name) && unknown_error(name).starts_with(&format!("{name} belongs to PAR's container")), "{name}");
    }
    assert!(
        unknown_error("PIXELL_FLEET_CIDR").starts_with("PIXELL_FLEET_CIDR is not a setting; the settings are PIXELL_FILTER, ")
    );
}

/// Names that are nearly those of settings that keep strangers out.
#[test]
fn a_misspelt_setting_of_security_is_grave() {
    for name in ["PIXELL_PEERCERT_FILE", "PIXELL_PEERS_SAN", "PIXELL_FLEETCIDRS", "PIXELL_RATELIMIT", "PIXELL_TLS_CERT"] {
        assert!(is_grave(name) && !NAMES.contains(&name), "{name}");
    }
    assert!(!is_grave("PIXELL_LOGLEVEL"));
}

#[test]
fn what_the_edge_judges_needs_certificates_between_tasks() {
    let fleet = ("PIXELL_FLEET_CIDRS", "10.0.1.0/24");
    let judged: [&[(&str, &str)]; 3] = [
        &[("PIXELL_RATE_LIMIT", "100/s")],
        &[
            ("PIXELL_TLS_CLIENT_CA_FILE", "/clients.pem"),
            ("PIXELL_TLS_CERT_FILE", "/tls.crt"),
            ("PIXELL_TLS_KEY_FILE", "/tls.key"),
        ],
        &[("PIXELL_JWT_ISSUER", "i"), ("PIXELL_JWT_AUDIENCES", "a"), ("PIXELL_JWKS_FILE", "/jwks.json")],
    ];
    let certificates = [
        ("PIXELL_PEER_CERT_FILE", "/c.pem"),
        ("PIXELL_PEER_KEY_FILE", "/k.pem"),
        ("PIXELL_PEER_CA_FILE", "/ca.pem"),
        ("PIXELL_PEER_SAN", "peer.test"),
    ];
    for judged in judged {
        let all = [judged, &[fleet], &certificates].concat();
        let resolve = |vars: &[(&str, &str)]| {
            Settings::resolve(|name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
        };
        assert!(resolve(&all).unwrap().fleet.unwrap().tls.is_some());
        let errors = resolve(&[judged, &[fleet]].concat()).unwrap_err();
        let expected = format!("because PIXELL_FLEET_CIDRS and {} are set", judged[0].0);
        assert!(
            errors[0].to_string().starts_with("PIXELL_PEER_CERT_FILE is \"\"") && errors[0].to_string().ends_with(&expected)
        );
        assert_eq!(errors.len(), 1);
        assert!(resolve(judged).unwrap().fleet.is_none());
    }
}

#[test]
fn a_fleet_of_all_addresses_needs_certificates() {
    let certificates = [
        ("PIXELL_PEER_CERT_FILE", "/c.pem"),
        ("PIXELL_PEER_KEY_FILE", "/k.pem"),
        ("PIXELL_PEER_CA_FILE", "/ca.pem"),
        ("PIXELL_PEER_SAN", "peer.test"),
    ];
    for networks in ["0.0.0.0/0", "10.0.0.0/8,::/0"] {
        let fleet = [("PIXELL_FLEET_CIDRS", networks)];
        let resolve = |vars: &[(&str, &str)]| {
            Settings::resolve(|name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
        };
        assert!(resolve(&[&fleet[..], &certificates].concat()).is_ok());
        let errors = resolve(&fleet).unwrap_err();
        let expected = format!(
            "PIXELL_FLEET_CIDRS is \"{networks}\": expected only networks of the fleet, because without PIXELL_PEER_CERT_FILE each \
             address is trusted"
        );
        assert_eq!((errors.len(), errors[0].to_string()), (1, expected));
    }
}

#[test]
fn a_fleet_without_tls_behind_tls_is_worth_a_warning() {
    let tls = [("PIXELL_TLS_CERT_FILE", "/tls.crt"), ("PIXELL_TLS_KEY_FILE", "/tls.key")];
    let fleet = [("PIXELL_FLEET_CIDRS", "10.0.0.0/8")];
    let warnings = |vars: &[(&str, &str)]| {
        let find = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Settings::resolve(find).unwrap().warnings()
    };
    assert_eq!((warnings(&tls), warnings(&fleet)), (Vec::new(), Vec::new()));
    let expected = "warning: PIXELL_TLS_CERT_FILE is set and PIXELL_PEER_CERT_FILE is not: requests to agents of other tasks leave this \
                    one in cleartext";
    assert_eq!(warnings(&[tls, [fleet[0], fleet[0]]].concat()), [expected]);
}
