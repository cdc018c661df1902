//! The plugin configuration: JSON text to what the filter works with.
//!
//! Parsing is strict, because a setting that is misspelled and silently ignored is found at night: an unknown key, a duplicate
//! key, a wrong type or a value out of range keeps Envoy from starting, and every fault is named at once.

use self::fields::Fields;
use self::routes::parse_routes;
use crate::deployment_id::DeploymentId;
use crate::json::{Json, pointer};
use crate::problem::Fault;
use crate::route::Route;
use std::fmt;

pub mod fields;
pub mod routes;

/// The most routes a map can hold: a route has a port of its own, and there are this many.
pub const MOST_ROUTES: u64 = 65_535;

/// Largest body the route API can be set to accept, in bytes. `per_connection_buffer_limit_bytes` of the listener
/// in envoy.yaml is above it.
const LARGEST_BODY: u64 = 32_000_000;

/// Configuration of the role `router`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// Names of the headers that may carry the id, in lower case; the first one a request has counts. Default: `x-deployment-id`.
    pub id_headers: Vec<String>,
    /// Port of 127.0.0.1 for ids that the map does not hold; 1 to 65535. Default: none, they are rejected.
    pub fallback_port: Option<u16>,
}

/// Configuration of the role `admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// What a map may hold.
    pub limits: Limits,
    /// Largest request body in bytes; 1 to 32,000,000. Default: enough for `max_routes` routes.
    pub max_body_bytes: usize,
    /// Routes to start with where no map exists yet. Default: none, and the map counts as not loaded.
    pub bootstrap_routes: Option<Vec<(String, Route)>>,
}

/// What a route map may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Lowest port; default 1024.
    pub min_port: u16,
    /// Highest port; default 65535.
    pub max_port: u16,
    /// Ports that are never routed to. Default: 50051, 9901, 8080 and 9090, Envoy's and PAR's own.
    pub denied_ports: Vec<u16>,
    /// Most routes; 1 to 65,535. Default 10,000.
    pub max_routes: usize,
    /// Longest id in bytes; 1 to 128. Default 128.
    pub max_id_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_port: 1024,
            max_port: 65535,
            denied_ports: vec![50051, 9901, 8080, 9090],
            max_routes: 10_000,
            max_id_bytes: DeploymentId::MAX_LEN,
        }
    }
}

impl Limits {
    /// A body that holds `max_routes` routes with the longest ids, indented by hand.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        4096 + self.max_routes * (self.max_id_bytes + 128)
    }
}

impl RouterConfig {
    /// Parses the text of `configuration` in envoy.yaml.
    ///
    /// # Errors
    /// [`InvalidConfig`] names every fault.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidConfig> {
        parse(text, "router", router)
    }
}

impl AdminConfig {
    /// Parses the text of `configuration` in envoy.yaml.
    ///
    /// # Errors
    /// [`InvalidConfig`] names every fault.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidConfig> {
        parse(text, "admin", admin)
    }
}

/// Parses the configuration of one role. (Each module holds the parser of its own role alone.)
fn parse<T>(text: &[u8], role: &str, settings: fn(&mut Fields<'_, '_>) -> T) -> Result<T, InvalidConfig> {
    let json = Json::parse(text)
        .map_err(|error| InvalidConfig(vec![Fault::new("", format!("the configuration is not JSON: {error}"))]))?;
    let mut faults = Vec::new();
    let mut fields = Fields::of(&json, "", &mut faults);
    match fields.take("role") {
        Some(Json::String(found)) if found == role => {}
        Some(other) => fields.fault("role", format!("must be \"{role}\", for this is {role}.wasm; got {other}")),
        None => fields.fault("role", format!("is missing; it must be \"{role}\"")),
    }
    if fields.faults().is_empty() {
        let config = settings(&mut fields);
        fields.refuse_the_rest();
        if faults.is_empty() {
            return Ok(config);
        }
    }
    Err(InvalidConfig(faults))
}

fn router(fields: &mut Fields<'_, '_>) -> RouterConfig {
    let id_headers = match fields.take("id_headers") {
        None => vec!["x-deployment-id".to_owned()],
        Some(Json::Array(names)) if !names.is_empty() => {
            let parsed: Option<Vec<String>> = names.iter().map(header_name).collect();
            let parsed = parsed.unwrap_or_else(|| {
                fields.fault("id_headers", "must hold HTTP header names in lower case, such as \"x-deployment-id\"");
                Vec::new()
            });
            if parsed.iter().enumerate().any(|(n, name)| parsed.iter().take(n).any(|earlier| earlier == name)) {
                fields.fault("id_headers", "names a header twice");
            }
            parsed
        }
        Some(other) => {
            fields.fault("id_headers", format!("must be a list of at least one header name, got {other}"));
            Vec::new()
        }
    };
    let fallback_port = fields.integer("fallback_port", 1, 65535).and_then(|port| u16::try_from(port).ok());
    RouterConfig { id_headers, fallback_port }
}

/// A header name as HTTP/2 sends it (RFC 9110, 5.6.2; RFC 9113, 8.2.1): tokens in lower case, no pseudo-header.
fn header_name(json: &Json) -> Option<String> {
    let Json::String(name) = json else { return None };
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.len() <= 256 && name.bytes().all(token)).then(|| name.clone())
}

fn admin(fields: &mut Fields<'_, '_>) -> AdminConfig {
    let mut limits = Limits::default();
    if let Some(range) = fields.take("port_range") {
        let mut inner = fields.nested(range, "port_range");
        let min = inner.integer("min", 1, 65535);
        let max = inner.integer("max", 1, 65535);
        if let Some(min) = min.and_then(|port| u16::try_from(port).ok()) {
            limits.min_port = min;
        }
        if let Some(max) = max.and_then(|port| u16::try_from(port).ok()) {
            limits.max_port = max;
        }
        inner.refuse_the_rest();
        if limits.min_port > limits.max_port {
            let detail = format!("is empty: min {} is above max {}", limits.min_port, limits.max_port);
            fields.fault("port_range", detail);
        }
    }
    match fields.take("denied_ports") {
        None => {}
        Some(Json::Array(ports)) => {
            let parsed: Option<Vec<u16>> =
                ports.iter().map(|port| port.as_integer().and_then(|port| u16::try_from(port).ok())).collect();
            match parsed {
                Some(parsed) => limits.denied_ports = parsed,
                None => fields.fault("denied_ports", "must hold ports, integers from 0 to 65535"),
            }
        }
        Some(other) => fields.fault("denied_ports", format!("must be a list of ports, got {other}")),
    }
    if let Some(most) = fields.integer("max_routes", 1, MOST_ROUTES) {
        limits.max_routes = usize::try_from(most).unwrap_or(limits.max_routes);
    }
    if let Some(most) = fields.integer("max_id_bytes", 1, DeploymentId::MAX_LEN as u64) {
        limits.max_id_bytes = usize::try_from(most).unwrap_or(limits.max_id_bytes);
    }
    let max_body_bytes = fields
        .integer("max_body_bytes", 1, LARGEST_BODY)
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or_else(|| limits.body_bytes());
    let bootstrap_routes = fields.take("bootstrap_routes").map(|json| bootstrap(json, &limits, fields));
    AdminConfig { limits, max_body_bytes, bootstrap_routes }
}

fn bootstrap(json: &Json, limits: &Limits, fields: &mut Fields<'_, '_>) -> Vec<(String, Route)> {
    let routes = parse_routes(json, "/bootstrap_routes", limits, fields.faults());
    let mut owners = std::collections::BTreeMap::new();
    for (id, route) in &routes {
        if let Some(owner) = owners.insert(route.port, *id) {
            let detail = format!("port {} is also given to {owner}; one port serves one id", route.port);
            fields.faults().push(Fault::new(pointer("/bootstrap_routes", id.as_str()), detail));
        }
    }
    if routes.len() > limits.max_routes {
        fields.fault("bootstrap_routes", format!("holds {} routes; at most {} are allowed", routes.len(), limits.max_routes));
    }
    routes.into_iter().map(|(id, route)| (id.as_str().to_owned(), route)).collect()
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig(pub Vec<Fault>);

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            let place = if fault.pointer.is_empty() { "" } else { " " };
            write!(f, "{separator}{}{place}{}", fault.pointer, fault.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidConfig {}

#[cfg(test)]
mod tests;
