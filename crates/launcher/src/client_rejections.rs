//! What Envoy's own filters reject a client for, in the form of the filter's rejections.

use std::borrow::Cow;

use crate::configuration::Edit;

/// The place in `envoy.yaml` where their mappers go.
pub const PLACE: &str = "# (client rejections)";

/// The place in `envoy.yaml`, among the access logs, where those that have a reason are counted.
pub const COUNT_PLACE: &str = "# (unauthenticated)";

/// A kind of rejection by a filter of Envoy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// What Envoy's details of the response are, as a CEL expression.
    pub(crate) expression: &'static str,
    /// The value of `x-pixell-error`.
    pub(crate) code: &'static str,
    /// The HTTP status and its phrase.
    pub(crate) status: (u16, &'static str),
    /// The gRPC status.
    pub(crate) grpc_status: u16,
    /// The message for clients that get a written gRPC status, and for all if Envoy has none of its own.
    pub(crate) message: &'static str,
    /// Whether others get Envoy's own message, which says more.
    pub(crate) envoys_message: bool,
    /// One more header of the response.
    pub(crate) header: Option<(&'static str, Cow<'static, str>)>,
}

/// The change that adds the mappers for these kinds.
pub(crate) fn edit(kinds: &[Kind]) -> Option<Edit> {
    let mappers: Vec<_> = kinds.iter().flat_map(mappers).collect();
    (!mappers.is_empty()).then(|| Edit { place: PLACE, text: mappers.join("\n                    ") })
}

fn mappers(kind: &Kind) -> [String; 3] {
    let Kind { expression, code, status: (status, title), grpc_status, message, .. } = kind;
    let condition = format!(
        "{{ extension_filter: {{ name: envoy.access_loggers.extension_filters.cel, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, \
         expression: \"{expression}\" }} }} }}"
    );
    let header = |name: &str, value: &str| {
        format!("{{ header: {{ key: {name}, value: \"{value}\" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}")
    };
    let mut headers = vec![header("x-pixell-error", code)];
    headers.extend(kind.header.iter().map(|(name, value)| header(name, value)));
    let common = headers.join(", ");
    headers.extend([header("grpc-status", &grpc_status.to_string()), header("grpc-message", message)]);
    let written = headers.join(", ");
    let body = if kind.envoys_message { String::new() } else { format!("body: {{ inline_string: \"{message}\" }}, ") };
    let to = |client: &str| format!("filter: {{ and_filter: {{ filters: [{condition}, {client}] }} }}");
    [
        format!("- {{ {}, status_code: {status}, {body}headers_to_add: [{common}] }}", to("*grpc_client")),
        format!(
            "- {{ {}, status_code: 200, headers_to_add: [{written}], body_format_override: *no_body }}",
            to("*written_client")
        ),
        format!(
            "- {{ filter: {condition}, status_code: {status}, {body}headers_to_add: [{common}], body_format_override: {{ \
             content_type: application/problem+json, json_format: {{ type: about:blank, title: {title}, status: {status}, \
             detail: \"%LOCAL_REPLY_BODY%\", code: {code} }} }} }}"
        ),
    ]
}

/// An access log that counts, for each of Envoy's reasons, the clients without a valid token. Envoy's own counter has no reasons. The first
/// condition, which agents' responses can also meet, keeps the expression from being evaluated for each request.
pub(crate) fn count() -> Edit {
    let expression = [UNAUTHENTICATED, PREFLIGHT_BODY].map(|kind| kind.expression).join(" || ");
    let text = format!(
        "- {{ name: pixell.unauthenticated, filter: {{ and_filter: {{ filters: [{{ grpc_status_filter: {{ \
         statuses: [UNAUTHENTICATED] }} }}, {{ extension_filter: {{ name: envoy.access_loggers.extension_filters.cel, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, \
         expression: \"{expression}\" }} }} }}] }} }}, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config, stats_scope: {{ prefix: tokens }}, \
         counters: [{{ stat: {{ name: unauthenticated_total, tags: [{{ name: reason, \
         value_format: \"%RESPONSE_CODE_DETAILS%\" }}] }}, value_fixed: 1 }}] }} }}"
    );
    Edit { place: COUNT_PLACE, text }
}

/// A CORS preflight with a body, perhaps one that exceeds Envoy's buffer. No browser sends one.
pub(crate) const PREFLIGHT_BODY: Kind = Kind {
    expression: "response.code_details in ['lua_response', 'request_payload_too_large']",
    message: "A CORS preflight has no body, and all other requests need a token",
    envoys_message: false,
    // Envoy's filter of tokens, which adds it elsewhere, has let the request pass.
    header: Some(("www-authenticate", Cow::Borrowed("Bearer"))),
    ..UNAUTHENTICATED
};

/// A client whose token is missing or invalid. Envoy's message says why.
pub(crate) const UNAUTHENTICATED: Kind = Kind {
    expression: "response.code_details.startsWith('jwt_authn_access_denied')",
    code: "unauthenticated",
    status: (401, "Unauthorized"),
    grpc_status: 16,
    message: "The request has no valid token",
    envoys_message: true,
    header: None,
};
