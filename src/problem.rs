//! The error document of both roles: `application/problem+json` (RFC 9457).

use crate::json::quote;
use std::fmt::Write;

/// Content type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error document. `type` is always `about:blank`, so `title` is the HTTP status phrase (RFC 9457, 4.2.1); programs read `code`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status code.
    pub status: u16,
    /// Machine-readable name of the error.
    pub code: &'static str,
    /// What is wrong and what to do, for people.
    pub detail: String,
    /// A response header that belongs to the error, such as `Allow`; its name is in lower case.
    pub header: Option<(&'static str, &'static str)>,
    /// Where JSON text stops being JSON: line and column, from 1.
    pub position: Option<(u32, u32)>,
    /// Every single fault of a document that is JSON but not acceptable.
    pub errors: Vec<Fault>,
}

/// One fault in a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the value.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

impl Problem {
    /// A problem without position or faults.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), header: None, position: None, errors: Vec::new() }
    }

    /// The same with its faults.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<Fault>) -> Self {
        self.errors = errors;
        self
    }

    /// The same with its header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The document.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = format!(
            r#"{{"type":"about:blank","title":{},"status":{},"detail":{},"code":{}"#,
            quote(title(self.status)),
            self.status,
            quote(&self.detail),
            quote(self.code)
        );
        if let Some((line, column)) = self.position {
            // Writing into a string cannot fail.
            let _ = write!(json, r#","line":{line},"column":{column}"#);
        }
        if !self.errors.is_empty() {
            json.push_str(r#","errors":["#);
            for (n, fault) in self.errors.iter().enumerate() {
                let comma = if n == 0 { "" } else { "," };
                let _ = write!(json, r#"{comma}{{"pointer":{},"detail":{}}}"#, quote(&fault.pointer), quote(&fault.detail));
            }
            json.push(']');
        }
        json.push('}');
        json
    }
}

/// The status phrase (RFC 9110, 15) of the statuses used here.
const fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn writes_every_member() {
        let mut problem = Problem::new(422, "invalid_routes", "two \"faults\"")
            .with_errors(vec![Fault::new("/routes/a", "bad"), Fault::new("/x", "unknown")]);
        problem.position = Some((2, 5));
        let parsed: serde_json::Value = serde_json::from_str(&problem.to_json()).expect("valid JSON");
        assert_eq!(
            parsed,
            serde_json::json!({
                "type": "about:blank", "title": "Unprocessable Content", "status": 422, "detail": "two \"faults\"",
                "code": "invalid_routes", "line": 2, "column": 5,
                "errors": [{"pointer": "/routes/a", "detail": "bad"}, {"pointer": "/x", "detail": "unknown"}],
            })
        );
    }

    #[test]
    fn leaves_out_what_does_not_apply() {
        let json = Problem::new(404, "not_found", "no").to_json();
        assert!(!json.contains("errors") && !json.contains("line"), "{json}");
    }
}
