//! A call: what a request's head asks the route API for, before any body has arrived.

use super::code::Code;
use super::etag::Preconditions;
use crate::config::AdminConfig;
use crate::deployment_id::OwnedDeploymentId;
use crate::problem::Problem;

/// The head of an HTTP request. A header that was sent several times is joined by commas.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head<'a> {
    /// `:method`
    pub method: &'a [u8],
    /// `:path`, with the query.
    pub target: &'a [u8],
    /// `:authority`, or `host`
    pub host: Option<&'a [u8]>,
    /// `origin`
    pub origin: Option<&'a [u8]>,
    /// `authorization`
    pub authorization: Option<&'a [u8]>,
    /// `content-type`
    pub content_type: Option<&'a [u8]>,
    /// `content-length`
    pub content_length: Option<&'a [u8]>,
    /// `if-match`
    pub if_match: Option<&'a [u8]>,
    /// `if-none-match`
    pub if_none_match: Option<&'a [u8]>,
}

/// A call whose head is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A read.
    Read(Read),
    /// A removal, which has no body.
    Delete(OwnedDeploymentId, Terms),
    /// A write, whose body states what to do.
    Write(Write),
}

/// A read, and at which version of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What is read.
    pub resource: Resource,
    /// Which requests get a full response.
    pub preconditions: Preconditions,
}

/// What can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `GET /v1/routes`
    Routes,
    /// `GET /v1/routes/{id}`
    Route(OwnedDeploymentId),
    /// `GET /v1/status`
    Status,
    /// `GET /v1/fleet`
    Fleet,
    /// `GET /v1/fleet/peers`
    FleetPeers,
}

impl Resource {
    /// Whether the fleet map is read, and not the route map.
    #[must_use]
    pub const fn is_of_fleet(&self) -> bool {
        matches!(self, Self::Fleet | Self::FleetPeers)
    }
}

/// A write that has a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What is written.
    pub target: Target,
    /// On which terms.
    pub terms: Terms,
}

/// What a body is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `PUT /v1/routes`
    Replace,
    /// `PATCH /v1/routes`
    Patch,
    /// `PUT /v1/routes/{id}`
    Route(OwnedDeploymentId),
    /// `PUT /v1/fleet`
    ReplaceFleet,
    /// `PATCH /v1/fleet`
    PatchFleet,
}

impl Write {
    /// Longest body, in bytes.
    #[must_use]
    pub fn most_bytes(&self, config: &AdminConfig) -> usize {
        self.target.most_bytes(config)
    }
}

impl Target {
    fn most_bytes(&self, config: &AdminConfig) -> usize {
        match self {
            Self::Replace | Self::Patch | Self::Route(_) => config.max_body_bytes,
            // Without a fleet there is no such call.
            Self::ReplaceFleet | Self::PatchFleet => config.fleet.as_ref().map_or(0, |fleet| fleet.max_body_bytes),
        }
    }
}

/// The terms of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// At which version of the map it is done.
    pub preconditions: Preconditions,
    /// Whether everything is done but the change itself.
    pub dry_run: bool,
}

impl Call {
    /// Checks all of the head but who calls.
    ///
    /// # Errors
    /// 400, 404, 405, 413 or 415.
    pub fn parse(head: &Head<'_>, config: &AdminConfig) -> Result<Self, Problem> {
        let (path, query) = match head.target.iter().position(|byte| *byte == b'?') {
            Some(at) => (head.target.get(..at).unwrap_or_default(), head.target.get(at + 1..).unwrap_or_default()),
            None => (head.target, &[][..]),
        };
        match operation(head.method, path, config)? {
            Operation::Read(resource) => {
                dry_run(query, false)?;
                Ok(Self::Read(Read { resource, preconditions: preconditions(head)? }))
            }
            Operation::Delete(id) => {
                Ok(Self::Delete(id, Terms { dry_run: dry_run(query, true)?, preconditions: preconditions(head)? }))
            }
            Operation::Write(target) => {
                let terms = Terms { dry_run: dry_run(query, true)?, preconditions: preconditions(head)? };
                check_content_type(head.content_type, &target)?;
                let announced = head.content_length.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
                let most = target.most_bytes(config);
                if announced.is_some_and(|bytes| bytes > most as u64) {
                    return Err(payload_too_large(most));
                }
                Ok(Self::Write(Write { target, terms }))
            }
        }
    }
}

fn preconditions(head: &Head<'_>) -> Result<Preconditions, Problem> {
    Preconditions::parse(head.if_match, head.if_none_match)
}

/// What a method does to a path.
enum Operation {
    Read(Resource),
    Delete(OwnedDeploymentId),
    Write(Target),
}

/// The error of a body of more than `most` bytes.
#[must_use]
pub fn payload_too_large(most: usize) -> Problem {
    let detail =
        format!("the request body is larger than {most} bytes; send less, or raise max_body_bytes of the admin filter");
    Code::PayloadTooLarge.problem(detail)
}

/// The error of every call of the fleet map if there is none.
pub(super) fn fleet_disabled() -> Problem {
    let detail = "the fleet is off; to switch it on, set PIXELL_FLEET_CIDRS, or fleet in the configuration of the admin filter";
    Code::FleetDisabled.problem(detail)
}

/// `HEAD` is a read as `GET` is (RFC 9110, 9.3.2); the host leaves out the body.
fn operation(method: &[u8], path: &[u8], config: &AdminConfig) -> Result<Operation, Problem> {
    let rest = path.strip_prefix(b"/v1/").ok_or_else(no_such_path)?;
    let allow = match rest {
        b"routes" => match method {
            b"GET" | b"HEAD" => return Ok(Operation::Read(Resource::Routes)),
            b"PUT" => return Ok(Operation::Write(Target::Replace)),
            b"PATCH" => return Ok(Operation::Write(Target::Patch)),
            _ => "GET, HEAD, PUT, PATCH",
        },
        b"fleet" => match method {
            b"GET" | b"HEAD" | b"PUT" | b"PATCH" if config.fleet.is_none() => return Err(fleet_disabled()),
            b"GET" | b"HEAD" => return Ok(Operation::Read(Resource::Fleet)),
            b"PUT" => return Ok(Operation::Write(Target::ReplaceFleet)),
            b"PATCH" => return Ok(Operation::Write(Target::PatchFleet)),
            _ => "GET, HEAD, PUT, PATCH",
        },
        b"fleet/peers" => match method {
            b"GET" | b"HEAD" if config.fleet.is_none() => return Err(fleet_disabled()),
            b"GET" | b"HEAD" => return Ok(Operation::Read(Resource::FleetPeers)),
            _ => "GET, HEAD",
        },
        b"status" => match method {
            b"GET" | b"HEAD" => return Ok(Operation::Read(Resource::Status)),
            _ => "GET, HEAD",
        },
        _ => {
            let segment = rest.strip_prefix(b"routes/").filter(|segment| !segment.is_empty() && !segment.contains(&b'/'));
            let segment = segment.ok_or_else(no_such_path)?;
            match method {
                b"GET" | b"HEAD" => return Ok(Operation::Read(Resource::Route(parse_segment(segment, config)?))),
                b"PUT" => return Ok(Operation::Write(Target::Route(parse_segment(segment, config)?))),
                b"DELETE" => return Ok(Operation::Delete(parse_segment(segment, config)?)),
                _ => "GET, HEAD, PUT, DELETE",
            }
        }
    };
    Err(Code::MethodNotAllowed.problem(format!("this path takes {allow}")).with_header("allow", allow))
}

fn no_such_path() -> Problem {
    let detail =
        "there is no such path; the route API has /v1/routes, /v1/routes/{id}, /v1/fleet, /v1/fleet/peers and /v1/status";
    Code::NotFound.problem(detail)
}

fn parse_segment(segment: &[u8], config: &AdminConfig) -> Result<OwnedDeploymentId, Problem> {
    let invalid = |detail: String| Code::InvalidDeploymentId.problem(detail);
    let bytes = percent_decode(segment)
        .ok_or_else(|| invalid("the id in the path holds a % that is not followed by two hexadecimal digits".to_owned()))?;
    config.limits.parse_id(&bytes).map(Into::into).map_err(|error| invalid(error.to_string()))
}

/// Undoes percent-encoding (RFC 3986, 2.1).
fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte == b'%' {
            let mut digit =
                || rest.next().and_then(|digit| char::from(*digit).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
            let (high, low) = (digit()?, digit()?);
            bytes.push(high << 4 | low);
        } else {
            bytes.push(*byte);
        }
    }
    Some(bytes)
}

fn dry_run(query: &[u8], writes: bool) -> Result<bool, Problem> {
    let invalid = |detail: String| Code::InvalidQuery.problem(detail);
    let mut found = None;
    for parameter in query.split(|byte| *byte == b'&').filter(|parameter| !parameter.is_empty()) {
        let value = match parameter {
            b"dry_run=true" => true,
            b"dry_run=false" => false,
            _ if parameter == b"dry_run" || parameter.starts_with(b"dry_run=") => {
                return Err(invalid("dry_run must be true or false".to_owned()));
            }
            _ => {
                let name: Vec<u8> = parameter.iter().copied().take_while(|byte| *byte != b'=').take(64).collect();
                let name = String::from_utf8_lossy(&name).into_owned();
                return Err(invalid(format!("there is no query parameter {name:?}; writes take dry_run=true")));
            }
        };
        if !writes {
            return Err(invalid("dry_run belongs to writes; a read changes nothing".to_owned()));
        }
        if found.replace(value).is_some() {
            return Err(invalid("dry_run is given twice".to_owned()));
        }
    }
    Ok(found.unwrap_or(false))
}

fn check_content_type(header: Option<&[u8]>, target: &Target) -> Result<(), Problem> {
    let media_type = header.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let patches = matches!(target, Target::Patch | Target::PatchFleet);
    if media_type.eq_ignore_ascii_case(b"application/json")
        || (patches && media_type.eq_ignore_ascii_case(b"application/merge-patch+json"))
    {
        return Ok(());
    }
    let (name, accepted) = if patches {
        ("accept-patch", "application/merge-patch+json, application/json")
    } else {
        ("accept", "application/json")
    };
    let detail = format!("the body must be sent with Content-Type: {}", accepted.replace(", ", " or "));
    Err(Code::UnsupportedMediaType.problem(detail).with_header(name, accepted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment_id::DeploymentId;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn parse(method: &str, target: &str, content_type: Option<&str>, content_length: Option<&str>) -> Result<Call, Problem> {
        let config = AdminConfig::parse(br#"{"role":"admin","max_body_bytes":100}"#).expect("valid");
        let head = Head {
            method: method.as_bytes(),
            target: target.as_bytes(),
            content_type: content_type.map(str::as_bytes),
            content_length: content_length.map(str::as_bytes),
            ..Head::default()
        };
        Call::parse(&head, &config)
    }

    #[test]
    fn knows_its_operations() {
        #[track_caller]
        fn check(method: &str, target: &str, expected: &Call) {
            let call = parse(method, target, Some("application/json; charset=utf-8"), Some("100")).expect("valid");
            assert_eq!(call, *expected);
        }
        let id = |text: &str| OwnedDeploymentId::from(DeploymentId::parse(text.as_bytes()).expect("valid"));
        let read = |resource| Call::Read(Read { resource, preconditions: Preconditions::default() });
        let terms = |dry_run| Terms { dry_run, ..Terms::default() };
        let write = |target, dry_run| Call::Write(Write { target, terms: terms(dry_run) });
        check("GET", "/v1/routes", &read(Resource::Routes));
        check("GET", "/v1/routes?", &read(Resource::Routes));
        check("PUT", "/v1/routes?dry_run=true", &write(Target::Replace, true));
        check("PATCH", "/v1/routes?dry_run=false", &write(Target::Patch, false));
        check("GET", "/v1/routes/a.b", &read(Resource::Route(id("a.b"))));
        check("PUT", "/v1/routes/%61%2E", &write(Target::Route(id("a.")), false));
        check("DELETE", "/v1/routes/a?dry_run=true", &Call::Delete(id("a"), terms(true)));
        check("GET", "/v1/status", &read(Resource::Status));
        check("HEAD", "/v1/status", &read(Resource::Status));
        assert!(parse("PATCH", "/v1/routes", Some("Application/Merge-Patch+JSON"), None).is_ok());
        assert!(parse("DELETE", "/v1/routes/a", None, None).is_ok());
    }

    #[test]
    fn knows_the_operations_of_the_fleet() {
        let with = |config: &str, method: &str, content_type: &str, length: &str| {
            let head = Head {
                method: method.as_bytes(),
                target: b"/v1/fleet",
                content_type: Some(content_type.as_bytes()),
                content_length: Some(length.as_bytes()),
                ..Head::default()
            };
            let on = AdminConfig::parse(config.as_bytes()).expect("valid");
            Call::parse(&head, &on).map_err(|problem| problem.code)
        };
        let on = r#"{"role":"admin","max_body_bytes":5,"fleet":{"peer_cidrs":["10.0.0.0/8"],"max_body_bytes":100}}"#;
        let json = "application/json";
        let write = |target| Ok(Call::Write(Write { target, terms: Terms::default() }));
        let read = Ok(Call::Read(Read { resource: Resource::Fleet, preconditions: Preconditions::default() }));
        assert_eq!((with(on, "GET", json, "0"), with(on, "HEAD", json, "0")), (read.clone(), read));
        assert_eq!(with(on, "PUT", json, "100"), write(Target::ReplaceFleet));
        assert_eq!(with(on, "PATCH", "application/merge-patch+json", "100"), write(Target::PatchFleet));
        assert_eq!(with(on, "PUT", json, "101"), Err("payload_too_large"));
        assert_eq!(with(on, "PUT", "application/merge-patch+json", "1"), Err("unsupported_media_type"));
        assert_eq!(with(on, "DELETE", json, "0"), Err("method_not_allowed"));
        let off = r#"{"role":"admin"}"#;
        for method in ["GET", "HEAD", "PUT", "PATCH"] {
            assert_eq!(with(off, method, json, "0"), Err("fleet_disabled"), "{method}");
        }
        assert_eq!(with(off, "POST", json, "0"), Err("method_not_allowed"));
    }

    #[test]
    fn rejects_everything_else() {
        #[track_caller]
        fn check(method: &str, target: &str, content_type: &str, length: &str, status: u16, code: &str, header: Option<&str>) {
            let problem = parse(method, target, Some(content_type), Some(length)).expect_err("rejected");
            assert_eq!((problem.status, problem.code), (status, code), "{problem:?}");
            assert_eq!(problem.header.map(|(name, value)| format!("{name}: {value}")).as_deref(), header);
        }
        let json = "application/json";
        for target in ["/v1", "/v1/", "/v1/x", "/v1/routes/", "/v1/routes/a/b", "/v2/routes", "", "/v1/status/x", "/v1//routes"]
        {
            check("GET", target, json, "0", 404, "not_found", None);
        }
        check("POST", "/v1/routes", json, "0", 405, "method_not_allowed", Some("allow: GET, HEAD, PUT, PATCH"));
        check("POST", "/v1/routes/a", json, "0", 405, "method_not_allowed", Some("allow: GET, HEAD, PUT, DELETE"));
        check("get", "/v1/status", json, "0", 405, "method_not_allowed", Some("allow: GET, HEAD"));
        for target in ["/v1/routes/%", "/v1/routes/%4", "/v1/routes/%zz", "/v1/routes/a%20b", "/v1/routes/a%00"] {
            check("GET", target, json, "0", 400, "invalid_deployment_id", None);
        }
        for query in ["x=1", "dry_run", "dry_run=1", "dry_run=TRUE", "dry_run=true&dry_run=true", "dry_run=true&x"] {
            check("PUT", &format!("/v1/routes?{query}"), json, "0", 400, "invalid_query", None);
        }
        check("GET", "/v1/routes?dry_run=true", json, "0", 400, "invalid_query", None);
        check("PUT", "/v1/routes", "text/plain", "0", 415, "unsupported_media_type", Some("accept: application/json"));
        let merge = "application/merge-patch+json";
        check("PUT", "/v1/routes/a", merge, "0", 415, "unsupported_media_type", Some("accept: application/json"));
        let patches = "accept-patch: application/merge-patch+json, application/json";
        check("PATCH", "/v1/routes", "", "0", 415, "unsupported_media_type", Some(patches));
        check("PUT", "/v1/routes", json, "101", 413, "payload_too_large", None);
    }
}
