//! How often a client may call a deployment: Envoy's local rate limit, with a bucket for each pair of them in each task.

use crate::client_rejections::Kind;
use crate::configuration::Edit;
use crate::jwt::METADATA;

/// Where the filter goes: after the router's filter, so that only requests that are forwarded count, by the id that was decided.
pub const PLACE: &str = "# (rate limit)";

/// The form of the setting, for messages.
pub const EXPECTED: &str = "a number of requests from 1 to 1000000 in a second or a minute, such as 100/s or 30/m";

/// The most buckets. If there would be more, the least recently used one is dropped, and starts full when it is needed again.
const BUCKETS: u32 = 20_000;

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    requests: u32,
    seconds: u32,
}

impl RateLimit {
    /// Parses `100/s` or `30/m`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_once('/')?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            _ => return None,
        };
        let digits = number.bytes().all(|c| c.is_ascii_digit());
        let requests = number.parse().ok().filter(|requests| digits && (1..=1_000_000).contains(requests))?;
        Some(Self { requests, seconds })
    }

    /// The change that adds the filter. Clients are distinguished by the `sub` of their token, and without tokens, or without a `sub`, by their
    /// address.
    pub(crate) fn edit(self, by_subject: bool) -> Edit {
        let Self { requests, seconds } = self;
        // Tokens come one by one, at this rate, up to those of one second.
        let burst = requests.div_ceil(seconds);
        let bucket = format!("token_bucket: {{ max_tokens: {burst}, tokens_per_fill: {requests}, fill_interval: {seconds}s }}");
        let deployment = "request_headers: { header_name: x-deployment-id, descriptor_key: deployment }";
        let mut limits =
            vec![format!("{{ actions: [{{ {deployment} }}, {{ remote_address: {{}} }}{}] }}", kind_of_client(by_subject))];
        let mut descriptors: Vec<_> = kinds_of_address(by_subject)
            .iter()
            .map(|kind| format!("{{ entries: [{{ key: deployment }}, {{ key: remote_address }}{kind}], {bucket} }}"))
            .collect();
        if by_subject {
            limits.push(format!(
                "{{ actions: [{{ {deployment} }}, {{ metadata: {{ descriptor_key: subject, source: DYNAMIC, metadata_key: {{ \
                 key: envoy.filters.http.jwt_authn, path: [{{ key: {METADATA} }}, {{ key: sub }}] }} }} }}] }}"
            ));
            descriptors.push(format!("{{ entries: [{{ key: deployment }}, {{ key: subject }}], {bucket} }}"));
        }
        // The bucket for all, which Envoy requires, never runs out.
        let text = format!(
            "- {{ name: pixell.rate_limit, typed_config: {{ \
             \"@type\": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: clients, \
             token_bucket: {{ max_tokens: 4294967295, tokens_per_fill: 4294967295, fill_interval: 1s }}, \
             always_consume_default_token_bucket: false, filter_enabled: {{ default_value: {{ numerator: 100 }} }}, \
             filter_enforced: {{ default_value: {{ numerator: 100 }} }}, rate_limited_as_resource_exhausted: true, \
             max_dynamic_descriptors: {BUCKETS}, rate_limits: [{}], descriptors: [{}] }} }}",
            limits.join(", "),
            descriptors.join(", ")
        );
        Edit { place: PLACE, text }
    }

    /// The form of its rejections. A client that waits as long as `retry-after` says finds at least one token.
    pub(crate) fn rejection(&self) -> Kind {
        Kind {
            expression: "response.code_details == 'local_rate_limited'",
            code: "rate_limited",
            status: (429, "Too Many Requests"),
            grpc_status: 8,
            message: "Too many requests to this deployment, try again later",
            envoys_message: false,
            header: Some(("retry-after", self.seconds.div_ceil(self.requests).to_string().into())),
        }
    }
}

/// One more entry for the kind of client, if tokens are needed. A request without a token is a preflight.
fn kind_of_client(by_subject: bool) -> String {
    if !by_subject {
        return String::new();
    }
    let filter = "metadata.filter_metadata['envoy.filters.http.jwt_authn']";
    format!(
        ", {{ extension: {{ name: envoy.rate_limit_descriptors.expr, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor, descriptor_key: by, \
         text: \"!('envoy.filters.http.jwt_authn' in metadata.filter_metadata) ? 'preflight' : \
         'sub' in {filter}.{METADATA} && {filter}.{METADATA}.sub != '' ? 'subject' : 'address'\" }} }} }}"
    )
}

/// The kinds of clients that have buckets by their address. Each kind has its own, because a preflight, which anyone may send, must not spend
/// the rate of a client with a token.
const fn kinds_of_address(by_subject: bool) -> &'static [&'static str] {
    if by_subject { &[", { key: by, value: address }", ", { key: by, value: preflight }"] } else { &[""] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_strictly() {
        for (text, requests, seconds, burst, wait) in [
            ("100/s", 100, 1, 100, "1"),
            ("1/s", 1, 1, 1, "1"),
            ("30/m", 30, 60, 1, "2"),
            ("120/m", 120, 60, 2, "1"),
            ("7/m", 7, 60, 1, "9"),
        ] {
            let limit = RateLimit::parse(text).unwrap();
            assert_eq!(limit, RateLimit { requests, seconds });
            let written = limit.edit(false).text;
            assert!(
                written.contains(&format!("max_tokens: {burst}, tokens_per_fill: {requests}, fill_interval: {seconds}s")),
                "{written}"
            );
            assert_eq!(limit.rejection().header, Some(("retry-after", wait.into())));
        }
        for text in ["", "100", "0/s", "-1/s", "+1/s", "1.5/s", "1/h", "1/ s", "1000001/s", "/s", "100/s/s", "s/100"] {
            assert_eq!(RateLimit::parse(text), None, "{text}");
        }
    }

    #[test]
    fn clients_with_a_token_are_told_apart_by_its_subject() {
        let limit = RateLimit::parse("5/s").unwrap();
        assert!(!limit.edit(false).text.contains("subject"));
        let text = limit.edit(true).text;
        assert!(text.contains("{ key: deployment }, { key: subject }"), "{text}");
        for kind in ["address", "preflight"] {
            assert!(text.contains(&format!("{{ key: remote_address }}, {{ key: by, value: {kind} }}")), "{text}");
        }
    }
}
