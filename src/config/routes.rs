//! Routes as JSON: `{"<id>": {"port": 50054, "state": "active"}, "<id>": 50055}`.

use super::Limits;
use super::fields::Fields;
use crate::deployment_id::{DeploymentId, InvalidDeploymentId};
use crate::json::{Json, pointer};
use crate::problem::Fault;
use crate::route::{Route, RouteState};
use std::collections::BTreeSet;

/// Parses an object of routes standing at the pointer `at`; each fault goes into `faults`.
pub fn parse_routes<'j>(json: &'j Json, at: &str, limits: &Limits, faults: &mut Vec<Fault>) -> Vec<(DeploymentId<'j>, Route)> {
    members(json, at, limits, faults)
        .into_iter()
        .filter_map(|(id, value)| Some((id, parse_route(value, &pointer(at, id.as_str()), limits, faults)?)))
        .collect()
}

/// The members of an object that is keyed by deployment id.
pub fn members<'j>(json: &'j Json, at: &str, limits: &Limits, faults: &mut Vec<Fault>) -> Vec<(DeploymentId<'j>, &'j Json)> {
    let Json::Object(members) = json else {
        faults.push(Fault::new(at, format!("must be an object of routes, got {json}")));
        return Vec::new();
    };
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(members.len());
    for (key, value) in members {
        match limits.parse_id(key.as_bytes()) {
            Ok(id) if seen.insert(id) => found.push((id, value)),
            Ok(_) => faults.push(Fault::new(pointer(at, key), "is given twice")),
            Err(error) => faults.push(Fault::new(pointer(at, key), error.to_string())),
        }
    }
    found
}

/// Parses one route: an object with `port` and `state`, or the bare port.
pub fn parse_route(json: &Json, at: &str, limits: &Limits, faults: &mut Vec<Fault>) -> Option<Route> {
    if let Json::Integer(_) | Json::OtherNumber = json {
        let port = limits.parse_port(json, at, faults)?;
        return Some(Route { port, state: RouteState::default() });
    }
    let Json::Object(_) = json else {
        faults.push(Fault::new(at, format!("must be a route such as {{\"port\": 50054}} or a port, got {json}")));
        return None;
    };
    let mut fields = Fields::of(json, at, faults);
    let port = fields.take("port");
    let state = fields.take("state");
    if port.is_none() {
        fields.fault("port", "is missing");
    }
    fields.refuse_the_rest();
    let port = port.and_then(|port| limits.parse_port(port, &pointer(at, "port"), faults));
    let state = state.map_or(Some(RouteState::default()), |state| parse_state(state, &pointer(at, "state"), faults));
    Some(Route { port: port?, state: state? })
}

/// Parses a state by its name.
pub fn parse_state(json: &Json, at: &str, faults: &mut Vec<Fault>) -> Option<RouteState> {
    let state = if let Json::String(name) = json { RouteState::from_name(name) } else { None };
    if state.is_none() {
        faults.push(Fault::new(at, format!("must be \"active\" or \"draining\", got {json}")));
    }
    state
}

impl Limits {
    /// Parses an id that is to become a key of the map.
    ///
    /// # Errors
    /// [`InvalidDeploymentId`], also for an id that is longer than this configuration allows.
    pub fn parse_id<'b>(&self, bytes: &'b [u8]) -> Result<DeploymentId<'b>, IdFault> {
        let id = DeploymentId::parse(bytes).map_err(IdFault::Invalid)?;
        if bytes.len() > self.max_id_bytes {
            return Err(IdFault::LongerThanConfigured { len: bytes.len(), most: self.max_id_bytes });
        }
        Ok(id)
    }

    /// Parses a port that is to be routed to.
    pub fn parse_port(&self, json: &Json, at: &str, faults: &mut Vec<Fault>) -> Option<u16> {
        let port = json.as_integer().and_then(|port| u16::try_from(port).ok());
        let allowed = port.filter(|port| (self.min_port..=self.max_port).contains(port));
        match allowed {
            None => {
                let detail = format!("must be a port, an integer from {} to {}, got {json}", self.min_port, self.max_port);
                faults.push(Fault::new(at, detail));
                None
            }
            Some(port) if self.denied_ports.contains(&port) => {
                let detail = format!("port {port} is on the denied list; it belongs to Envoy or PAR, not to an agent");
                faults.push(Fault::new(at, detail));
                None
            }
            Some(port) => Some(port),
        }
    }
}

/// Why some bytes cannot be a key of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdFault {
    /// They are no id at all.
    Invalid(InvalidDeploymentId),
    /// They are an id, but a longer one than `max_id_bytes` allows.
    LongerThanConfigured {
        /// Bytes there are.
        len: usize,
        /// Bytes allowed.
        most: usize,
    },
}

impl std::fmt::Display for IdFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::LongerThanConfigured { len, most } => {
                write!(f, "a deployment id has {len} bytes; the configuration allows {most}")
            }
        }
    }
}

impl std::error::Error for IdFault {}
