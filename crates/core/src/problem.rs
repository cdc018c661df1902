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
    /// What is wrong with a document that is JSON but not acceptable.
    pub errors: FieldErrors,
}

/// One error in a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) to the value.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

impl FieldError {
    /// An error at a place.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// The errors of a JSON document: how many there are, and the first of them. A body of a few megabytes can have half a million, and a
/// list of all would take many times its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldErrors {
    listed: Vec<FieldError>,
    total: usize,
}

impl FieldErrors {
    /// Most errors that are listed.
    pub const MOST_LISTED: usize = 100;

    /// Counts an error, which is only made if it is listed.
    pub fn add(&mut self, error: impl FnOnce() -> FieldError) {
        if self.total < Self::MOST_LISTED {
            self.listed.push(error());
        }
        self.total = self.total.saturating_add(1);
    }

    /// Counts those of `other` as well.
    pub fn append(&mut self, other: Self) {
        let left = Self::MOST_LISTED.saturating_sub(self.listed.len());
        self.listed.extend(other.listed.into_iter().take(left));
        self.total = self.total.saturating_add(other.total);
    }

    /// How many there are.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The first of them.
    #[must_use]
    pub fn listed(&self) -> &[FieldError] {
        &self.listed
    }

    /// The first of them, to be changed.
    pub fn listed_mut(&mut self) -> &mut [FieldError] {
        &mut self.listed
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self { listed: vec![error], total: 1 }
    }
}

impl Problem {
    /// A problem without position or errors.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), header: None, position: None, errors: FieldErrors::default() }
    }

    /// The same with its errors.
    #[must_use]
    pub fn with_errors(mut self, errors: FieldErrors) -> Self {
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
        // Titles and codes are constants without anything to escape. Writing into a string cannot fail.
        let mut json = String::with_capacity(128 + self.detail.len());
        let _ = write!(json, r#"{{"type":"about:blank","title":"{}","status":{}"#, title(self.status), self.status);
        let _ = write!(json, r#","detail":{},"code":"{}""#, quote(&self.detail), self.code);
        if let Some((line, column)) = self.position {
            let _ = write!(json, r#","line":{line},"column":{column}"#);
        }
        if !self.errors.is_empty() {
            json.push_str(r#","errors":["#);
            for (n, error) in self.errors.listed().iter().enumerate() {
                let comma = if n == 0 { "" } else { "," };
                let _ = write!(json, r#"{comma}{{"pointer":{},"detail":{}}}"#, quote(&error.pointer), quote(&error.detail));
            }
            let _ = write!(json, r#"],"errors_total":{}"#, self.errors.total());
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
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        500 => "Internal Server Error",
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
        let mut problem = Problem::new(422, "invalid_routes", "two \"errors\"").with_errors(errors(["/routes/a", "/x"]));
        problem.position = Some((2, 5));
        let parsed: serde_json::Value = serde_json::from_str(&problem.to_json()).expect("valid JSON");
        assert_eq!(
            parsed,
            serde_json::json!({
                "type": "about:blank", "title": "Unprocessable Content", "status": 422, "detail": "two \"errors\"",
                "code": "invalid_routes", "line": 2, "column": 5,
                "errors": [{"pointer": "/routes/a", "detail": "bad"}, {"pointer": "/x", "detail": "bad"}], "errors_total": 2,
            })
        );
    }

    fn errors<const N: usize>(pointers: [&str; N]) -> FieldErrors {
        let mut errors = FieldErrors::default();
        pointers.into_iter().for_each(|pointer| errors.add(|| FieldError::new(pointer, "bad")));
        errors
    }

    #[test]
    fn lists_the_first_errors_and_counts_all() {
        let mut made = 0;
        let mut first = FieldErrors::default();
        for n in 0..99 {
            first.add(|| FieldError::new(format!("/{n}"), "bad"));
        }
        first.append(errors(["/a", "/b"]));
        first.add(|| {
            made += 1;
            FieldError::new("/c", "bad")
        });
        first.append(errors(["/d"]));
        let last = first.listed().last().map(|error| error.pointer.as_str());
        assert_eq!((made, first.total(), first.listed().len(), last), (0, 103, 100, Some("/a")));
        let parsed: serde_json::Value =
            serde_json::from_str(&Problem::new(422, "x", "").with_errors(first).to_json()).expect("JSON");
        assert_eq!((parsed["errors"].as_array().map(Vec::len), &parsed["errors_total"]), (Some(100), &103.into()));
    }

    #[test]
    fn leaves_out_what_does_not_apply() {
        let json = Problem::new(404, "not_found", "no").to_json();
        assert!(!json.contains("errors") && !json.contains("line"), "{json}");
    }
}
