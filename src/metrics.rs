//! The metrics that the filter keeps, by the names and labels that Prometheus sees.
//!
//! Envoy's metrics have no labels of their own: a label is part of the name, `<name>.<label>.<value>`, and `stats_tags` of
//! `envoy/envoy.yaml` takes it out again. Every label has a fixed set of values; no deployment id is ever one.

use crate::rejection::Rejection;

/// Counter: requests that the filter answered itself, by `reason`.
pub const REJECTIONS: &str = "pixell_rejections_total";

/// Gauge: routes in the map, draining ones too.
pub const ROUTES: &str = "pixell_routes";

/// Gauge: generation of the map; 0 until the first one was stored.
pub const GENERATION: &str = "pixell_route_map_generation";

/// Counter: writes that changed the map.
pub const PUBLISHES: &str = "pixell_route_map_publishes_total";

/// Gauge: Unix time of the last accepted write, in seconds, whether it changed anything or not; 0 until the first.
pub const LAST_PUSH: &str = "pixell_route_map_last_push_timestamp_seconds";

/// Counter: writes that the route API refused, by `reason`.
pub const REFUSED_WRITES: &str = "pixell_route_map_refused_writes_total";

/// Counter: how often a worker fetched the map, by `worker`.
pub const REFRESHES: &str = "pixell_route_map_refreshes_total";

/// Gauge, always 1: the filter's `version`.
pub const BUILD_INFO: &str = "pixell_build_info";

/// Every reason of [`REJECTIONS`].
pub const REJECTION_REASONS: [&str; 7] = Rejection::CODES;

/// What is counted where a value outside of its set turns up, so that a label stays bounded whatever happens.
pub const OTHER: &str = "other";

/// Every reason of [`REFUSED_WRITES`]: the codes of the route API's error documents.
pub const REFUSAL_REASONS: [&str; 14] = [
    "conflict_retries_exhausted",
    "invalid_deployment_id",
    "invalid_precondition",
    "invalid_query",
    "invalid_routes",
    "malformed_json",
    "method_not_allowed",
    "not_found",
    "payload_too_large",
    "port_in_use",
    "precondition_failed",
    "unauthorized",
    "unsupported_media_type",
    OTHER,
];

/// The most values of the label `worker`: as many workers as the image lets Envoy have.
const MAX_WORKERS: u64 = 256;

/// A metric's name with its one label.
#[must_use]
pub fn labelled(name: &str, label: &str, value: &str) -> String {
    format!("{name}.{label}.{value}")
}

/// The label of the `ordinal`-th worker that has taken a request, from 1. A worker whose VM has crashed counts anew.
#[must_use]
pub fn worker_label(ordinal: u64) -> String {
    if (1..=MAX_WORKERS).contains(&ordinal) { ordinal.to_string() } else { OTHER.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Every code that the route API's source makes an error document with.
    fn codes_in(source: &str) -> Vec<&str> {
        let after = source.split("Problem::new(").skip(1);
        after
            .filter_map(|text| {
                text.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix(", \"")?.split('"').next()
            })
            .collect()
    }

    #[test]
    fn every_refusal_of_the_route_api_has_its_reason() {
        let sources = [include_str!("admin/mod.rs"), include_str!("admin/call.rs"), include_str!("admin/etag.rs")];
        let codes: Vec<_> = sources.into_iter().flat_map(codes_in).collect();
        assert!(codes.len() >= 10, "the source is read wrongly: {codes:?}");
        for code in codes {
            assert!(REFUSAL_REASONS.contains(&code), "{code} would be counted as {OTHER:?}");
        }
    }

    #[test]
    fn labels_are_bounded() {
        assert_eq!(labelled(REJECTIONS, "reason", "internal"), "pixell_rejections_total.reason.internal");
        for (ordinal, label) in [(1, "1"), (256, "256"), (257, "other"), (0, "other"), (u64::MAX, "other")] {
            assert_eq!(worker_label(ordinal), label);
        }
    }
}
