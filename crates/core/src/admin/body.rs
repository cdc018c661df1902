//! Request bodies: JSON to a [`Change`].

use crate::deployment_id::DeploymentId;
use crate::fields::Fields;
use crate::json::{Json, pointer};
use crate::problem::{FieldError, FieldErrors};
use crate::route::RouteState;
use crate::routes::change::{Change, Edit, Merge, MergeEndpoints};
use crate::routes::form::{parse_endpoints, parse_route, parse_routes, parse_state, routes_by_id};
use crate::routes::limits::Limits;

/// The body of `PUT /v1/routes`.
///
/// # Errors
/// Every error.
pub fn replacement<'j>(json: &'j Json, limits: &Limits) -> Result<Change<'j>, FieldErrors> {
    let mut errors = FieldErrors::default();
    let edits = match routes_member(json, true, &mut errors) {
        Some(routes) => parse_routes(routes, "/routes", limits, &mut errors),
        None => Vec::new(),
    };
    let edits = edits.into_iter().map(|(id, route)| (id, Edit::Set(route))).collect();
    if errors.is_empty() { Ok(Change { replace: true, edits }) } else { Err(errors) }
}

/// The body of `PATCH /v1/routes`, a JSON merge patch (RFC 7396) on `{"routes": {...}}`.
///
/// # Errors
/// Every error.
pub fn patch<'j>(json: &'j Json, limits: &Limits) -> Result<Change<'j>, FieldErrors> {
    let mut errors = FieldErrors::default();
    let mut edits = Vec::new();
    if let Some(routes) = routes_member(json, false, &mut errors) {
        for (id, value) in routes_by_id(routes, "/routes", limits, &mut errors) {
            if let Some(edit) = parse_edit(value, &pointer("/routes", id.as_str()), limits, &mut errors) {
                edits.push((id, edit));
            }
        }
    }
    if errors.is_empty() { Ok(Change { replace: false, edits }) } else { Err(errors) }
}

/// The body of `PUT /v1/routes/{id}`.
///
/// # Errors
/// Every error.
pub fn single<'j>(id: DeploymentId<'j>, json: &Json, limits: &Limits) -> Result<Change<'j>, FieldErrors> {
    let mut errors = FieldErrors::default();
    let route = parse_route(json, "", limits, &mut errors);
    match route {
        Some(route) if errors.is_empty() => Ok(Change { replace: false, edits: vec![(id, Edit::Set(route))] }),
        _ => Err(errors),
    }
}

fn routes_member<'j>(json: &'j Json, required: bool, errors: &mut FieldErrors) -> Option<&'j Json> {
    let before = errors.total();
    let mut fields = Fields::of(json, "", errors);
    let routes = fields.take("routes");
    fields.reject_the_rest();
    if routes.is_none() && required && errors.total() == before {
        errors.add(|| FieldError::new("", "must have a member \"routes\""));
    }
    routes
}

/// One member of a merge patch: null removes, an object changes what it names, anything else replaces.
fn parse_edit(json: &Json, at: &str, limits: &Limits, errors: &mut FieldErrors) -> Option<Edit> {
    match json {
        Json::Null => return Some(Edit::Remove),
        Json::Object(_) => {}
        _ => return parse_route(json, at, limits, errors).map(Edit::Set),
    }
    let before = errors.total();
    let mut fields = Fields::of(json, at, errors);
    let (port, state, endpoints) = (fields.take("port"), fields.take("state"), fields.take("endpoints"));
    if port == Some(&Json::Null) {
        fields.error("port", "cannot be removed from a route; to remove the route, set the whole of it to null");
    }
    fields.reject_the_rest();
    let port = match port {
        None | Some(Json::Null) => None,
        Some(port) => limits.parse_port(port, &pointer(at, "port"), errors),
    };
    let state = match state {
        None => None,
        // Removing the member leaves its default.
        Some(Json::Null) => Some(RouteState::default()),
        Some(state) => parse_state(state, &pointer(at, "state"), errors),
    };
    let endpoints = match endpoints {
        None => MergeEndpoints::default(),
        Some(Json::Null) => MergeEndpoints::Clear,
        Some(endpoints) => {
            let port = |json: &Json, at: &str, errors: &mut FieldErrors| match json {
                Json::Null => Some(None),
                json => limits.parse_port(json, at, errors).map(Some),
            };
            MergeEndpoints::Each(parse_endpoints(endpoints, &pointer(at, "endpoints"), errors, port).unwrap_or_default())
        }
    };
    (errors.total() == before).then_some(Edit::Merge(Merge { port, state, endpoints }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointName;
    use crate::route::Route;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    type Parser = for<'j> fn(&'j Json, &Limits) -> Result<Change<'j>, FieldErrors>;

    const PUT: Parser = replacement;
    const PATCH: Parser = patch;

    fn put_one<'j>(json: &'j Json, limits: &Limits) -> Result<Change<'j>, FieldErrors> {
        single(DeploymentId::parse(b"x").expect("valid"), json, limits)
    }

    #[track_caller]
    fn edits(parser: Parser, text: &str, expected: &[(&str, Edit)]) {
        let json = Json::parse(text.as_bytes()).expect("JSON");
        let change = parser(&json, &Limits::default()).expect("valid");
        let found: Vec<_> = change.edits.iter().map(|(id, edit)| (id.as_str(), edit.clone())).collect();
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn errors(parser: Parser, text: &str, expected: &[&str]) {
        let json = Json::parse(text.as_bytes()).expect("JSON");
        let errors = parser(&json, &Limits::default()).expect_err("invalid");
        assert_eq!(errors.listed().iter().map(|error| error.pointer.as_str()).collect::<Vec<_>>(), expected, "{errors:?}");
    }

    const ACTIVE: Route = Route::active(2000);
    const DRAINING: Route = Route::draining(2000);

    fn name(text: &str) -> EndpointName {
        EndpointName::parse(text.as_bytes()).expect("valid")
    }

    #[test]
    fn reads_whole_routes() {
        edits(PUT, r#"{"routes":{}}"#, &[]);
        edits(PUT, r#"{"routes":{"a":2000}}"#, &[("a", Edit::Set(ACTIVE))]);
        edits(PUT, r#"{"routes":{"a":{"port":2000,"state":"draining"}}}"#, &[("a", Edit::Set(DRAINING))]);
        edits(put_one, "2000", &[("x", Edit::Set(ACTIVE))]);
        edits(put_one, r#"{"port":2000}"#, &[("x", Edit::Set(ACTIVE))]);
        let endpoints = [(name("rest"), 2001), (name("ui"), 2002)].into();
        let full = Edit::Set(Route { endpoints, ..ACTIVE });
        edits(put_one, r#"{"port":2000,"endpoints":{"ui":2002,"rest":2001}}"#, &[("x", full)]);
        edits(put_one, r#"{"port":2000,"endpoints":{}}"#, &[("x", Edit::Set(ACTIVE))]);
    }

    #[test]
    fn reads_merge_patches() {
        edits(PATCH, "{}", &[]);
        edits(PATCH, r#"{"routes":{"a":null,"b":2000}}"#, &[("a", Edit::Remove), ("b", Edit::Set(ACTIVE))]);
        let merge = |port, state| Edit::Merge(Merge { port, state, ..Merge::default() });
        edits(PATCH, r#"{"routes":{"a":{"port":2000}}}"#, &[("a", merge(Some(2000), None))]);
        edits(PATCH, r#"{"routes":{"a":{"state":"draining"}}}"#, &[("a", merge(None, Some(RouteState::Draining)))]);
        edits(PATCH, r#"{"routes":{"a":{"state":null}}}"#, &[("a", merge(None, Some(RouteState::Active)))]);
        edits(PATCH, r#"{"routes":{"a":{}}}"#, &[("a", merge(None, None))]);
        let endpoints = |endpoints| Edit::Merge(Merge { endpoints, ..Merge::default() });
        edits(PATCH, r#"{"routes":{"a":{"endpoints":null}}}"#, &[("a", endpoints(MergeEndpoints::Clear))]);
        let each = MergeEndpoints::Each([(name("rest"), Some(2001)), (name("ui"), None)].into());
        edits(PATCH, r#"{"routes":{"a":{"endpoints":{"ui":null,"rest":2001}}}}"#, &[("a", endpoints(each))]);
    }

    #[test]
    fn names_every_error_of_endpoints() {
        let nine = (0..9).map(|n| format!(r#""e{n}":{}"#, 2001 + n)).collect::<Vec<_>>().join(",");
        let cases = [
            ("7", vec!["/routes/a/endpoints"]),
            (r#"{"a2a":2001}"#, vec!["/routes/a/endpoints/a2a"]),
            (
                r#"{"":2001,"-":2001,"A":2001,"abcdefghijklmnopq":2001}"#,
                vec![
                    "/routes/a/endpoints/",
                    "/routes/a/endpoints/-",
                    "/routes/a/endpoints/A",
                    "/routes/a/endpoints/abcdefghijklmnopq",
                ],
            ),
            (
                r#"{"x":80,"y":"2001","z":50051}"#,
                vec!["/routes/a/endpoints/x", "/routes/a/endpoints/y", "/routes/a/endpoints/z"],
            ),
            (r#"{"x":2001,"x":2002}"#, vec!["/routes/a/endpoints/x"]),
        ];
        for (endpoints, places) in &cases {
            for parser in [PUT, PATCH] {
                errors(parser, &format!(r#"{{"routes":{{"a":{{"port":2000,"endpoints":{endpoints}}}}}}}"#), places);
            }
        }
        errors(PUT, &format!(r#"{{"routes":{{"a":{{"port":2000,"endpoints":{{{nine}}}}}}}}}"#), &["/routes/a/endpoints"]);
        errors(PUT, r#"{"routes":{"a":{"port":2000,"endpoints":null}}}"#, &["/routes/a/endpoints"]);
        errors(PUT, r#"{"routes":{"a":{"port":2000,"endpoints":{"x":null}}}}"#, &["/routes/a/endpoints/x"]);
    }

    #[test]
    fn names_every_error() {
        errors(PUT, "[]", &[""]);
        errors(PUT, "{}", &[""]);
        errors(PUT, r#"{"routes":null}"#, &["/routes"]);
        errors(PUT, r#"{"routes":{},"generation":1}"#, &["/generation"]);
        errors(PUT, r#"{"routes":{},"routes":{}}"#, &["/routes"]);
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
        errors(PUT, many, &places);
        errors(PUT, r#"{"routes":{"a":2000,"a":2001}}"#, &["/routes/a"]);
        errors(PUT, r#"{"routes":{"a":{"port":2000,"port":2001}}}"#, &["/routes/a/port"]);
        for port in ["0", "1023", "65536", "-1", "1.5", "1e300", "true", "null"] {
            errors(PUT, &format!(r#"{{"routes":{{"a":{{"port":{port}}}}}}}"#), &["/routes/a/port"]);
        }
        errors(PATCH, r#"{"routes":null}"#, &["/routes"]);
        errors(PATCH, r#"{"routes":{"a":{"port":null},"b":[],"c":{"x":1}}}"#, &["/routes/a/port", "/routes/b", "/routes/c/x"]);
        errors(put_one, "null", &[""]);
        errors(put_one, "80", &[""]);
        errors(put_one, r#"{"port":80,"state":1}"#, &["/port", "/state"]);
    }
}
