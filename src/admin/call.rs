//! A call: what a request's head asks the route API for, before any body has arrived.

use super::etag::Preconditions;
use crate::config::{AdminConfig, routes::IdFault};
use crate::problem::Problem;

/// The head of an HTTP request. A header that was sent several times is joined by commas.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head<'a> {
    /// `:method`
    pub method: &'a [u8],
    /// `:path`, with the query.
    pub target: &'a [u8],
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
pub struct Call {
    /// What to do.
    pub operation: Operation,
    /// When to do it.
    pub preconditions: Preconditions,
    /// Whether to do everything but the change itself.
    pub dry_run: bool,
}

/// The operations of the API, by resource and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GET /v1/routes`
    GetRoutes,
    /// `PUT /v1/routes`
    ReplaceRoutes,
    /// `PATCH /v1/routes`
    PatchRoutes,
    /// `GET /v1/routes/{id}`
    GetRoute(String),
    /// `PUT /v1/routes/{id}`
    PutRoute(String),
    /// `DELETE /v1/routes/{id}`
    DeleteRoute(String),
    /// `GET /v1/status`
    GetStatus,
}

impl Operation {
    /// Whether the request's body states what to do.
    #[must_use]
    pub const fn needs_body(&self) -> bool {
        matches!(self, Self::ReplaceRoutes | Self::PatchRoutes | Self::PutRoute(_))
    }

    const fn writes(&self) -> bool {
        self.needs_body() || matches!(self, Self::DeleteRoute(_))
    }
}

impl Call {
    /// Checks all of the head but the authorisation.
    ///
    /// # Errors
    /// 400, 404, 405, 413 or 415.
    pub fn parse(head: &Head<'_>, config: &AdminConfig) -> Result<Self, Problem> {
        let (path, query) = match head.target.iter().position(|byte| *byte == b'?') {
            Some(at) => (head.target.get(..at).unwrap_or_default(), head.target.get(at + 1..)),
            None => (head.target, None),
        };
        let operation = operation(head.method, path, config)?;
        let dry_run = dry_run(query.unwrap_or_default(), operation.writes())?;
        let preconditions = Preconditions::parse(head.if_match, head.if_none_match)?;
        if operation.needs_body() {
            check_content_type(head.content_type, &operation)?;
            let announced = head.content_length.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
            if announced.is_some_and(|bytes| bytes > config.max_body_bytes as u64) {
                return Err(payload_too_large(config.max_body_bytes));
            }
        }
        Ok(Self { operation, preconditions, dry_run })
    }
}

/// The answer to a body of more than `most` bytes.
#[must_use]
pub fn payload_too_large(most: usize) -> Problem {
    let detail =
        format!("the request body is larger than {most} bytes; send less, or raise max_body_bytes of the admin filter");
    Problem::new(413, "payload_too_large", detail)
}

fn operation(method: &[u8], path: &[u8], config: &AdminConfig) -> Result<Operation, Problem> {
    let allow = match path.strip_prefix(b"/v1/") {
        Some(b"routes") => match method {
            b"GET" => return Ok(Operation::GetRoutes),
            b"PUT" => return Ok(Operation::ReplaceRoutes),
            b"PATCH" => return Ok(Operation::PatchRoutes),
            _ => "GET, PUT, PATCH",
        },
        Some(b"status") => match method {
            b"GET" => return Ok(Operation::GetStatus),
            _ => "GET",
        },
        Some(rest) => match rest.strip_prefix(b"routes/") {
            Some(segment) if !segment.is_empty() && !segment.contains(&b'/') => {
                let make = match method {
                    b"GET" => Operation::GetRoute,
                    b"PUT" => Operation::PutRoute,
                    b"DELETE" => Operation::DeleteRoute,
                    _ => return Err(method_not_allowed("GET, PUT, DELETE")),
                };
                return Ok(make(parse_segment(segment, config)?));
            }
            _ => return Err(no_such_path()),
        },
        None => return Err(no_such_path()),
    };
    Err(method_not_allowed(allow))
}

fn no_such_path() -> Problem {
    let detail = "there is no such path; the route API has /v1/routes, /v1/routes/{id} and /v1/status";
    Problem::new(404, "not_found", detail)
}

fn method_not_allowed(allow: &'static str) -> Problem {
    Problem::new(405, "method_not_allowed", format!("this path answers {allow}")).with_header("allow", allow)
}

fn parse_segment(segment: &[u8], config: &AdminConfig) -> Result<String, Problem> {
    let invalid = |detail: String| Problem::new(400, "invalid_deployment_id", detail);
    let bytes = percent_decode(segment)
        .ok_or_else(|| invalid("the id in the path holds a % that is not followed by two hexadecimal digits".to_owned()))?;
    match config.limits.parse_id(&bytes) {
        Ok(id) => Ok(id.as_str().to_owned()),
        Err(error @ (IdFault::Invalid(_) | IdFault::LongerThanConfigured { .. })) => Err(invalid(error.to_string())),
    }
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
    let invalid = |detail: String| Problem::new(400, "invalid_query", detail);
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

fn check_content_type(header: Option<&[u8]>, operation: &Operation) -> Result<(), Problem> {
    let media_type = header.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let patches = *operation == Operation::PatchRoutes;
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
    Err(Problem::new(415, "unsupported_media_type", detail).with_header(name, accepted))
}

#[cfg(test)]
mod tests {
    use super::*;
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
        fn check(method: &str, target: &str, expected: Operation, dry_run: bool) {
            let call = parse(method, target, Some("application/json; charset=utf-8"), Some("100")).expect("valid");
            assert_eq!((call.operation, call.dry_run), (expected, dry_run));
        }
        check("GET", "/v1/routes", Operation::GetRoutes, false);
        check("GET", "/v1/routes?", Operation::GetRoutes, false);
        check("PUT", "/v1/routes?dry_run=true", Operation::ReplaceRoutes, true);
        check("PATCH", "/v1/routes?dry_run=false", Operation::PatchRoutes, false);
        check("GET", "/v1/routes/a.b", Operation::GetRoute("a.b".to_owned()), false);
        check("PUT", "/v1/routes/%61%2E", Operation::PutRoute("a.".to_owned()), false);
        check("DELETE", "/v1/routes/a?dry_run=true", Operation::DeleteRoute("a".to_owned()), true);
        check("GET", "/v1/status", Operation::GetStatus, false);
        assert!(parse("PATCH", "/v1/routes", Some("Application/Merge-Patch+JSON"), None).is_ok());
        assert!(parse("DELETE", "/v1/routes/a", None, None).is_ok());
    }

    #[test]
    fn refuses_everything_else() {
        #[track_caller]
        fn check(method: &str, target: &str, content_type: &str, length: &str, status: u16, code: &str, header: Option<&str>) {
            let problem = parse(method, target, Some(content_type), Some(length)).expect_err("refused");
            assert_eq!((problem.status, problem.code), (status, code), "{problem:?}");
            assert_eq!(problem.header.map(|(name, value)| format!("{name}: {value}")).as_deref(), header);
        }
        let json = "application/json";
        for target in ["/v1", "/v1/", "/v1/x", "/v1/routes/", "/v1/routes/a/b", "/v2/routes", "", "/v1/status/x", "/v1//routes"]
        {
            check("GET", target, json, "0", 404, "not_found", None);
        }
        check("POST", "/v1/routes", json, "0", 405, "method_not_allowed", Some("allow: GET, PUT, PATCH"));
        check("HEAD", "/v1/routes/a", json, "0", 405, "method_not_allowed", Some("allow: GET, PUT, DELETE"));
        check("get", "/v1/status", json, "0", 405, "method_not_allowed", Some("allow: GET"));
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
