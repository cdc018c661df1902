//! The plugin configuration: JSON text to what the filter works with.
//!
//! Parsing is strict, so that no misspelt setting is silently ignored: an unknown key, a duplicate key, a wrong type or a value out of
//! range keeps Envoy from starting. Every error is named at once, up to a hundred of them.

mod addressing;
mod invalid;

use crate::addressing::Addressing;
use crate::claim::DeploymentsClaim;
use crate::deployment_id::{DeploymentId, OwnedDeploymentId};
use crate::fields::Fields;
use crate::fleet::limits::{self as fleet_limits, FleetLimits};
use crate::hop::Hops;
use crate::json::{Json, pointer};
use crate::problem::{FieldError, FieldErrors};
use crate::responses::origins::ExternalOrigins;
use crate::route::Route;
use crate::routes::form::parse_routes;
use crate::routes::limits::{Limits, MOST_ROUTES};

pub use invalid::InvalidConfig;

/// Largest body the route API can be set to accept, in bytes. `per_connection_buffer_limit_bytes` of the listener
/// in envoy.yaml is above it.
const LARGEST_BODY: u64 = 32_000_000;

/// Configuration of the role `router`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// Names of the headers that may carry the id, in lower case; the first one that a request has counts. Default: `x-deployment-id`
    /// and the aliases of PAR's own router, `deployment-id` and `deployment_id`.
    pub id_headers: Vec<String>,
    /// How requests without such a header may name their agent. Default: by the prefixes of
    /// [`PathPrefix::defaults`](crate::addressing::prefix::PathPrefix::defaults).
    pub addressing: Addressing,
    /// Port of 127.0.0.1 for ids that the map does not hold; 1 to 65535. Default: none, they are rejected.
    pub fallback_port: Option<u16>,
    /// The origins that are written into URLs of responses. Default: none, and the origin that a client uses is written.
    pub external_origins: ExternalOrigins,
    /// The claim of a client's token with the deployments that the client may call. Default: none, it may call every one.
    pub deployments_claim: Option<DeploymentsClaim>,
    /// How requests reach other tasks of the fleet. Default: there is no fleet.
    pub fleet: Option<Hops>,
}

/// Configuration of the role `clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientsConfig {
    /// The most connections of one client address; 1 to 10,000.
    pub connections: u32,
    /// The most requests of one client address to one HTTP/1.1 agent; 1 to 1,024. Default: 256, a quarter of the connections that an
    /// agent may have.
    pub requests_per_agent: u32,
}

/// Configuration of the role `admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// What a map may hold.
    pub limits: Limits,
    /// Largest request body in bytes; 1 to 32,000,000. Default: enough for `max_routes` routes.
    pub max_body_bytes: usize,
    /// What a fleet map may hold. Default: none, the fleet is off.
    pub fleet: Option<FleetConfig>,
    /// Routes to start with if no map exists yet. Default: none, and the map counts as not loaded.
    pub bootstrap_routes: Option<Vec<(OwnedDeploymentId, Route)>>,
    /// Where the status page's links to agents lead, up to the path; `{host}` stands for the host that the page was opened with. Empty: there
    /// are no links. Default: [`AGENTS_URL`].
    pub agents_url: String,
}

/// Configuration of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetConfig {
    /// What a fleet map may hold.
    pub limits: FleetLimits,
    /// Largest body of a write to it in bytes; 1 to 32,000,000. Default: enough for `max_routes` routes.
    pub max_body_bytes: usize,
}

/// The data path of the host that the status page was opened with.
pub const AGENTS_URL: &str = "//{host}:50051";

impl RouterConfig {
    /// Parses the text of `configuration` in envoy.yaml.
    ///
    /// # Errors
    /// [`InvalidConfig`] names every error.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidConfig> {
        parse(text, "router", router)
    }
}

impl ClientsConfig {
    /// Parses the text of `configuration` in envoy.yaml.
    ///
    /// # Errors
    /// [`InvalidConfig`] names every error.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidConfig> {
        parse(text, "clients", clients)
    }
}

impl AdminConfig {
    /// Parses the text of `configuration` in envoy.yaml.
    ///
    /// # Errors
    /// [`InvalidConfig`] names every error.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidConfig> {
        parse(text, "admin", admin)
    }
}

/// Parses the configuration of one role. (Each module holds the parser of its own role alone.)
fn parse<T>(text: &[u8], role: &str, settings: fn(&mut Fields<'_, '_>) -> T) -> Result<T, InvalidConfig> {
    let json = Json::parse(text)
        .map_err(|error| InvalidConfig(FieldError::new("", format!("the configuration is not JSON: {error}")).into()))?;
    let mut errors = FieldErrors::default();
    let mut fields = Fields::of(&json, "", &mut errors);
    match fields.take("role") {
        Some(Json::String(found)) if found == role => {}
        Some(other) => fields.error("role", format!("must be \"{role}\", because this is {role}.wasm; got {other}")),
        None => fields.error("role", format!("is missing; it must be \"{role}\"")),
    }
    if fields.errors().is_empty() {
        let config = settings(&mut fields);
        fields.reject_the_rest();
        if errors.is_empty() {
            return Ok(config);
        }
    }
    Err(InvalidConfig(errors))
}

fn router(fields: &mut Fields<'_, '_>) -> RouterConfig {
    let id_headers = match fields.take("id_headers") {
        None => ["x-deployment-id", "deployment-id", "deployment_id"].map(str::to_owned).to_vec(),
        Some(Json::Array(names)) => {
            let parsed: Option<Vec<String>> = names.iter().map(header_name).collect();
            let parsed = parsed.unwrap_or_else(|| {
                fields.error("id_headers", "must hold HTTP header names in lower case, such as \"x-deployment-id\"");
                Vec::new()
            });
            if parsed.iter().enumerate().any(|(n, name)| parsed.iter().take(n).any(|earlier| earlier == name)) {
                fields.error("id_headers", "names a header twice");
            }
            parsed
        }
        Some(other) => {
            fields.error("id_headers", format!("must be a list of header names, got {other}"));
            Vec::new()
        }
    };
    let fallback_port = fields.integer("fallback_port", 1, 65535).and_then(|port| u16::try_from(port).ok());
    let addressing = Addressing { prefixes: addressing::path_prefixes(fields), host_suffix: addressing::host_suffix(fields) };
    if id_headers.is_empty() && addressing.prefixes.is_empty() && addressing.host_suffix.is_none() && fields.errors().is_empty()
    {
        fields.error(
            "id_headers",
            "is empty, and so is path_prefixes, and there is no host_suffix: no request could name an agent",
        );
    }
    let external_origins = external_origins(fields);
    let deployments_claim = deployments_claim(fields);
    let fleet = hops(fields);
    RouterConfig { id_headers, addressing, fallback_port, external_origins, deployments_claim, fleet }
}

/// The fleet as `{"port": 50050, "local": "127.0.0.1"}`.
fn hops(fields: &mut Fields<'_, '_>) -> Option<Hops> {
    let json = fields.take("fleet")?;
    let mut inner = fields.nested(json, "fleet");
    let port = inner.integer("port", 1, 65535).and_then(|port| u16::try_from(port).ok());
    let local = match inner.take("local") {
        Some(Json::String(text)) => text.parse().ok(),
        _ => None,
    };
    inner.reject_the_rest();
    if port.is_none() || local.is_none() {
        fields
            .error("fleet", "must have \"port\", where all peers listen, and \"local\", this task's own address for that port");
    }
    Some(Hops { port: port?, local: local? })
}

fn deployments_claim(fields: &mut Fields<'_, '_>) -> Option<DeploymentsClaim> {
    let claim = match fields.take("deployments_claim")? {
        Json::String(name) => DeploymentsClaim::named(name),
        _ => None,
    };
    if claim.is_none() {
        fields.error("deployments_claim", "must be the name of a claim, such as \"deployments\"");
    }
    claim
}

fn external_origins(fields: &mut Fields<'_, '_>) -> ExternalOrigins {
    let parsed = match fields.take("external_origins") {
        None => return ExternalOrigins::default(),
        Some(Json::Array(list)) => list.iter().try_fold(ExternalOrigins::default(), |origins, json| match json {
            Json::String(text) => origins.with(text),
            _ => None,
        }),
        Some(_) => None,
    };
    parsed.unwrap_or_else(|| {
        fields.error(
            "external_origins",
            "must be a list of origins such as \"https://agents.example.com\" or \"https://*.example.com\"",
        );
        ExternalOrigins::default()
    })
}

/// A header name as HTTP/2 sends it (RFC 9110, 5.6.2; RFC 9113, 8.2.1): tokens in lower case, no pseudo-header.
fn header_name(json: &Json) -> Option<String> {
    let Json::String(name) = json else { return None };
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.len() <= 256 && name.bytes().all(token)).then(|| name.clone())
}

fn clients(fields: &mut Fields<'_, '_>) -> ClientsConfig {
    let connections = fields.integer("connections", 1, 10_000).and_then(|most| u32::try_from(most).ok());
    if connections.is_none() && fields.errors().is_empty() {
        fields.error("connections", "is missing: the most connections of one client address");
    }
    let requests = fields.integer("requests_per_agent", 1, 1_024).and_then(|most| u32::try_from(most).ok());
    ClientsConfig { connections: connections.unwrap_or(1), requests_per_agent: requests.unwrap_or(256) }
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
        inner.reject_the_rest();
        if limits.min_port > limits.max_port {
            let detail = format!("is empty: min {} is above max {}", limits.min_port, limits.max_port);
            fields.error("port_range", detail);
        }
    }
    match fields.take("denied_ports") {
        None => {}
        Some(Json::Array(ports)) => {
            let parsed: Option<Vec<u16>> =
                ports.iter().map(|port| port.as_integer().and_then(|port| u16::try_from(port).ok())).collect();
            match parsed {
                Some(parsed) => limits.denied_ports = parsed,
                None => fields.error("denied_ports", "must hold ports, integers from 0 to 65535"),
            }
        }
        Some(other) => fields.error("denied_ports", format!("must be a list of ports, got {other}")),
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
    let fleet = fields.take("fleet").map(|json| fleet(json, limits.max_id_bytes, fields));
    let bootstrap_routes = fields.take("bootstrap_routes").map(|json| bootstrap(json, &limits, fields));
    AdminConfig { limits, max_body_bytes, fleet, bootstrap_routes, agents_url: agents_url(fields) }
}

fn fleet<'j>(json: &'j Json, max_id_bytes: usize, fields: &mut Fields<'j, '_>) -> FleetConfig {
    let mut inner = fields.nested(json, "fleet");
    let peer_cidrs = match inner.take("peer_cidrs") {
        Some(Json::Array(list)) if !list.is_empty() => {
            let parse = |json: &Json| if let Json::String(text) = json { text.parse().ok() } else { None };
            list.iter().map(parse).collect()
        }
        _ => None,
    };
    if peer_cidrs.is_none() {
        inner.error("peer_cidrs", "must be a list of the peers' networks, such as \"10.0.1.0/24\", at least one");
    }
    let most = |value: Option<u64>, default| value.and_then(|most| usize::try_from(most).ok()).unwrap_or(default);
    let max_peers = most(inner.integer("max_peers", 1, fleet_limits::MOST_PEERS as u64), fleet_limits::MOST_PEERS);
    let max_routes = most(inner.integer("max_routes", 1, fleet_limits::MOST_ROUTES as u64), fleet_limits::MOST_ROUTES);
    let limits = FleetLimits { peer_cidrs: peer_cidrs.unwrap_or_default(), max_peers, max_routes, max_id_bytes };
    let max_body_bytes = most(inner.integer("max_body_bytes", 1, LARGEST_BODY), limits.body_bytes());
    inner.reject_the_rest();
    FleetConfig { limits, max_body_bytes }
}

fn agents_url(fields: &mut Fields<'_, '_>) -> String {
    match fields.take("agents_url") {
        None => AGENTS_URL.to_owned(),
        Some(Json::String(url)) if url.is_empty() || is_agents_url(url) => url.clone(),
        Some(other) => {
            let expected = "an origin such as https://agents.example.com or //{host}:50051, or empty for no links";
            fields.error("agents_url", format!("must be {expected}, got {other}"));
            String::new()
        }
    }
}

/// An optional scheme, and an authority; no character that would end an attribute of the page.
fn is_agents_url(url: &str) -> bool {
    let rest = url.strip_prefix("https:").or_else(|| url.strip_prefix("http:")).unwrap_or(url);
    let Some(authority) = rest.strip_prefix("//") else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !authority.is_empty() && authority.replacen("{host}", "h", 1).bytes().all(plain)
}

fn bootstrap(json: &Json, limits: &Limits, fields: &mut Fields<'_, '_>) -> Vec<(OwnedDeploymentId, Route)> {
    let routes = parse_routes(json, "/bootstrap_routes", limits, fields.errors());
    let mut owners = std::collections::BTreeMap::new();
    for (id, route) in &routes {
        for port in route.ports() {
            let owner = *owners.entry(port).or_insert(*id);
            if owner != *id {
                let detail = format!("port {port} is also given to {owner}; one port serves one id");
                fields.errors().add(|| FieldError::new(pointer("/bootstrap_routes", id.as_str()), detail));
            }
        }
    }
    if routes.len() > limits.max_routes {
        fields.error("bootstrap_routes", format!("holds {} routes; at most {} are allowed", routes.len(), limits.max_routes));
    }
    routes.into_iter().map(|(id, route)| (id.into(), route)).collect()
}

#[cfg(test)]
mod tests;
