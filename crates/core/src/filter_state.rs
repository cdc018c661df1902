//! Filter state: the notes that filters leave with a request, for each other, for Envoy's routes and for its logs. Names are as in `envoy.yaml`.

/// Why the request was rejected: the code. For logs and traces.
pub const REJECTION: &str = "wasm.pixell.rejection";

/// That the rejection is one of the first of its kind, which are logged whatever the rate.
pub const FIRST: &str = "wasm.pixell.first";

/// Whether the request goes to a peer (`out`) or was sent by one (`in`). For Envoy's route for hops, and for logs.
pub const HOP: &str = "wasm.pixell.hop";

/// The trail of a hop ([`crate::hop::Trail`]), which only the filters read.
pub const TRAIL: &str = "wasm.pixell.trail";

/// What the filter of responses needs to know of a request that the path or the host addresses ([`crate::responses::way::Note`]). The native
/// filter keeps it in its own stream.
pub const ROUTE: &str = "wasm.pixell.route";

/// When the request arrived, for the native filter before the agents' clusters. (Envoy's own time of arrival is not among the attributes of a native
/// filter.)
pub const ARRIVED: &str = "pixell.arrived";

/// How many peers had no route for the request, as the native filter counts them. (With Wasm a script of `envoy/fleet/cluster.yaml` counts them,
/// in the request's dynamic metadata.)
pub const RETURNS: &str = "pixell.returns";

/// What Envoy puts before the names of what a Wasm module leaves.
const WASM: &str = "wasm.";

/// The name by which a Wasm module knows one of these.
#[must_use]
pub const fn in_wasm(name: &'static str) -> &'static str {
    name.split_at(WASM.len()).1
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn envoy_adds_what_a_module_leaves_out() {
        for name in [REJECTION, FIRST, HOP, TRAIL, ROUTE] {
            assert_eq!([WASM, in_wasm(name)].concat(), name);
        }
        assert_eq!(in_wasm(HOP), "pixell.hop");
    }

    #[test]
    fn envoy_s_configuration_reads_what_is_left() {
        let texts = [include_str!("../../../envoy/envoy.yaml"), include_str!("../../../envoy/fleet/routes.yaml")];
        let read: Vec<_> = texts.iter().flat_map(|text| text.match_indices(WASM).map(|(at, _)| &text[at..])).collect();
        let unknown = read.iter().find(|text| {
            text.starts_with("wasm.pixell.") && ![REJECTION, FIRST, HOP].iter().any(|name| text.starts_with(name))
        });
        assert_eq!(unknown, None);
        for name in [REJECTION, FIRST, HOP] {
            assert!(read.iter().any(|text| text.starts_with(name)), "nothing reads {name}");
        }
    }
}
