//! How requests name their agent, by the image's settings: headers, prefixes of paths, the suffix of a host. The router filter gets these
//! as members of its configuration, and its own parser decides what is allowed.

use pixell_core::addressing::prefix::PathPrefix;
use pixell_core::addressing::{self, Named, Parts, Wanted};
use pixell_core::config::RouterConfig;
use pixell_core::endpoint::EndpointName;
use std::fmt::Write;

/// The word for an empty list, because an empty variable counts as not set.
const NONE: &str = "none";

/// The form of header names, for messages.
pub const HEADERS_EXPECTED: &str =
    "different header names in lower case, separated by commas, such as x-deployment-id, or none: no header names an agent";

/// The form of a host suffix, for messages.
pub const SUFFIX_EXPECTED: &str = "a dot and a host name in lower case, such as .agents.example.com";

/// The settings of addressing; what is not set stays as it is in the filter's configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Addressing {
    /// The headers that may carry the id.
    pub id_headers: Option<Vec<String>>,
    /// The prefixes of paths.
    pub path_prefixes: Option<Vec<Prefix>>,
    /// The end of a host that begins with an id.
    pub host_suffix: Option<String>,
}

/// A prefix of paths.
#[derive(Debug, PartialEq, Eq)]
pub struct Prefix {
    endpoints: Vec<EndpointName>,
    parsed: PathPrefix,
}

impl Addressing {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The headers that may carry the id.
    #[must_use]
    pub fn headers(&self) -> Vec<String> {
        self.id_headers
            .clone()
            .unwrap_or_else(|| ["x-deployment-id", "deployment-id", "deployment_id"].map(String::from).to_vec())
    }

    /// The literal texts that path-addressed requests begin with, such as `/agents/`.
    #[must_use]
    pub fn literal_starts(&self) -> Vec<String> {
        let mut starts: Vec<String> = self.parsed_prefixes().iter().map(PathPrefix::literal_start).collect();
        starts.sort();
        starts.dedup();
        starts
    }

    fn parsed_prefixes(&self) -> Vec<PathPrefix> {
        match &self.path_prefixes {
            None => PathPrefix::defaults(),
            Some(prefixes) => prefixes.iter().map(|prefix| prefix.parsed.clone()).collect(),
        }
    }

    /// Whether the links of the status page lead to pages: `/agents/{id}/` to `rest` of an agent that has it, `/agents/{id}/ui/` to `ui`, each
    /// to the path `/` there.
    #[must_use]
    pub fn has_default_pages(&self) -> bool {
        let addressing = addressing::Addressing { prefixes: self.parsed_prefixes(), host_suffix: None };
        // What stands for the id can be in no literal segment.
        let leads = |path: &str, to: EndpointName| match addressing.find(&Parts { path: path.as_bytes(), ..Parts::default() }) {
            Named::ByPath { id: b"{id}", rest: b"/", strip: true, wanted, .. } => match wanted {
                Wanted::Default => to == EndpointName::REST,
                Wanted::FirstOf(names) => names.first() == Some(&to),
                Wanted::Exactly(name) => name == to.as_str().as_bytes(),
            },
            Named::ByPath { .. } | Named::ByHeader { .. } | Named::ByHost { .. } | Named::Nothing => false,
        };
        leads("/agents/{id}/", EndpointName::REST) && leads("/agents/{id}/ui/", EndpointName::UI)
    }

    /// The members of the router's configuration, each after a comma; empty if nothing is set.
    #[must_use]
    pub fn members(&self) -> String {
        let mut members = String::new();
        let mut add = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = write!(members, ", \"{name}\": {value}");
        };
        if let Some(headers) = &self.id_headers {
            add("id_headers", list(headers.iter().map(|name| format!("\"{name}\""))));
        }
        if let Some(prefixes) = &self.path_prefixes {
            add("path_prefixes", list(prefixes.iter().map(Prefix::json)));
        }
        if let Some(suffix) = &self.host_suffix {
            add("host_suffix", format!("\"{suffix}\""));
        }
        members
    }

    /// The router's error for these settings together, if it rejects them.
    #[must_use]
    pub fn check(&self) -> Option<String> {
        RouterConfig::parse(format!("{{\"role\": \"router\"{}}}", self.members()).as_bytes())
            .err()
            .map(|error| error.to_string())
    }
}

impl Prefix {
    /// Reads an item: a prefix, then the endpoints that it stands for, then perhaps `strip=false`, separated by spaces.
    fn parse(item: &str) -> Result<Self, String> {
        let mut words = item.split_ascii_whitespace();
        let text = words.next().unwrap_or_default();
        let (mut endpoints, mut strip) = (Vec::new(), true);
        for word in words {
            if word == "strip=false" && strip {
                strip = false;
            } else if let (Ok(name), true) = (EndpointName::parse(word.as_bytes()), strip) {
                endpoints.push(name);
            } else {
                return Err(format!("after {text:?} come names of endpoints, and then perhaps strip=false, not {word:?}"));
            }
        }
        let parsed = PathPrefix::parse(text, &endpoints, strip).map_err(|error| format!("{text:?} {error}"))?;
        Ok(Self { endpoints, parsed })
    }

    fn json(&self) -> String {
        let endpoints = if self.endpoints.is_empty() {
            String::new()
        } else {
            format!(", \"endpoints\": {}", list(self.endpoints.iter().map(|name| format!("\"{}\"", name.as_str()))))
        };
        format!("{{\"prefix\": \"{}\"{endpoints}, \"strip\": {}}}", self.parsed, self.parsed.strip)
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// Parses the names of headers.
#[must_use]
pub fn parse_headers(text: &str) -> Option<Vec<String>> {
    let names = if text == NONE { Vec::new() } else { text.split(',').map(|name| name.trim().to_owned()).collect() };
    // Envoy removes the other spellings of x-deployment-id, which only this proxy may send to agents.
    let is_removed = |name: &str| name.replace('_', "-") == "x-deployment-id" && name != "x-deployment-id";
    let is_plain = |name: &String| !name.contains(['"', '\\']) && name != NONE && !is_removed(name);
    // Without headers something else must name the agent. Here the default prefixes do; all settings together are checked later.
    let addressing = Addressing { id_headers: Some(names), ..Addressing::default() };
    let names = addressing.id_headers.iter().flatten();
    (names.clone().all(is_plain) && addressing.check().is_none()).then_some(addressing.id_headers)?
}

/// Parses prefixes of paths.
///
/// # Errors
/// What is expected instead.
pub fn parse_prefixes(text: &str) -> Result<Vec<Prefix>, String> {
    if text == NONE {
        return Ok(Vec::new());
    }
    text.split(',').map(Prefix::parse).collect::<Result<_, _>>().map_err(|error| {
        format!("prefixes of paths, separated by commas, such as /agents/{{id}}/api rest a2a, or none; {error}")
    })
}

/// Parses a host suffix.
#[must_use]
pub fn parse_suffix(text: &str) -> Option<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    let addressing = Addressing { host_suffix: Some(text.to_owned()), ..Addressing::default() };
    (plain && addressing.check().is_none()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_names_or_none() {
        let parse = |text| parse_headers(text).map(|names| names.join(" "));
        assert_eq!(parse("x-deployment-id, x-agent"), Some("x-deployment-id x-agent".to_owned()));
        assert_eq!(parse("none"), Some(String::new()));
        for text in [
            "",
            ",",
            "X-Agent",
            "a b",
            ":path",
            "a,",
            "a,a",
            "none,a",
            "x_deployment_id",
            "x-deployment_id",
            "a\"b",
            "a\\",
            "ä",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn prefixes_have_endpoints_and_may_stay() {
        let parse = |text| parse_prefixes(text).map(|prefixes| list(prefixes.iter().map(Prefix::json)));
        assert_eq!(parse("none").unwrap(), "[]");
        assert_eq!(
            parse("/a/{id}/api rest a2a, /b/{id}/-/{endpoint},/{id} ui strip=false").unwrap(),
            "[{\"prefix\": \"/a/{id}/api\", \"endpoints\": [\"rest\", \"a2a\"], \"strip\": true}, \
             {\"prefix\": \"/b/{id}/-/{endpoint}\", \"strip\": true}, \
             {\"prefix\": \"/{id}\", \"endpoints\": [\"ui\"], \"strip\": false}]"
        );
        for (text, expected) in [
            ("/a", "or none; \"/a\" must have the segment {id} exactly once"),
            ("", "or none; \"\" must be segments, each after a /, such as /agents/{id}/a2a"),
            ("/{id} strip=no", "after \"/{id}\" come names of endpoints, and then perhaps strip=false, not \"strip=no\""),
            ("/{id} strip=false rest", "after \"/{id}\" come names of endpoints, and then perhaps strip=false, not \"rest\""),
            ("/{id},x", "or none; \"x\" must be segments, each after a /, such as /agents/{id}/a2a"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.ends_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_suffix_is_a_dot_and_a_name() {
        assert_eq!(parse_suffix(".agents.example.com").as_deref(), Some(".agents.example.com"));
        for text in ["", "agents.example.com", ".", ".A.test", ".a..test", ".a.test:80", ".a\"", ".a/b"] {
            assert_eq!(parse_suffix(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_set_becomes_members_and_places() {
        assert_eq!(
            (Addressing::default().members(), Addressing::default().literal_starts()),
            (String::new(), vec!["/agents/".to_owned()])
        );
        let addressing = Addressing {
            id_headers: parse_headers("none"),
            path_prefixes: parse_prefixes("/b/{id}/x,/a/{id},/b/{id}").ok(),
            host_suffix: parse_suffix(".a.test"),
        };
        assert_eq!(addressing.literal_starts(), ["/a/", "/b/"]);
        assert!(addressing.members().starts_with(", \"id_headers\": [], \"path_prefixes\": [{\"prefix\": "), "{addressing:?}");
        assert!(addressing.members().ends_with("], \"host_suffix\": \".a.test\""), "{addressing:?}");
        assert_eq!(addressing.check(), None);
        let nothing =
            Addressing { id_headers: parse_headers("none"), path_prefixes: parse_prefixes("none").ok(), host_suffix: None };
        assert!(nothing.check().unwrap().contains("no request could name an agent"));
    }

    #[test]
    fn pages_have_links_if_their_prefixes_are_there() {
        let has = |text| {
            Addressing { path_prefixes: Some(parse_prefixes(text).unwrap()), ..Addressing::default() }.has_default_pages()
        };
        assert!(Addressing::default().has_default_pages());
        assert!(has("/agents/{id}/ui ui rest,/agents/{id}"));
        for text in [
            "none",
            "/agents/{id}",
            "/agents/{id}/ui ui",
            "/agents/{id}/ui ui,/agents/{id} strip=false",
            "/agents/{id}/ui ui strip=false,/agents/{id}",
            "/agents/{id}/ui rest ui,/agents/{id}",
            "/agents/{id}/ui ui,/agents/{id} a2a",
            // The first one that matches counts.
            "/agents/{id},/agents/{id}/ui ui",
            "/agents/{id}/ui rest,/agents/{id}/ui ui,/agents/{id}",
            "/{id}/{endpoint},/agents/{id}/ui ui,/agents/{id}",
            "/agents/{id}/{endpoint},/agents/{id}",
        ] {
            assert!(!has(text), "{text}");
        }
        assert!(has("/x/{id},/agents/{id}/a2a a2a,/agents/{id}/ui ui a2a,/agents/{id}/{endpoint}/x,/agents/{id} rest"));
    }
}
