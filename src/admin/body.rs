//! Request bodies: JSON to a [`Change`].

use crate::change::{Change, Edit};
use crate::config::Limits;
use crate::config::fields::Fields;
use crate::config::routes::{members, parse_route, parse_routes, parse_state};
use crate::deployment_id::DeploymentId;
use crate::json::{Json, pointer};
use crate::problem::Fault;
use crate::route::RouteState;

/// The body of `PUT /v1/routes`.
///
/// # Errors
/// Every fault.
pub fn replacement<'j>(json: &'j Json, limits: &Limits) -> Result<Change<'j>, Vec<Fault>> {
    let mut faults = Vec::new();
    let edits = match routes_member(json, true, &mut faults) {
        Some(routes) => parse_routes(routes, "/routes", limits, &mut faults),
        None => Vec::new(),
    };
    let edits = edits.into_iter().map(|(id, route)| (id, Edit::Set(route))).collect();
    if faults.is_empty() { Ok(Change { replace: true, edits }) } else { Err(faults) }
}

/// The body of `PATCH /v1/routes`, a JSON merge patch (RFC 7396) on `{"routes": {...}}`.
///
/// # Errors
/// Every fault.
pub fn patch<'j>(json: &'j Json, limits: &Limits) -> Result<Change<'j>, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut edits = Vec::new();
    if let Some(routes) = routes_member(json, false, &mut faults) {
        for (id, value) in members(routes, "/routes", limits, &mut faults) {
            if let Some(edit) = parse_edit(value, &pointer("/routes", id.as_str()), limits, &mut faults) {
                edits.push((id, edit));
            }
        }
    }
    if faults.is_empty() { Ok(Change { replace: false, edits }) } else { Err(faults) }
}

/// The body of `PUT /v1/routes/{id}`.
///
/// # Errors
/// Every fault.
pub fn single<'j>(id: DeploymentId<'j>, json: &Json, limits: &Limits) -> Result<Change<'j>, Vec<Fault>> {
    let mut faults = Vec::new();
    let route = parse_route(json, "", limits, &mut faults);
    match route {
        Some(route) if faults.is_empty() => Ok(Change { replace: false, edits: vec![(id, Edit::Set(route))] }),
        _ => Err(faults),
    }
}

fn routes_member<'j>(json: &'j Json, required: bool, faults: &mut Vec<Fault>) -> Option<&'j Json> {
    let before = faults.len();
    let mut fields = Fields::of(json, "", faults);
    let routes = fields.take("routes");
    fields.refuse_the_rest();
    if routes.is_none() && required && faults.len() == before {
        faults.push(Fault::new("", "must have a member \"routes\""));
    }
    routes
}

/// One member of a merge patch: null removes, an object changes what it names, anything else replaces.
fn parse_edit(json: &Json, at: &str, limits: &Limits, faults: &mut Vec<Fault>) -> Option<Edit> {
    match json {
        Json::Null => return Some(Edit::Remove),
        Json::Object(_) => {}
        _ => return parse_route(json, at, limits, faults).map(Edit::Set),
    }
    let before = faults.len();
    let mut fields = Fields::of(json, at, faults);
    let port = fields.take("port");
    let state = fields.take("state");
    if port == Some(&Json::Null) {
        fields.fault("port", "cannot be removed from a route; to remove the route, set the whole of it to null");
    }
    fields.refuse_the_rest();
    let port = match port {
        None | Some(Json::Null) => None,
        Some(port) => limits.parse_port(port, &pointer(at, "port"), faults),
    };
    let state = match state {
        None => None,
        // Removing the member leaves its default.
        Some(Json::Null) => Some(RouteState::default()),
        Some(state) => parse_state(state, &pointer(at, "state"), faults),
    };
    (faults.len() == before).then_some(Edit::Merge { port, state })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Route;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    type Parser = for<'j> fn(&'j Json, &Limits) -> Result<Change<'j>, Vec<Fault>>;

    const PUT: Parser = replacement;
    const PATCH: Parser = patch;

    fn put_one<'j>(json: &'j Json, limits: &Limits) -> Result<Change<'j>, Vec<Fault>> {
        single(DeploymentId::parse(b"x").expect("valid"), json, limits)
    }

    #[track_caller]
    fn edits(parser: Parser, text: &str, expected: &[(&str, Edit)]) {
        let json = Json::parse(text.as_bytes()).expect("JSON");
        let change = parser(&json, &Limits::default()).expect("valid");
        let found: Vec<_> = change.edits.iter().map(|(id, edit)| (id.as_str(), *edit)).collect();
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn faults(parser: Parser, text: &str, expected: &[&str]) {
        let json = Json::parse(text.as_bytes()).expect("JSON");
        let faults = parser(&json, &Limits::default()).expect_err("invalid");
        assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), expected, "{faults:?}");
    }

    const ACTIVE: Route = Route { port: 2000, state: RouteState::Active };
    const DRAINING: Route = Route { port: 2000, state: RouteState::Draining };

    #[test]
    fn reads_whole_routes() {
        edits(PUT, r#"{"routes":{}}"#, &[]);
        edits(PUT, r#"{"routes":{"a":2000}}"#, &[("a", Edit::Set(ACTIVE))]);
        edits(PUT, r#"{"routes":{"a":{"port":2000,"state":"draining"}}}"#, &[("a", Edit::Set(DRAINING))]);
        edits(put_one, "2000", &[("x", Edit::Set(ACTIVE))]);
        edits(put_one, r#"{"port":2000}"#, &[("x", Edit::Set(ACTIVE))]);
    }

    #[test]
    fn reads_merge_patches() {
        edits(PATCH, "{}", &[]);
        edits(PATCH, r#"{"routes":{"a":null,"b":2000}}"#, &[("a", Edit::Remove), ("b", Edit::Set(ACTIVE))]);
        let merge = |port, state| Edit::Merge { port, state };
        edits(PATCH, r#"{"routes":{"a":{"port":2000}}}"#, &[("a", merge(Some(2000), None))]);
        edits(PATCH, r#"{"routes":{"a":{"state":"draining"}}}"#, &[("a", merge(None, Some(RouteState::Draining)))]);
        edits(PATCH, r#"{"routes":{"a":{"state":null}}}"#, &[("a", merge(None, Some(RouteState::Active)))]);
        edits(PATCH, r#"{"routes":{"a":{}}}"#, &[("a", merge(None, None))]);
    }

    #[test]
    fn names_every_fault() {
        faults(PUT, "[]", &[""]);
        faults(PUT, "{}", &[""]);
        faults(PUT, r#"{"routes":null}"#, &["/routes"]);
        faults(PUT, r#"{"routes":{},"generation":1}"#, &["/generation"]);
        faults(PUT, r#"{"routes":{},"routes":{}}"#, &["/routes"]);
        let many = r#"{"routes":{"":1,"a b":2000,"a/b":2000,"c":80,"d":"2000","e":{"port":50051},"f":{"port":2000,"state":"up","x":1},"g":{}}}"#;
        let places = [
            "/routes/",
            "/routes/a b",
            "/routes/a~1b",
            "/routes/c",
            "/routes/d",
            "/routes/e/port",
            "/routes/f/x",
            "/routes/f/state",
            "/routes/g/port",
        ];
        faults(PUT, many, &places);
        faults(PUT, r#"{"routes":{"a":2000,"a":2001}}"#, &["/routes/a"]);
        faults(PUT, r#"{"routes":{"a":{"port":2000,"port":2001}}}"#, &["/routes/a/port"]);
        for port in ["0", "1023", "65536", "-1", "1.5", "1e300", "true", "null"] {
            faults(PUT, &format!(r#"{{"routes":{{"a":{{"port":{port}}}}}}}"#), &["/routes/a/port"]);
        }
        faults(PATCH, r#"{"routes":null}"#, &["/routes"]);
        faults(PATCH, r#"{"routes":{"a":{"port":null},"b":[],"c":{"x":1}}}"#, &["/routes/a/port", "/routes/b", "/routes/c/x"]);
        faults(put_one, "null", &[""]);
        faults(put_one, "80", &[""]);
        faults(put_one, r#"{"port":80,"state":1}"#, &["/port", "/state"]);
    }
}
