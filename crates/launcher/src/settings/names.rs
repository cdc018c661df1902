//! The names of the settings, and the errors and warnings for a variable that only looks like one.

use std::ffi::OsString;

/// The form of the filter.
pub const FILTER: &str = "PIXELL_FILTER";
/// Envoy's log level.
pub const LOG_LEVEL: &str = "PIXELL_LOG_LEVEL";
/// Number of Envoy's worker threads.
pub const CONCURRENCY: &str = "PIXELL_CONCURRENCY";
/// Longest wait for open streams after SIGTERM, in seconds.
pub const DRAIN_SECONDS: &str = "PIXELL_DRAIN_SECONDS";
/// Age at which a client is asked to leave its connection, in seconds. If it is not set, connections have no age limit.
pub const MAX_CONNECTION_SECONDS: &str = "PIXELL_MAX_CONNECTION_SECONDS";
/// How long a call without a deadline of its client may take, in seconds. If it is not set, such calls have no limit.
pub const CALL_TIMEOUT_SECONDS: &str = "PIXELL_CALL_TIMEOUT_SECONDS";
/// The origins under which clients reach this proxy.
pub const EXTERNAL_ORIGINS: &str = "PIXELL_EXTERNAL_ORIGINS";
/// The origins whose pages may call agents that they name by a header.
pub const CORS_ORIGINS: &str = "PIXELL_CORS_ORIGINS";
/// The headers that may name an agent.
pub const ID_HEADERS: &str = "PIXELL_ID_HEADERS";
/// The prefixes of paths that name an agent.
pub const PATH_PREFIXES: &str = "PIXELL_PATH_PREFIXES";
/// The suffix of a host that begins with an id. If it is not set, no host names an agent.
pub const HOST_SUFFIX: &str = "PIXELL_HOST_SUFFIX";
/// How detailed the access log is about successful requests.
pub const ACCESS_LOG: &str = "PIXELL_ACCESS_LOG";
/// How many of the successful requests are logged, in percent.
pub const ACCESS_LOG_PERCENT: &str = "PIXELL_ACCESS_LOG_PERCENT";
/// Where traces go: the OTLP collector's gRPC endpoint. If it is not set, nothing is traced.
pub const OTLP_ENDPOINT: &str = "PIXELL_OTLP_ENDPOINT";
/// Most requests that are traced, in percent. A request that its client decided not to trace is never traced.
pub const TRACE_PERCENT: &str = "PIXELL_TRACE_PERCENT";
/// Whether the load balancer sends the client's address in a PROXY protocol header.
pub const PROXY_PROTOCOL: &str = "PIXELL_PROXY_PROTOCOL";
/// The networks that may send such a header.
pub const PROXY_CIDRS: &str = "PIXELL_PROXY_CIDRS";
/// The most connections of one client address. If it is not set, one client may take all connections.
pub const CLIENT_CONNECTIONS: &str = "PIXELL_CLIENT_CONNECTIONS";
/// The file with the certificates of the data path. If it is not set, the data path is cleartext.
pub const TLS_CERT_FILE: &str = "PIXELL_TLS_CERT_FILE";
/// The file with the private key of the first of them.
pub const TLS_KEY_FILE: &str = "PIXELL_TLS_KEY_FILE";
/// The file with the CA certificates of clients. If it is not set, clients need no certificate.
pub const TLS_CLIENT_CA_FILE: &str = "PIXELL_TLS_CLIENT_CA_FILE";
/// The issuer of clients' tokens. If it is not set, clients need no token.
pub const JWT_ISSUER: &str = "PIXELL_JWT_ISSUER";
/// The audiences of which a token must name one.
pub const JWT_AUDIENCES: &str = "PIXELL_JWT_AUDIENCES";
/// The file with the keys of the issuer.
pub const JWKS_FILE: &str = "PIXELL_JWKS_FILE";
/// The URL of these keys, in place of a file.
pub const JWKS_URL: &str = "PIXELL_JWKS_URL";
/// The CAs of the server of the URL.
pub const JWKS_CA_FILE: &str = "PIXELL_JWKS_CA_FILE";
/// How often keys are fetched from the URL.
pub const JWKS_CACHE_SECONDS: &str = "PIXELL_JWKS_CACHE_SECONDS";
/// The claim with the deployments that a client may call. If it is not set, it may call every one.
pub const JWT_DEPLOYMENTS_CLAIM: &str = "PIXELL_JWT_DEPLOYMENTS_CLAIM";
/// Whether agents get the token.
pub const JWT_FORWARD: &str = "PIXELL_JWT_FORWARD";
/// How often a client may call a deployment. If it is not set, there is no limit.
pub const RATE_LIMIT: &str = "PIXELL_RATE_LIMIT";
/// The networks of the other tasks. If it is not set, there are none.
pub const FLEET_CIDRS: &str = "PIXELL_FLEET_CIDRS";
/// The file with the certificates that this task shows to others. If it is not set, tasks are recognised by their addresses alone.
pub const PEER_CERT_FILE: &str = "PIXELL_PEER_CERT_FILE";
/// The file with the private key of the first of them.
pub const PEER_KEY_FILE: &str = "PIXELL_PEER_KEY_FILE";
/// The file with the CA certificates of the tasks.
pub const PEER_CA_FILE: &str = "PIXELL_PEER_CA_FILE";
/// The DNS name in the certificates of all tasks.
pub const PEER_SAN: &str = "PIXELL_PEER_SAN";
/// The bearer token of the route API; see [`crate::token`].
pub const ADMIN_TOKEN: &str = "PIXELL_ADMIN_TOKEN";
/// The path of a file with that token.
pub const ADMIN_TOKEN_FILE: &str = "PIXELL_ADMIN_TOKEN_FILE";

/// Every variable that is a setting of the image. Any other one with the same prefix is most likely misspelt.
pub(super) const NAMES: [&str; 37] = [
    FILTER,
    LOG_LEVEL,
    CONCURRENCY,
    DRAIN_SECONDS,
    MAX_CONNECTION_SECONDS,
    CALL_TIMEOUT_SECONDS,
    EXTERNAL_ORIGINS,
    CORS_ORIGINS,
    ID_HEADERS,
    PATH_PREFIXES,
    HOST_SUFFIX,
    ACCESS_LOG,
    ACCESS_LOG_PERCENT,
    OTLP_ENDPOINT,
    TRACE_PERCENT,
    PROXY_PROTOCOL,
    PROXY_CIDRS,
    CLIENT_CONNECTIONS,
    TLS_CERT_FILE,
    TLS_KEY_FILE,
    TLS_CLIENT_CA_FILE,
    JWT_ISSUER,
    JWT_AUDIENCES,
    JWKS_FILE,
    JWKS_URL,
    JWKS_CA_FILE,
    JWKS_CACHE_SECONDS,
    JWT_DEPLOYMENTS_CLAIM,
    JWT_FORWARD,
    RATE_LIMIT,
    FLEET_CIDRS,
    PEER_CERT_FILE,
    PEER_KEY_FILE,
    PEER_CA_FILE,
    PEER_SAN,
    ADMIN_TOKEN,
    ADMIN_TOKEN_FILE,
];
const PREFIX: &str = "PIXELL_";

/// The variables with which PAR joins a fleet (`docs/deploy/fleet.md`). They look like settings, and are for PAR's container alone.
pub(super) const NAMES_OF_PAR: [&str; 5] = [
    "PIXELL_FLEET",
    "PIXELL_FLEET_TABLE",
    "PIXELL_FLEET_ROLE_ID",
    "PIXELL_FLEET_REDIS_URL",
    "PIXELL_FLEET_REDIS_PASSWORD_FILE",
];

/// Whether startup fails with this unknown name, because the operator may believe that it restricts clients.
#[must_use]
pub fn is_grave(name: &str) -> bool {
    ["PIXELL_JWT_", "PIXELL_JWKS_", "PIXELL_TLS_", "PIXELL_RATE", "PIXELL_FLEET", "PIXELL_PEER"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// The names that begin like a setting of the image but are not one.
pub fn unknown_names(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let mut unknown: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !NAMES.contains(&name.as_str()))
        .collect();
    unknown.sort();
    unknown
}

/// The error for an unknown name with which startup fails.
#[must_use]
pub fn unknown_error(name: &str) -> String {
    if NAMES_OF_PAR.contains(&name) {
        format!("{name} belongs to PAR's container: remove it from Envoy's, whose own setting for a fleet is {FLEET_CIDRS}")
    } else {
        format!("{name} is not a setting; the settings are {}", known_names())
    }
}

/// The names of all settings, for error messages.
#[must_use]
pub fn known_names() -> String {
    NAMES.join(", ")
}
