//! Tokens of clients on the data path: JSON Web Tokens (RFC 7519), which Envoy's filter verifies with the keys of a file or of a server.

use crate::client_rejections;
use crate::configuration::Edit;
use crate::settings::{
    JWKS_CA_FILE, JWKS_CACHE_SECONDS, JWKS_FILE, JWKS_URL, JWT_AUDIENCES, JWT_DEPLOYMENTS_CLAIM, JWT_FORWARD, JWT_ISSUER,
    SettingError,
};
use crate::shown;
use crate::tls::{is_path, quoted, watch, watched};
use crate::token;
use pixell_core::claim::CLAIMS_HEADER;
use pixell_core::json::Json;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;

mod key_set;

/// Where the filter goes that verifies tokens.
pub const PLACE: &str = "# (tokens)";
/// Where the header with the claims is removed, so that agents do not get it.
pub const CLAIMS_PLACE: &str = "# (claims)";
/// Where the cluster goes that the keys come from.
pub const CLUSTER_PLACE: &str = "# (keys)";
/// Where the listener goes that serves a file of keys to Envoy itself.
pub const LISTENER_PLACE: &str = "# (file of keys)";
/// Where the subject of the token goes in the access log.
pub const SUBJECT_PLACE: &str = "# (subject)";
/// The socket in the image on which Envoy serves a file of keys to itself.
pub const SOCKET: &str = "/run/pixell-envoy/jwks.sock";

/// The name under which Envoy keeps the claims of a verified token.
pub(crate) const METADATA: &str = "pixell";
/// The bundle of CAs in Debian's and in Envoy's images.
const CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// How long keys of a server are used before they are fetched again, in seconds.
const CACHE_SECONDS: u32 = 300;
/// The same for those of a file.
const FILE_SECONDS: u32 = 5;
/// The most fetches of keys at a time. A request makes a worker fetch keys, and waits for them, only while the worker has none.
const FETCHES: u32 = 8;
/// Longest file of keys, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// Which tokens clients need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    issuer: String,
    audiences: Vec<String>,
    keys: Keys,
    claim: Option<String>,
    forward: bool,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Keys {
    File(String),
    Url { url: Url, ca_file: String, seconds: u32 },
}

/// The URL of a key set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    text: String,
    is_https: bool,
    host: String,
    port: u16,
}

const URL_EXPECTED: &str = "the URL of a key set, https://host/path, perhaps with a port; http only to 127.0.0.1 or localhost";

impl Url {
    fn parse(text: &str) -> Option<Self> {
        let (is_https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return None,
        };
        let (authority, path) = rest.split_once('/')?;
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (authority, if is_https { 443 } else { 80 }),
        };
        let is_host = !host.is_empty() && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-'));
        let is_path = path.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'"' | b'\\' | b'#'));
        let is_near = matches!(host, "127.0.0.1" | "localhost");
        (is_host && is_path && (is_https || is_near)).then(|| Self {
            text: text.to_owned(),
            is_https,
            host: host.to_owned(),
            port,
        })
    }
}

impl Jwt {
    /// Reads the settings that `raw` returns by name; `None` if clients need no token.
    pub(crate) fn resolve(raw: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, SettingError> {
        let Some(issuer) = raw(JWT_ISSUER) else {
            // The operator may believe that clients need a token.
            let stray =
                [JWT_AUDIENCES, JWKS_FILE, JWKS_URL, JWKS_CA_FILE, JWKS_CACHE_SECONDS, JWT_DEPLOYMENTS_CLAIM, JWT_FORWARD];
            return match stray.into_iter().find(|name| raw(name).is_some()) {
                None => Ok(None),
                Some(name) => {
                    let expected = format!("the `iss` of clients' tokens, because {name} is set");
                    Err(SettingError::new(JWT_ISSUER, OsString::new(), &expected))
                }
            };
        };
        let issuer =
            text(JWT_ISSUER, Some(issuer), "the `iss` of clients' tokens", |text| is_plain(text).then(|| text.to_owned()))?;
        let expected = "the `aud` of clients' tokens, or several of them separated by commas";
        let audiences = text(JWT_AUDIENCES, raw(JWT_AUDIENCES), expected, |text| {
            let all: Vec<_> = text.split(',').map(str::to_owned).collect();
            all.iter().all(|one| is_plain(one)).then_some(all)
        })?;
        let keys = Self::keys(&raw)?;
        let claim = raw(JWT_DEPLOYMENTS_CLAIM).map(|value| {
            text(JWT_DEPLOYMENTS_CLAIM, Some(value), "the name of a claim, such as deployments", |name| {
                (is_plain(name) && !name.contains(['\'', '"', '\\'])).then(|| name.to_owned())
            })
        });
        let forward = raw(JWT_FORWARD).map(|value| {
            text(JWT_FORWARD, Some(value), "one of off, on", |text| match text {
                "off" => Some(false),
                "on" => Some(true),
                _ => None,
            })
        });
        Ok(Some(Self { issuer, audiences, keys, claim: claim.transpose()?, forward: forward.transpose()?.unwrap_or(false) }))
    }

    fn keys(raw: &impl Fn(&str) -> Option<OsString>) -> Result<Keys, SettingError> {
        let stray = |name, other| match raw(name) {
            Some(value) => Err(SettingError::new(name, value, &format!("nothing, because {other} is not set"))),
            None => Ok(()),
        };
        match (raw(JWKS_FILE), raw(JWKS_URL)) {
            (None, None) => {
                let expected = format!("the absolute path of a file with a JSON Web Key Set, or {JWKS_URL} in place of it");
                Err(SettingError::new(JWKS_FILE, OsString::new(), &expected))
            }
            (Some(value), Some(_)) => Err(SettingError::new(JWKS_FILE, value, &format!("nothing, because {JWKS_URL} is set"))),
            (value @ Some(_), None) => {
                stray(JWKS_CA_FILE, JWKS_URL)?;
                stray(JWKS_CACHE_SECONDS, JWKS_URL)?;
                text(JWKS_FILE, value, "the absolute path of a file with a JSON Web Key Set", |path| {
                    is_path(path).then(|| Keys::File(path.to_owned()))
                })
            }
            (None, value @ Some(_)) => {
                let url = text(JWKS_URL, value, URL_EXPECTED, Url::parse)?;
                let ca_file = raw(JWKS_CA_FILE).map(|value| {
                    text(JWKS_CA_FILE, Some(value), "the absolute path of a file with CA certificates, in PEM", |path| {
                        is_path(path).then(|| path.to_owned())
                    })
                });
                let seconds = raw(JWKS_CACHE_SECONDS).map(|value| {
                    text(JWKS_CACHE_SECONDS, Some(value), "a whole number from 1 to 86400", |text| {
                        text.parse().ok().filter(|seconds| (1..=86400).contains(seconds))
                    })
                });
                let ca_file = ca_file.transpose()?.unwrap_or_else(|| CA_FILE.to_owned());
                Ok(Keys::Url { url, ca_file, seconds: seconds.transpose()?.unwrap_or(CACHE_SECONDS) })
            }
        }
    }

    /// The name of the claim with the deployments that a client may call.
    #[must_use]
    pub fn claim(&self) -> Option<&str> {
        self.claim.as_deref()
    }

    /// The changes of the configuration, except those of the data path's filter and of rejections. `id_headers` are those that may name an agent.
    pub(crate) fn edits(&self, id_headers: &[String]) -> Vec<Edit> {
        let (uri, seconds) = match &self.keys {
            Keys::File(_) => ("http://jwks/", FILE_SECONDS),
            Keys::Url { url, seconds, .. } => (url.text.as_str(), *seconds),
        };
        let audiences: Vec<_> = self.audiences.iter().map(|one| quoted(one)).collect();
        // The main thread fetches the keys; the last ones stay in use until it gets others. A token may only be in the header, because URLs end
        // up in logs. The first rule that matches counts, and an empty prefix also matches an empty path.
        let filter = format!(
            "- {{ name: envoy.filters.http.jwt_authn, typed_config: {{ \
             \"@type\": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication, \
             rules: [{{ match: {} }}, {{ match: {{ prefix: \"\" }}, requires: {{ provider_name: {METADATA} }} }}], \
             providers: {{ {METADATA}: {{ issuer: {}, audiences: [{}], require_expiration: true, forward: {}, \
             payload_in_metadata: {METADATA}, forward_payload_header: {CLAIMS_HEADER}, from_headers: [{{ name: authorization, value_prefix: \"Bearer \" }}], \
             remote_jwks: {{ http_uri: {{ uri: {}, cluster: jwks, timeout: 5s }}, cache_duration: {seconds}s, \
             async_fetch: {{ fast_listener: true }} }} }} }} }} }}\n                  {PREFLIGHT_BODY}",
            preflight(id_headers),
            quoted(&self.issuer),
            audiences.join(", "),
            self.forward,
            quoted(uri),
        );
        let subject = format!("subject: \"%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:{METADATA}:sub):256%\"");
        let mut edits = vec![
            Edit { place: PLACE, text: filter },
            Edit { place: SUBJECT_PLACE, text: subject },
            client_rejections::count(),
            Edit { place: CLUSTER_PLACE, text: self.cluster() },
            Edit { place: CLAIMS_PLACE, text: format!("request_headers_to_remove: [{CLAIMS_HEADER}]") },
        ];
        if let Keys::File(path) = &self.keys {
            edits.push(Edit { place: LISTENER_PLACE, text: listener(path) });
        }
        edits
    }

    fn cluster(&self) -> String {
        let (kind, address, socket) = match &self.keys {
            Keys::File(_) => ("STATIC", format!("pipe: {{ path: {SOCKET} }}"), String::new()),
            // Many hosts have IPv4 and IPv6 addresses, of which a task may reach only one kind. For each connection Envoy tries them one after
            // the other (RFC 8305), but only the addresses of one logical host.
            Keys::Url { url: Url { is_https, host, port, .. }, ca_file, .. } => {
                let address = format!("socket_address: {{ address: \"{host}\", port_value: {port} }}");
                (
                    "LOGICAL_DNS, dns_lookup_family: ALL",
                    address,
                    if *is_https { client_tls(host, ca_file) } else { String::new() },
                )
            }
        };
        // Each fetch has a connection of its own: a kept one would stay with an address that the host's name has left.
        format!(
            "- {{ name: jwks, type: {kind}, connect_timeout: 2s, {socket}\
             typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \
             \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
             common_http_protocol_options: {{ max_requests_per_connection: 1 }}, \
             explicit_http_config: {{ http_protocol_options: {{}} }} }} }}, \
             circuit_breakers: {{ thresholds: [{{ max_requests: {FETCHES}, max_pending_requests: {FETCHES} }}] }}, load_assignment: {{ cluster_name: jwks, \
             endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ {address} }} }} }}] }}] }} }}"
        )
    }

    /// A warning if every user may read a file of keys with which they could make tokens.
    #[must_use]
    pub(crate) fn warning(&self) -> Option<String> {
        let Keys::File(path) = &self.keys else { return None };
        let set = Json::parse(&std::fs::read(path).ok()?).ok()?;
        key_set::has_shared(&set).then(|| token::exposed(JWKS_FILE, Path::new(path)))?
    }

    /// Checks the file that the settings name.
    ///
    /// # Errors
    /// A line that names the variable and the file.
    pub fn check(&self) -> Result<(), String> {
        match &self.keys {
            Keys::File(path) => {
                let error =
                    |reason: String| format!("{JWKS_FILE} is {}: expected a JSON Web Key Set, but {reason}", shown::path(path));
                let bytes = std::fs::read(path).map_err(|reason| error(format!("the file cannot be read: {reason}")))?;
                if bytes.len() > MAX_BYTES {
                    return Err(error("the file is larger than 1 MiB".to_owned()));
                }
                let json = Json::parse(&bytes).map_err(|reason| error(format!("the file is not JSON: {reason}")))?;
                key_set::check(&json).map_err(error)
            }
            Keys::Url { url: Url { is_https: true, .. }, ca_file, .. } => match std::fs::read(ca_file) {
                Ok(_) => Ok(()),
                Err(reason) => Err(format!(
                    "{JWKS_CA_FILE} is {}: expected a file with CA certificates for {JWKS_URL}, but it cannot be read: {reason}",
                    shown::path(ca_file)
                )),
            },
            Keys::Url { .. } => Ok(()),
        }
    }
}

/// Reads a required text: it is an error if it is absent, or if `parse` rejects it.
fn text<T>(
    name: &'static str,
    value: Option<OsString>,
    expected: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, SettingError> {
    let value = value.unwrap_or_default();
    value.to_str().and_then(parse).ok_or_else(|| SettingError::new(name, value.clone(), expected))
}

/// Whether a text can stand in a configuration: 1 to 256 visible ASCII characters.
fn is_plain(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic())
}

/// Only a preflight gets here without the claims of a token. No header announces a body without a length, so this filter waits for one and rejects it.
const PREFLIGHT_BODY: &str = "- { name: pixell.preflight_body, typed_config: { \
    \"@type\": type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher, \
    extension_config: { name: envoy.filters.http.lua, typed_config: { \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, default_source_code: { inline_string: \
    \"function envoy_on_request(handle) if handle:body() then handle:respond({[':status'] = '401'}, '') end end\" } } }, \
    xds_matcher: { matcher_list: { matchers: [{ predicate: { single_predicate: { input: { name: claims, typed_config: { \
    \"@type\": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x-pixell-claims } }, \
    value_match: { safe_regex: { google_re2: {}, regex: \".+\" } } } }, on_match: { action: { name: skip, typed_config: { \
    \"@type\": type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter } } } }] } } } }";

/// A matcher of Envoy for a CORS preflight (Fetch standard, 4.8). Browsers send it without a token, without a body, and without a header that
/// names an agent. No other request may pass for one.
fn preflight(id_headers: &[String]) -> String {
    let absent = ["authorization", "content-type", "upgrade"].into_iter();
    let absent = absent.chain(id_headers.iter().map(String::as_str)).map(|name| (name, false));
    let present = ["origin", "access-control-request-method"].map(|name| (name, true));
    let headers: Vec<_> = present
        .into_iter()
        .chain(absent)
        .map(|(name, is_present)| format!("{{ name: \"{name}\", present_match: {is_present} }}"))
        .collect();
    format!(
        "{{ prefix: /, headers: [{{ name: \":method\", string_match: {{ exact: OPTIONS }} }}, {{ name: content-length, \
         string_match: {{ safe_regex: {{ regex: '0?' }} }}, treat_missing_header_as_empty: true }}, {}] }}",
        headers.join(", ")
    )
}

/// TLS towards the server of the keys, which must have a certificate for its host.
fn client_tls(host: &str, ca_file: &str) -> String {
    // RFC 6066, 3: an address must not stand in SNI.
    let (kind, sni) = match host.parse::<Ipv4Addr>() {
        Ok(_) => ("IP_ADDRESS", String::new()),
        Err(_) => ("DNS", format!("sni: \"{host}\", ")),
    };
    format!(
        "transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, {sni}\
         common_tls_context: {{ tls_params: {{ tls_minimum_protocol_version: TLSv1_2 }}, validation_context: {{ \
         trusted_ca: {{ filename: {} }}, \
         match_typed_subject_alt_names: [{{ san_type: {kind}, matcher: {{ exact: \"{host}\" }} }}] }} }} }} }}, ",
        quoted(ca_file)
    )
}

/// A listener on a socket that only Envoy's own user reaches. Envoy reads the file when it changes, and its filter fetches it as from a server.
fn listener(path: &str) -> String {
    let file = format!("{{ filename: {}, watched_directory: {} }}", quoted(path), watch(&watched(path)));
    format!(
        "- {{ name: jwks, stat_prefix: jwks, address: {{ pipe: {{ path: {SOCKET}, mode: 0600 }} }}, \
         ignore_global_conn_limit: true, bypass_overload_manager: true, filter_chains: [{{ filters: [{{ \
         name: envoy.filters.network.http_connection_manager, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: jwks, codec_type: HTTP1, http_filters: [{{ name: envoy.filters.http.router, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}], route_config: {{ name: jwks, \
         max_direct_response_body_size_bytes: {MAX_BYTES}, virtual_hosts: [{{ name: jwks, domains: [\"*\"], routes: [{{ \
         match: {{ prefix: / }}, direct_response: {{ status: 200, body: {file} }} }}] }}] }} }} }}] }}] }}"
    )
}

#[cfg(test)]
mod tests;
