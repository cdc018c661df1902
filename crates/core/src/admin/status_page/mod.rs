//! The status page, `GET /`: one document with its style and script inside, which reads what its viewer may read.
//!
//! The document itself contains no secret: the counters come from `/stats`, the route map from `/v1/`, each under its own rule.

use super::code::Code;
use super::response::{Outcome, Response};
use crate::config::AdminConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// One script, in this order: each part uses those before it.
const SCRIPT: &str = concat!(
    include_str!("dom.js"),
    include_str!("charts.js"),
    include_str!("problems.js"),
    include_str!("traffic.js"),
    include_str!("route_table.js"),
    include_str!("fleet_table.js"),
    include_str!("page.js")
);

/// The page, put together.
#[derive(Clone, Debug)]
pub struct StatusPage {
    html: String,
    policy: String,
}

impl StatusPage {
    /// Puts the page together, with a policy that allows only its own script and style, by their hashes. From the
    /// settings it has where its links to agents lead, and whether there is a fleet.
    #[must_use]
    pub fn new(config: &AdminConfig) -> Self {
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash(SCRIPT),
            hash(STYLE)
        );
        let fleet = if config.fleet.is_some() { "on" } else { "off" };
        let html = PAGE.replace("{{agents}}", &config.agents_url).replace("{{fleet}}", fleet);
        Self { html: html.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT), policy }
    }

    /// The response to a request for it.
    #[must_use]
    pub fn response(&self, method: &[u8]) -> Response {
        if !matches!(method, b"GET" | b"HEAD") {
            let problem = Code::MethodNotAllowed.problem("the status page responds to GET");
            return Response::problem(&problem.with_header("allow", "GET, HEAD"));
        }
        let headers = [
            ("content-type", "text/html; charset=utf-8"),
            ("content-security-policy", &self.policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cache-control", "no-store"),
        ];
        let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
        Response { status: 200, headers, body: self.html.clone(), outcome: Outcome::Read }
    }
}

/// Whether a request is for the page.
#[must_use]
pub fn owns_path(target: &[u8]) -> bool {
    target == b"/" || target.starts_with(b"/?")
}

/// A hash as a Content-Security-Policy names it (CSP level 3, 2.3.1).
fn hash(source: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(source)))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn page(settings: &str) -> StatusPage {
        StatusPage::new(&AdminConfig::parse(settings.as_bytes()).expect("valid"))
    }

    #[test]
    fn the_page_says_whether_there_is_a_fleet() {
        for (settings, expected) in
            [(r#"{"role":"admin"}"#, "off"), (r#"{"role":"admin","fleet":{"peer_cidrs":["10.0.0.0/8"]}}"#, "on")]
        {
            assert!(page(settings).html.contains(&format!("data-fleet=\"{expected}\"")), "{expected}");
        }
    }

    #[test]
    fn the_page_is_self_contained() {
        let response = page(r#"{"role":"admin"}"#).response(b"GET");
        assert_eq!(response.status, 200);
        assert!(response.body.contains(SCRIPT) && response.body.contains(STYLE) && !response.body.contains("{{"));
        let without_namespace = response.body.replace("http://www.w3.org/2000/svg", "");
        for outside in [
            "http://",
            "https://",
            "//cdn",
            "@import",
            "url(",
            "src=",
            "innerHTML",
            "style=\"",
            "onclick",
            "animation",
            "transition",
        ] {
            assert!(!without_namespace.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_hash_is_what_browsers_expect() {
        // The example of CSP level 3, 6.7.3.
        assert_eq!(hash("alert('Hello, world.');"), "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng=");
    }

    #[test]
    fn only_reads_are_served() {
        let rejected = page(r#"{"role":"admin"}"#).response(b"POST");
        assert_eq!(rejected.status, 405);
        assert!(rejected.headers.contains(&("allow", "GET, HEAD".to_owned())));
    }

    #[test]
    fn only_the_root_is_the_page() {
        for (target, mine) in [("/", true), ("/?a=b", true), ("/v1", false), ("/index.html", false), ("", false), ("//", false)]
        {
            assert_eq!(owns_path(target.as_bytes()), mine, "{target}");
        }
    }
}
