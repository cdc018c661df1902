//! Routes as JSON: `{"<id>": {"port": 50054, "state": "active", "endpoints": {"rest": 63001}}, "<id>": 50055}`.

use super::change::too_many_endpoints;
use super::limits::Limits;
use crate::deployment_id::DeploymentId;
use crate::endpoint::EndpointName;
use crate::fields::Fields;
use crate::json::{Json, pointer};
use crate::problem::{FieldError, FieldErrors};
use crate::route::{Route, RouteState};
use std::collections::{BTreeMap, BTreeSet};

/// Parses an object of routes standing at the pointer `at`; each error goes into `errors`.
pub fn parse_routes<'j>(json: &'j Json, at: &str, limits: &Limits, errors: &mut FieldErrors) -> Vec<(DeploymentId<'j>, Route)> {
    routes_by_id(json, at, limits, errors)
        .into_iter()
        .filter_map(|(id, value)| Some((id, parse_route(value, &pointer(at, id.as_str()), limits, errors)?)))
        .collect()
}

/// The members of an object of routes.
pub fn routes_by_id<'j>(
    json: &'j Json,
    at: &str,
    limits: &Limits,
    errors: &mut FieldErrors,
) -> Vec<(DeploymentId<'j>, &'j Json)> {
    members(json, at, "routes", |key| limits.parse_id(key), errors)
}

/// The members of an object of `what`, whose keys `parse` reads.
pub fn members<'j, E: std::fmt::Display>(
    json: &'j Json,
    at: &str,
    what: &str,
    parse: impl Fn(&'j [u8]) -> Result<DeploymentId<'j>, E>,
    errors: &mut FieldErrors,
) -> Vec<(DeploymentId<'j>, &'j Json)> {
    let Json::Object(members) = json else {
        errors.add(|| FieldError::new(at, format!("must be an object of {what}, got {json}")));
        return Vec::new();
    };
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(members.len());
    for (key, value) in members {
        match parse(key.as_bytes()) {
            Ok(id) if seen.insert(id) => found.push((id, value)),
            Ok(_) => errors.add(|| FieldError::new(pointer(at, key), "is given twice")),
            Err(error) => errors.add(|| FieldError::new(pointer(at, key), error.to_string())),
        }
    }
    found
}

/// Parses one route: an object with `port`, `state` and `endpoints`, or the bare port.
pub fn parse_route(json: &Json, at: &str, limits: &Limits, errors: &mut FieldErrors) -> Option<Route> {
    if let Json::Integer(_) | Json::OtherNumber = json {
        return limits.parse_port(json, at, errors).map(Route::active);
    }
    let Json::Object(_) = json else {
        errors.add(|| FieldError::new(at, format!("must be a route such as {{\"port\": 50054}} or a port, got {json}")));
        return None;
    };
    let mut fields = Fields::of(json, at, errors);
    let (port, state, endpoints) = (fields.take("port"), fields.take("state"), fields.take("endpoints"));
    if port.is_none() {
        fields.error("port", "is missing");
    }
    fields.reject_the_rest();
    let port = port.and_then(|port| limits.parse_port(port, &pointer(at, "port"), errors));
    let state = state.map_or(Some(RouteState::default()), |state| parse_state(state, &pointer(at, "state"), errors));
    let endpoints = endpoints.map_or(Some(BTreeMap::new()), |json| {
        let at = pointer(at, "endpoints");
        let parsed = parse_endpoints(json, &at, errors, |port, at, errors| limits.parse_port(port, at, errors))?;
        if parsed.len() > Route::MAX_ENDPOINTS {
            errors.add(|| FieldError::new(at, too_many_endpoints(parsed.len())));
            return None;
        }
        Some(parsed)
    });
    Some(Route { port: port?, state: state?, endpoints: endpoints? })
}

/// Parses a state by its name.
pub fn parse_state(json: &Json, at: &str, errors: &mut FieldErrors) -> Option<RouteState> {
    let state = if let Json::String(name) = json { RouteState::from_name(name) } else { None };
    if state.is_none() {
        errors.add(|| FieldError::new(at, format!("must be \"active\" or \"draining\", got {json}")));
    }
    state
}

/// Parses an object that is keyed by endpoint name, its values by `parse_value`.
pub fn parse_endpoints<T>(
    json: &Json,
    at: &str,
    errors: &mut FieldErrors,
    parse_value: impl Fn(&Json, &str, &mut FieldErrors) -> Option<T>,
) -> Option<BTreeMap<EndpointName, T>> {
    let Json::Object(members) = json else {
        errors.add(|| FieldError::new(at, format!("must be an object of ports by endpoint name, got {json}")));
        return None;
    };
    let before = errors.total();
    let mut endpoints = BTreeMap::new();
    for (key, value) in members {
        let at = pointer(at, key);
        match EndpointName::parse(key.as_bytes()) {
            Err(error) => errors.add(|| FieldError::new(at, error.to_string())),
            Ok(EndpointName::A2A) => errors.add(|| FieldError::new(at, "a2a is the route's \"port\"; leave it out here")),
            Ok(name) => {
                if let Some(value) = parse_value(value, &at, errors)
                    && endpoints.insert(name, value).is_some()
                {
                    errors.add(|| FieldError::new(at, "is given twice"));
                }
            }
        }
    }
    (errors.total() == before).then_some(endpoints)
}
