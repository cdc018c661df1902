//! The fleet in Envoy's configuration: the listener for requests of other tasks, the routes and the cluster that lead to them.

use crate::configuration::{Edit, ROUTER_PLACE};
use crate::fleet::Fleet;
use crate::peer_tls::PeerTls;
use pixell_core::filter_state::HOP;

/// Where the listener for peers goes.
pub const LISTENER_PLACE: &str = "# (listener for peers)";
/// Where the routes that lead to peers go, before those that lead to agents.
pub const ROUTES_PLACE: &str = "# (routes to peers)";
/// Where the cluster of the peers goes.
pub const CLUSTER_PLACE: &str = "# (peers)";
/// Where the rejections of requests that reached no peer go.
pub const REJECTIONS_PLACE: &str = "# (peers unreachable)";
/// Where the access log's field for hops goes.
pub const HOP_PLACE: &str = "# (hop)";
/// The fleet in the configuration of the data path's filter: the peers' port, and the address at which this task reaches its own.
pub const FILTER_MEMBER: &str = "\"fleet\": {\"port\": 50050, \"local\": \"127.0.0.1\"}";

/// The runtime key of a fleet. By default Envoy ends a connection, with all of its streams, after 500 requests of which clients reset half at
/// once. On a connection of another task these are the requests of all clients, so any client could end it. The key is global.
pub(crate) const RUNTIME: &str = "overload.premature_reset_total_stream_count: 4294967295";

const LISTENER: &str = include_str!("../../../envoy/fleet/listener.yaml");
const ROUTES: &str = include_str!("../../../envoy/fleet/routes.yaml");
const CLUSTER: &str = include_str!("../../../envoy/fleet/cluster.yaml");
const REJECTIONS: &str = include_str!("../../../envoy/fleet/rejections.yaml");

/// The listener's second address, if a peer may have one of IPv6. (Envoy binds it for IPv6 alone.) Without such peers the host may have no IPv6.
const IPV6: &str = "additional_addresses: [{ address: { socket_address: { address: \"::\", port_value: 50050 } } }]";

/// What else the configuration of hops depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Around<'a> {
    /// The limit for calls without a deadline, in seconds.
    pub(crate) call_timeout: Option<u32>,
    /// Tracing, as the connection manager's member.
    pub(crate) tracing: Option<&'a str>,
}

impl Fleet {
    /// The changes of the configuration, except that of the filter's own.
    pub(crate) fn data_path(&self, around: Around<'_>) -> Vec<Edit> {
        let networks = self
            .peer_cidrs
            .iter()
            .map(|cidr| format!("{{ address_prefix: \"{}\", prefix_len: {} }}", cidr.address(), cidr.prefix_len()));
        let networks: Vec<_> = networks.collect();
        let ipv6 = self.peer_cidrs.iter().any(|cidr| cidr.address().is_ipv6());
        let (server, log, client) = match &self.tls {
            Some(tls) => (tls.listener(), PeerTls::log(), tls.cluster()),
            None => (String::new(), "", String::new()),
        };
        let listener = LISTENER
            .replace("# (peer TLS log)", log)
            .replace("# (peer TLS)", &server)
            .replace("(peers)", &networks.join(", "))
            .replace("# (IPv6)", if ipv6 { IPV6 } else { "" })
            .replace("# (tracing of peers)", around.tracing.unwrap_or_default());
        let mut routes = ROUTES.to_owned();
        if let Some(seconds) = around.call_timeout {
            routes = routes
                .replace("# (call timeout)", &format!("max_stream_duration: {seconds}s"))
                .replace("# (HTTP call timeout)", &format!("max_stream_duration: {{ max_stream_duration: {seconds}s }}"));
        } else {
            routes = routes.replace("# (call timeout)", "").replace("# (HTTP call timeout)", "");
        }
        vec![
            Edit { place: LISTENER_PLACE, text: indented(&listener, 4) },
            Edit { place: ROUTES_PLACE, text: indented(&routes, 24) },
            Edit { place: CLUSTER_PLACE, text: indented(&CLUSTER.replace("# (peer TLS)", &client), 4) },
            Edit { place: REJECTIONS_PLACE, text: indented(REJECTIONS, 20) },
            Edit { place: HOP_PLACE, text: format!("hop: \"%FILTER_STATE({HOP}:PLAIN)%\"") },
        ]
    }

    /// What is added to the configuration of the data path's filter.
    pub(crate) fn member() -> Edit {
        Edit { place: ROUTER_PLACE, text: format!("{ROUTER_PLACE}, {FILTER_MEMBER}") }
    }
}

/// The lines of a text, indented to follow a line that already has this indentation.
fn indented(text: &str, by: usize) -> String {
    let lines: Vec<_> = text.trim_end().lines().filter(|line| !line.trim().is_empty()).collect();
    lines.join(&format!("\n{}", " ".repeat(by)))
}
