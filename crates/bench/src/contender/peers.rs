//! Envoy's own alternatives to the filter: a Lua script, or a route for each deployment.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use super::envoy::{address_from_header, contender, settings};
use super::{Contender, Stage};
use crate::table::Table;

/// Envoy's Lua filter with the routes of `table` in the script.
pub(super) async fn lua(stage: &Stage<'_>, table: &Table) -> Result<Contender> {
    let mut script = String::from("local routes = {\n");
    for (id, port) in &table.routes {
        writeln!(script, "  [\"{id}\"] = \"127.0.0.1:{port}\",")?;
    }
    script.push_str(
        "}\n\
         function envoy_on_request(handle)\n  \
           local headers = handle:headers()\n  \
           local address = routes[headers:get(\"x-deployment-id\")]\n  \
           if address == nil then\n    \
             handle:respond({[\":status\"] = \"404\"}, \"\")\n  \
           else\n    \
             headers:replace(\"x-envoy-original-dst-host\", address)\n  \
           end\n\
         end\n",
    );
    let filter = json!({
        "name": "lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "inline_string": script },
        },
    });
    let envoy = address_from_header(settings(stage).data_filter(&format!("- {filter}"))).start().await?;
    contender(stage, envoy, table.requested.clone())
}

/// A route matched by header for each entry of `table`, as RDS would deliver them. Only running agents get a cluster, and the other
/// routes share these clusters. This does not change the cost of a request, but spares Envoy thousands of unused clusters.
pub(super) async fn header_routes(stage: &Stage<'_>, table: &Table) -> Result<Contender> {
    const ROUTES: &str = "                        - match: { prefix: \"/\", grpc: {} }\n";
    const CLUSTERS: &str = "    - name: agents_http2\n";
    let mut routes = String::new();
    for (number, (id, port)) in table.routes.iter().enumerate() {
        let port = if stage.agents.contains(port) {
            *port
        } else {
            stage.agents.iter().cycle().nth(number % stage.agents.len().max(1)).copied().unwrap_or(*port)
        };
        let route = json!({
            "match": { "prefix": "/", "headers": [{ "name": "x-deployment-id", "string_match": { "exact": id } }] },
            "route": { "cluster": format!("agent_{port}"), "timeout": "0s" },
        });
        writeln!(routes, "                        - {route}")?;
    }
    let mut clusters = String::new();
    for port in stage.agents {
        let endpoint =
            json!({ "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } } });
        let cluster = json!({
            "name": format!("agent_{port}"),
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": { "cluster_name": format!("agent_{port}"), "endpoints": [{ "lb_endpoints": [endpoint] }] },
        });
        writeln!(clusters, "    - {cluster}")?;
    }
    let settings = settings(stage).data_filter("").edit(ROUTES, &(routes + ROUTES)).edit(CLUSTERS, &(clusters + CLUSTERS));
    contender(stage, settings.start().await?, table.requested.clone())
}
