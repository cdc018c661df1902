//! Writes the settings that Envoy has no argument for into its configuration, such as the access log and tracing.
//!
//! The shipped file has a place for each, found by its exact text. If a place is missing, for instance because another file was mounted
//! over the shipped one, that is an error: the setting is never silently ignored.

use crate::addressing::Addressing;
use crate::client_rejections::{self, PREFLIGHT_BODY, UNAUTHENTICATED};
use crate::cors;
use crate::jwt::Jwt;
use crate::origin::Origin;
use crate::peer_tls::PeerTls;
use crate::peers::{self, Around};
use crate::rate_limit::RateLimit;
use crate::settings::{AccessLog, Settings, Tracing};
use crate::tls::Tls;
use pixell_core::cidr::Cidr;
use pixell_core::filter_state::REJECTION;
use std::fmt;

/// The runtime layer of the image's settings, which is empty as shipped.
pub const SETTINGS_PLACE: &str = "static_layer: {}";
/// Where the longest age of a client's connection goes, in the data path's listener.
pub const AGE_PLACE: &str = "# (connection age)";
/// Where the filter that reads the load balancer's PROXY protocol header goes.
pub const PROXY_PLACE: &str = "# (proxy protocol)";
/// Where the addresses that may send such a header go.
pub const PROXY_SENDERS_PLACE: &str = "# (proxy protocol senders)";
/// The filter that closes silent connections. It is removed if connections are counted, because it would hold a silent one back before
/// it is counted.
pub const INSPECTOR: &str = "- name: envoy.filters.listener.http_inspector\n          typed_config: { \"@type\": \
    type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector }";
/// Where the filter that counts the connections of each client address goes.
pub const CLIENTS_PLACE: &str = "# (client connections)";
/// Where the filter that counts the requests of each client address to each agent goes.
pub const REQUESTS_PLACE: &str = "# (client requests)";
/// Where the limit for gRPC calls without a deadline goes.
pub const CALL_TIMEOUT_PLACE: &str = "# (call timeout)";
/// Where the limit for other requests goes.
pub const HTTP_TIMEOUT_PLACE: &str = "# (HTTP call timeout)";
/// Where the virtual hosts of the external origins go.
pub const ORIGINS_PLACE: &str = "# (external origins)";
/// The configuration of the filter on the data path, to which the settings of addressing are added.
pub const ROUTER_PLACE: &str = "\"role\": \"router\"";
/// The configuration of the route API's filter. The URL of the status page's links is added to it.
pub const ADMIN_PLACE: &str = "\"role\": \"admin\"";
/// How the routes match requests without an id header, once in full and once by reference.
pub const NO_ID_PLACE: &str = "- &no_id { name: x-deployment-id, string_match: { exact: \"\" }, treat_missing_header_as_empty: true }
                              - &no_alias { name: deployment-id, string_match: { exact: \"\" }, treat_missing_header_as_empty: true }
                              - &no_other { name: deployment_id, string_match: { exact: \"\" }, treat_missing_header_as_empty: true }";
/// See [`NO_ID_PLACE`].
pub const NO_ID_LIST_PLACE: &str = "headers: [*no_id, *no_alias, *no_other]";
/// Where they go in the filter's configuration.
pub const ORIGIN_LIST_PLACE: &str = "\"external_origins\": []";
/// Where the links of the status page lead if the data path has TLS.
pub const HTTPS_LINKS: &str = "https://{host}:50051";
/// The part of a rejection that says how to call a gRPC agent without TLS.
pub const GRPCURL: &str = "grpcurl -plaintext -H";
/// Where tracing goes in the data path's listener.
pub const TRACING_PLACE: &str = "# (tracing)";
/// Where the cluster of the trace collector goes.
pub const COLLECTOR_PLACE: &str = "# (trace collector)";

/// One change of the shipped file: a text that the file holds exactly once, and its replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The text to find.
    pub place: &'static str,
    /// The text that replaces it.
    pub text: String,
}

/// The place of a setting is missing, or the file holds it more than once.
#[derive(Debug, PartialEq, Eq)]
pub struct NoPlace(&'static str);

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.0;
        write!(
            f,
            "must hold the text {place:?} exactly once, because a setting that is set needs it; keep it where the shipped file has it"
        )
    }
}

impl std::error::Error for NoPlace {}

/// The changes that the settings ask for; none if all settings are as shipped.
#[must_use]
pub fn edits(settings: &Settings) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut keys = Vec::new();
    if settings.access_log != AccessLog::default() {
        let AccessLog { full, brief } = settings.access_log;
        keys.extend([format!("pixell.access_log.full: {full}"), format!("pixell.access_log.brief: {brief}")]);
    }
    keys.extend(settings.fleet.iter().map(|_| peers::RUNTIME.to_owned()));
    if !keys.is_empty() {
        edits.push(Edit { place: SETTINGS_PLACE, text: format!("static_layer: {{ {} }}", keys.join(", ")) });
    }
    if let Some(seconds) = settings.max_connection_seconds {
        // Up to a fifth more, so that clients that connected together do not reconnect together.
        let text =
            format!("max_connection_duration: {seconds}s\n                  max_connection_duration_jitter: {{ value: 20 }}");
        edits.push(Edit { place: AGE_PLACE, text });
    }
    if let Some(senders) = &settings.proxy_senders {
        edits.push(Edit { place: PROXY_PLACE, text: PROXY_FILTER.to_owned() });
        edits.push(Edit { place: PROXY_SENDERS_PLACE, text: proxy_senders(senders) });
    }
    if let Some(most) = settings.client_connections {
        edits.push(Edit { place: INSPECTOR, text: String::new() });
        edits.push(Edit { place: CLIENTS_PLACE, text: clients("network", "", most) });
        edits.push(Edit { place: REQUESTS_PLACE, text: clients("http", "root_id: requests, ", most) });
    }
    edits.extend(settings.tls.iter().flat_map(Tls::edits));
    if settings.tls.is_some() {
        edits.push(Edit { place: GRPCURL, text: "grpcurl -H".to_owned() });
    }
    edits.extend(settings.jwt.iter().flat_map(|jwt| jwt.edits(&settings.addressing.headers())));
    edits.extend(settings.rate_limit.iter().map(|limit| limit.edit(settings.jwt.is_some())));
    let tokens = settings.jwt.iter().flat_map(|_| [UNAUTHENTICATED, PREFLIGHT_BODY]);
    let rejections = tokens.chain(settings.rate_limit.iter().map(RateLimit::rejection));
    edits.extend(client_rejections::edit(&rejections.collect::<Vec<_>>()));
    if let Some(claim) = settings.jwt.as_ref().and_then(Jwt::claim) {
        edits.push(Edit { place: ROUTER_PLACE, text: format!("{ROUTER_PLACE}, \"deployments_claim\": \"{claim}\"") });
    }
    if let Some(seconds) = settings.call_timeout_seconds {
        edits.push(Edit { place: CALL_TIMEOUT_PLACE, text: format!("max_stream_duration: {seconds}s") });
        let text = format!("max_stream_duration: {{ max_stream_duration: {seconds}s }}");
        edits.push(Edit { place: HTTP_TIMEOUT_PLACE, text });
    }
    if !settings.external_origins.is_empty() {
        let cors = settings.cors_origins.as_slice();
        let hosts: Vec<_> =
            settings.external_origins.iter().map(|origin| virtual_host(origin, cors, &settings.addressing)).collect();
        edits.push(Edit { place: ORIGINS_PLACE, text: hosts.join("\n                    ") });
        let list: Vec<_> = settings.external_origins.iter().map(|origin| format!("\"{origin}\"")).collect();
        edits.push(Edit { place: ORIGIN_LIST_PLACE, text: format!("\"external_origins\": [{}]", list.join(", ")) });
    }
    edits.extend(cors::edits(settings));
    if !settings.addressing.is_default() {
        edits.push(Edit { place: ROUTER_PLACE, text: format!("{ROUTER_PLACE}{}", settings.addressing.members()) });
        let absent = |name: &String| {
            format!("{{ name: \"{name}\", string_match: {{ exact: \"\" }}, treat_missing_header_as_empty: true }}")
        };
        let absent: Vec<_> = settings.addressing.headers().iter().map(absent).collect();
        let lines: Vec<_> = absent.iter().map(|header| format!("- {header}")).collect();
        let lines = lines.join(&format!("\n{}", " ".repeat(30)));
        edits.push(Edit { place: NO_ID_PLACE, text: lines });
        edits.push(Edit { place: NO_ID_LIST_PLACE, text: format!("headers: [{}]", absent.join(", ")) });
    }
    if let Some(url) = agents_url(settings) {
        edits.push(Edit { place: ADMIN_PLACE, text: format!("{ADMIN_PLACE}, \"agents_url\": \"{url}\"") });
    }
    if let Some(fleet) = &settings.fleet {
        let tracing = settings.tracing.as_ref().map(connection_manager);
        edits.extend(fleet.edits(Around { call_timeout: settings.call_timeout_seconds, tracing: tracing.as_deref() }));
    }
    if let Some(tracing) = &settings.tracing {
        edits.push(Edit { place: TRACING_PLACE, text: connection_manager(tracing) });
        edits.push(Edit { place: COLLECTOR_PLACE, text: collector(tracing) });
    }
    edits
}

/// The files beside the configuration that the changes name, by their paths in the image.
#[must_use]
pub fn files(settings: &Settings) -> Vec<(&'static str, String)> {
    let peers = settings.fleet.iter().filter_map(|fleet| fleet.tls.as_ref()).flat_map(PeerTls::secrets);
    settings.tls.iter().flat_map(Tls::secrets).chain(peers).collect()
}

/// Returns `shipped` with the changes.
///
/// # Errors
/// [`NoPlace`] if the file does not hold a place exactly once.
pub fn render(shipped: &str, edits: &[Edit]) -> Result<String, NoPlace> {
    edits.iter().try_fold(shipped.to_owned(), |text, edit| {
        if text.matches(edit.place).count() == 1 { Ok(text.replace(edit.place, &edit.text)) } else { Err(NoPlace(edit.place)) }
    })
}

/// The header is required on every connection. Version 1 is not allowed, because it is text that a client could write by hand.
const PROXY_FILTER: &str = "- { name: envoy.filters.listener.proxy_protocol, typed_config: { \
    \"@type\": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, \
    disallowed_versions: [V1] } }";

/// The filter believes a header from any address, so the filter chain serves only connections that come from these networks.
fn proxy_senders(senders: &[Cidr]) -> String {
    let ranges: Vec<_> = senders
        .iter()
        .map(|cidr| format!("{{ address_prefix: \"{}\", prefix_len: {} }}", cidr.address(), cidr.prefix_len()))
        .collect();
    format!("filter_chain_match: {{ direct_source_prefix_ranges: [{}] }}", ranges.join(", "))
}

/// A filter of `clients.wasm`. Both share one VM, so they count in one place.
fn clients(kind: &str, root: &str, most: u32) -> String {
    format!(
        "- {{ name: pixell.clients, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.filters.{kind}.wasm.v3.Wasm, \
         config: {{ name: pixell.clients, {root}failure_policy: FAIL_RELOAD, vm_config: {{ \
         vm_id: pixell.clients, runtime: envoy.wasm.runtime.v8, \
         code: {{ local: {{ filename: /usr/local/lib/pixell-envoy/clients.wasm }} }} }}, \
         configuration: {{ \"@type\": type.googleapis.com/google.protobuf.StringValue, \
         value: '{{\"role\":\"clients\",\"connections\":{most}}}' }} }} }} }}"
    )
}

// Each of these is one line of flow-style YAML, which needs no indentation of its own.

/// Where the links of the status page lead, if not to the data path's own port: the first origin that is one host, and nowhere without the
/// prefixes of such links.
fn agents_url(settings: &Settings) -> Option<String> {
    if !settings.addressing.has_default_pages() {
        return Some(String::new());
    }
    let origin = settings.external_origins.iter().find(|origin| origin.is_one()).map(ToString::to_string);
    origin.or_else(|| settings.tls.as_ref().map(|_| HTTPS_LINKS.to_owned()))
}

/// The virtual host of one external origin: it has the same routes as the default one, and tells agents the origin.
fn virtual_host(origin: &Origin, cors: &[Origin], addressing: &Addressing) -> String {
    let domains: Vec<_> = origin.domains().iter().map(|domain| format!("\"{domain}\"")).collect();
    let header =
        |name, value| format!("{{ header: {{ key: {name}, value: \"{value}\" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}");
    let cors = if cors.is_empty() { String::new() } else { format!("{}, ", cors::policy(cors, addressing).join(", ")) };
    format!(
        "- {{ name: \"{origin}\", domains: [{}], request_headers_to_add: [{}, {}], {cors}include_request_attempt_count: true, \
         retry_policy: *agent_retries, routes: *agent_routes }}",
        domains.join(", "),
        header("x-forwarded-proto", origin.scheme),
        header("x-forwarded-host", "%REQ(:authority)%"),
    )
}

fn connection_manager(tracing: &Tracing) -> String {
    let percent = tracing.percent;
    format!(
        "tracing: {{ random_sampling: {{ value: {percent} }}, custom_tags: [\
         {{ tag: pixell.deployment_id, value: \"%REQ(x-deployment-id):256%\" }}, \
         {{ tag: pixell.rejection, value: \"%FILTER_STATE({REJECTION}:PLAIN)%\" }}], \
         provider: {{ name: envoy.tracers.opentelemetry, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: pixell-envoy, \
         grpc_service: {{ envoy_grpc: {{ cluster_name: trace_collector }}, timeout: 1s }} }} }} }}"
    )
}

fn collector(tracing: &Tracing) -> String {
    let Tracing { host, port, .. } = tracing;
    // A host may have IPv4 and IPv6 addresses, of which a task can reach only one. Envoy tries all of them if they are one logical host.
    format!(
        "- {{ name: trace_collector, type: LOGICAL_DNS, dns_lookup_family: ALL, connect_timeout: 1s, typed_extension_protocol_options: {{ \
         envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
         explicit_http_config: {{ http2_protocol_options: {{}} }} }} }}, \
         load_assignment: {{ cluster_name: trace_collector, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ \
         address: {{ socket_address: {{ address: \"{host}\", port_value: {port} }} }} }} }}] }}] }} }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../envoy/envoy.yaml");

    fn settings(vars: &[(&str, &str)]) -> Settings {
        Settings::resolve(|name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())).unwrap()
    }

    #[test]
    fn without_settings_the_file_is_the_shipped_one() {
        assert_eq!(edits(&settings(&[("PIXELL_ACCESS_LOG", "full"), ("PIXELL_ACCESS_LOG_PERCENT", "100")])), []);
    }

    #[test]
    fn every_place_is_in_the_shipped_file() {
        let all = edits(&settings(&[
            ("PIXELL_ACCESS_LOG", "brief"),
            ("PIXELL_OTLP_ENDPOINT", "localhost:4317"),
            ("PIXELL_MAX_CONNECTION_SECONDS", "120"),
            ("PIXELL_PROXY_PROTOCOL", "v2"),
            ("PIXELL_PROXY_CIDRS", "10.0.1.0/24,fd00::/8"),
            ("PIXELL_CLIENT_CONNECTIONS", "20"),
            ("PIXELL_CALL_TIMEOUT_SECONDS", "60"),
            ("PIXELL_EXTERNAL_ORIGINS", "https://a.test,http://b.test:8080"),
            ("PIXELL_CORS_ORIGINS", "https://c.test"),
            ("PIXELL_ID_HEADERS", "x-agent"),
            ("PIXELL_TLS_CERT_FILE", "/c.pem"),
            ("PIXELL_TLS_KEY_FILE", "/k.pem"),
            ("PIXELL_RATE_LIMIT", "100/s"),
            ("PIXELL_JWT_ISSUER", "https://i.test"),
            ("PIXELL_JWT_AUDIENCES", "a,b"),
            ("PIXELL_JWKS_FILE", "/jwks.json"),
            ("PIXELL_JWT_DEPLOYMENTS_CLAIM", "https://i.test/deployments"),
            ("PIXELL_FLEET_CIDRS", "10.0.1.0/24"),
            ("PIXELL_PEER_CERT_FILE", "/p.pem"),
            ("PIXELL_PEER_KEY_FILE", "/p-key.pem"),
            ("PIXELL_PEER_CA_FILE", "/p-ca.pem"),
            ("PIXELL_PEER_SAN", "peer.test"),
        ]));
        assert_eq!(all.len(), 39);
        let rendered = render(SHIPPED, &all).unwrap();
        for expected in [
            "{ pixell.access_log.full: 0, pixell.access_log.brief: 100, overload.premature_reset_total_stream_count: 4294967295 }",
            "address: \"localhost\", port_value: 4317",
            "max_connection_duration: 120s\n                  max_connection_duration_jitter: { value: 20 }",
            "disallowed_versions: [V1]",
            "value: '{\"role\":\"clients\",\"connections\":20}'",
            "[{ address_prefix: \"10.0.1.0\", prefix_len: 24 }, { address_prefix: \"fd00::\", prefix_len: 8 }]",
            "max_stream_duration: 60s",
            "domains: [\"a.test\", \"a.test:443\"]",
            "domains: [\"b.test:8080\"]",
            "\"role\": \"router\", \"fleet\": {\"port\": 50050, \"local\": \"127.0.0.1\"}, \"id_headers\": [\"x-agent\"], \"deployments_claim\": \"https://i.test/deployments\",\n",
            "headers: [{ name: \"x-agent\", string_match: { exact: \"\" }, treat_missing_header_as_empty: true }]",
            "\"role\": \"admin\", \"fleet\": {\"peer_cidrs\": [\"10.0.1.0/24\"]}, \"agents_url\": \"https://a.test\"\n",
            "max_stream_duration: { max_stream_duration: 60s } }, typed_per_filter_config: { envoy.filters.http.cors: ",
            "\"external_origins\": [\"https://a.test\", \"http://b.test:8080\"]",
        ] {
            assert!(rendered.contains(expected), "{expected}");
        }
    }

    #[test]
    fn links_lead_to_the_first_origin_that_is_one_host() {
        let url = |vars: &[_]| agents_url(&settings(vars));
        assert_eq!(url(&[]), None);
        assert_eq!(url(&[("PIXELL_EXTERNAL_ORIGINS", "https://*.a.test")]), None);
        assert_eq!(url(&[("PIXELL_EXTERNAL_ORIGINS", "https://*.a.test,http://b.test:80")]).as_deref(), Some("http://b.test"));
        let tls = [("PIXELL_TLS_CERT_FILE", "/c.pem"), ("PIXELL_TLS_KEY_FILE", "/k.pem")];
        assert_eq!(url(&tls).as_deref(), Some(HTTPS_LINKS));
        assert_eq!(url(&[("PIXELL_PATH_PREFIXES", "/a/{id}")]).as_deref(), Some(""));
    }

    #[test]
    fn a_file_that_does_not_hold_a_place_exactly_once_is_an_error() {
        let all = edits(&settings(&[("PIXELL_OTLP_ENDPOINT", "localhost:4317")]));
        assert_eq!(render("admin: {}", &all), Err(NoPlace(TRACING_PLACE)));
        assert_eq!(render("# (tracing) # (tracing)", &all), Err(NoPlace(TRACING_PLACE)));
    }
}
