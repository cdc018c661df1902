//! Envoy's configuration with the settings that no argument of Envoy can carry: the access log and tracing.
//!
//! The shipped file has a place for each, found by its exact text. A file in which it is missing, such as one that somebody mounted
//! over the shipped one, is an error and not silently left as it is.

use crate::settings::{AccessLog, Settings, Tracing};
use std::fmt;

/// The runtime layer of the image's settings, still empty.
pub const SETTINGS_PLACE: &str = "static_layer: {}";
/// Where tracing goes in the data path's listener.
pub const TRACING_PLACE: &str = "# (tracing)";
/// Where the cluster of the trace collector goes.
pub const COLLECTOR_PLACE: &str = "# (trace collector)";

/// One change of the shipped file: a text that stands there exactly once, and what takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The text to find.
    pub place: &'static str,
    /// What is written there instead.
    pub text: String,
}

/// The place of a setting is missing, or there more than once.
#[derive(Debug, PartialEq, Eq)]
pub struct NoPlace(&'static str);

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.0;
        write!(
            f,
            "must hold the text {place:?} exactly once, for the settings that were given; keep it where the shipped file has it"
        )
    }
}

impl std::error::Error for NoPlace {}

/// The changes that the settings ask for; none where all is as shipped.
#[must_use]
pub fn edits(settings: &Settings) -> Vec<Edit> {
    let mut edits = Vec::new();
    if settings.access_log != AccessLog::default() {
        let AccessLog { full, brief } = settings.access_log;
        let text = format!("static_layer: {{ pixell.access_log.full: {full}, pixell.access_log.brief: {brief} }}");
        edits.push(Edit { place: SETTINGS_PLACE, text });
    }
    if let Some(tracing) = &settings.tracing {
        edits.push(Edit { place: TRACING_PLACE, text: connection_manager(tracing) });
        edits.push(Edit { place: COLLECTOR_PLACE, text: collector(tracing) });
    }
    edits
}

/// `shipped` with the changes.
///
/// # Errors
/// [`NoPlace`] where a place is not there exactly once.
pub fn render(shipped: &str, edits: &[Edit]) -> Result<String, NoPlace> {
    edits.iter().try_fold(shipped.to_owned(), |text, edit| {
        if text.matches(edit.place).count() == 1 { Ok(text.replace(edit.place, &edit.text)) } else { Err(NoPlace(edit.place)) }
    })
}

// Both are one line of flow-style YAML, so that they need no indentation of their own.

fn connection_manager(tracing: &Tracing) -> String {
    let percent = tracing.percent;
    format!(
        "tracing: {{ random_sampling: {{ value: {percent} }}, custom_tags: [\
         {{ tag: pixell.deployment_id, value: \"%REQ(x-deployment-id):256%\" }}, \
         {{ tag: pixell.rejection, value: \"%FILTER_STATE(wasm.pixell.rejection:PLAIN)%\" }}], \
         provider: {{ name: envoy.tracers.opentelemetry, typed_config: {{ \
         \"@type\": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: pixell-envoy, \
         grpc_service: {{ envoy_grpc: {{ cluster_name: trace_collector }}, timeout: 1s }} }} }} }}"
    )
}

fn collector(tracing: &Tracing) -> String {
    let Tracing { host, port, .. } = tracing;
    format!(
        "- {{ name: trace_collector, type: STRICT_DNS, connect_timeout: 1s, typed_extension_protocol_options: {{ \
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

    const SHIPPED: &str = include_str!("../../envoy/envoy.yaml");

    fn settings(vars: &[(&str, &str)]) -> Settings {
        Settings::resolve(|name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())).unwrap()
    }

    #[test]
    fn without_settings_the_file_is_the_shipped_one() {
        assert_eq!(edits(&settings(&[("PIXELL_ACCESS_LOG", "full"), ("PIXELL_ACCESS_LOG_PERCENT", "100")])), []);
    }

    #[test]
    fn every_place_is_in_the_shipped_file() {
        let all = edits(&settings(&[("PIXELL_ACCESS_LOG", "brief"), ("PIXELL_OTLP_ENDPOINT", "localhost:4317")]));
        assert_eq!(all.len(), 3);
        let rendered = render(SHIPPED, &all).unwrap();
        for expected in ["pixell.access_log.full: 0, pixell.access_log.brief: 100", "address: \"localhost\", port_value: 4317"]
        {
            assert!(rendered.contains(expected), "{expected}");
        }
    }

    #[test]
    fn a_file_without_the_place_is_refused() {
        let all = edits(&settings(&[("PIXELL_OTLP_ENDPOINT", "localhost:4317")]));
        assert_eq!(render("admin: {}", &all), Err(NoPlace(TRACING_PLACE)));
        assert_eq!(render("# (tracing) # (tracing)", &all), Err(NoPlace(TRACING_PLACE)));
    }
}
