//! CORS (the Fetch standard) for pages of other origins that name their agent by a header. Envoy's filter responds to their preflights and adds
//! the headers to every response, rejections included. Requests that name their agent by path or host are left to the agent.

use crate::addressing::Addressing;
use crate::configuration::Edit;
use crate::origin::Origin;
use crate::settings::Settings;
use std::fmt::Write;

/// Where the filter goes.
pub const FILTER_PLACE: &str = "# (CORS)";
/// Where the policy goes.
pub const POLICY_PLACE: &str = "# (CORS policy)";
/// Where the routes go that are left to agents.
pub const ROUTES_PLACE: &str = "# (CORS of agents)";

/// The form of the list, for messages.
pub const EXPECTED: &str = "different origins separated by commas, each of them http:// or https://, a host (perhaps *.example.com) and a port \
                            unless it is the scheme's own, such as https://app.example.com";

const TYPE: &str = "\"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3";

/// The changes of the configuration; none without origins.
#[must_use]
pub fn edits(settings: &Settings) -> Vec<Edit> {
    let Settings { cors_origins: origins, addressing, call_timeout_seconds, .. } = settings;
    if origins.is_empty() {
        return Vec::new();
    }
    let filter = format!("- {{ name: envoy.filters.http.cors, typed_config: {{ {TYPE}.Cors }} }}");
    vec![
        Edit { place: FILTER_PLACE, text: filter },
        Edit { place: POLICY_PLACE, text: policy(origins, addressing).join(&format!("\n{}", " ".repeat(22))) },
        Edit { place: ROUTES_PLACE, text: agents_own(addressing, *call_timeout_seconds) },
    ]
}

/// The members of a virtual host: the policy, and a `vary` header, so that no cache gives a response to another page or for another agent.
///
/// Requests with cookies are not allowed: a page that names an agent by a header can send a token by one, too. So a star can stand for
/// everything but `authorization` (Fetch standard, "CORS-preflight fetch").
#[must_use]
pub fn policy(origins: &[Origin], addressing: &Addressing) -> [String; 2] {
    let origins: Vec<_> = origins.iter().map(matcher).collect();
    let names = addressing.headers().into_iter().fold("origin".to_owned(), |names, name| format!("{names}, {name}"));
    [
        format!(
            "typed_per_filter_config: {{ envoy.filters.http.cors: {{ {TYPE}.CorsPolicy, allow_origin_string_match: [{}], \
             allow_methods: \"*\", allow_headers: \"*, authorization\", expose_headers: \"*\", max_age: \"600\" }} }}",
            origins.join(", ")
        ),
        format!(
            "response_headers_to_add: [{{ header: {{ key: vary, value: \"{names}\" }}, append_action: APPEND_IF_EXISTS_OR_ADD }}]"
        ),
    ]
}

fn matcher(origin: &Origin) -> String {
    let text = origin.to_string();
    match text.split_once("*.") {
        None => format!("{{ exact: \"{text}\" }}"),
        Some((scheme, host)) => format!("{{ safe_regex: {{ regex: '{scheme}[^/:]+\\.{}' }} }}", host.replace('.', "\\.")),
    }
}

/// Routes without the filter, for requests that name their agent by the path or the host. Neither these requests, nor those that a preflight
/// announces, have a header that names an agent.
fn agents_own(addressing: &Addressing, seconds: Option<u32>) -> String {
    let mut others = String::new();
    for name in addressing.headers() {
        // Writing to a string does not fail.
        let _ = write!(
            others,
            ", {{ name: \"{name}\", string_match: {{ exact: \"\" }}, treat_missing_header_as_empty: true }}, {{ name: access-control-request-headers, \
             string_match: {{ safe_regex: {{ regex: '{}' }} }}, treat_missing_header_as_empty: true, invert_match: true }}",
            lists(&name).replace('\'', "''")
        );
    }
    let mut matches: Vec<_> = addressing.literal_starts().iter().map(|start| (start.clone(), String::new())).collect();
    if let Some(suffix) = &addressing.host_suffix {
        let suffix = suffix.replace('.', "\\.");
        matches.push((
            "/".to_owned(),
            format!(", {{ name: \":authority\", string_match: {{ safe_regex: {{ regex: '(?i).+{suffix}(:[0-9]+)?' }} }} }}"),
        ));
    }
    let limit =
        seconds.map_or_else(String::new, |seconds| format!(", max_stream_duration: {{ max_stream_duration: {seconds}s }}"));
    let websocket = ", { name: upgrade, string_match: { exact: websocket, ignore_case: true } }";
    let route = |prefix: &str, host: &str, upgrade: &str, action: &str| {
        format!(
            "- {{ match: {{ prefix: \"{prefix}\", headers: [{{ name: origin, present_match: true }}{upgrade}{host}{others}] }}, \
             route: {{ {action} }}, typed_per_filter_config: {{ envoy.filters.http.cors: {{ \
             \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true }}, pixell.responses: {{ \
             \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {{}} }} }} }}"
        )
    };
    let routes = matches.iter().flat_map(|(prefix, host)| {
        [
            route(prefix, host, websocket, "cluster: agents_websocket, timeout: 0s"),
            route(prefix, host, "", &format!("cluster: agents_http1, timeout: 0s{limit}")),
        ]
    });
    routes.collect::<Vec<_>>().join("\n                        ")
}

/// The regular expression of a list (RFC 9110, 5.6.1) with this header name among its members. Browsers write names in lower case.
fn lists(name: &str) -> String {
    let literal = |byte| match byte {
        'a'..='z' | '0'..='9' | '-' | '_' => byte.to_string(),
        // All other characters of a name are punctuation, which RE2 takes literally after a backslash.
        _ => format!("\\{byte}"),
    };
    format!("(?i)(.*,)?[ \\t]*{}[ \\t]*(,.*)?", name.chars().map(literal).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_matched_whole() {
        let origins = Origin::parse_set("https://App.test:443,http://*.a-b.test:8080").unwrap();
        let matchers: Vec<_> = origins.iter().map(matcher).collect();
        assert_eq!(
            matchers,
            ["{ exact: \"https://app.test\" }", "{ safe_regex: { regex: 'http://[^/:]+\\.a-b\\.test:8080' } }"]
        );
    }

    #[test]
    fn header_names_are_literal() {
        assert_eq!(lists("x-id_2"), "(?i)(.*,)?[ \\t]*x-id_2[ \\t]*(,.*)?");
        assert_eq!(lists("a.b'"), "(?i)(.*,)?[ \\t]*a\\.b\\'[ \\t]*(,.*)?");
    }
}
