//! Addressing: how a request names its agent, by a header, by the beginning of its path, or by its host.
//!
//! Everything here reads bytes as they came. An id segment of a path is taken raw: nothing in it is decoded or normalised, so no spelling
//! of one id is another one.

use crate::endpoint::EndpointName;

pub mod prefix;

use prefix::{Matched, PathPrefix};

/// How requests may name their agent, beside the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressing {
    /// The prefixes of paths, in the order in which they are tried.
    pub prefixes: Vec<PathPrefix>,
    /// The end of a host that begins with an id, such as `.agents.example.com`, in lower case.
    pub host_suffix: Option<String>,
}

/// The parts of a request that can name an agent, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// The value of the header that names the deployment, all fields joined by commas; `None` if it is absent or empty.
    pub header: Option<&'a [u8]>,
    /// `:path`, with the query.
    pub path: &'a [u8],
    /// `:authority`, with the port.
    pub authority: &'a [u8],
}

/// What a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// The header names the agent. The value may be several equal ids, or none.
    ByHeader {
        /// The header's value.
        value: &'a [u8],
    },
    /// The path names the agent.
    ByPath {
        /// The id segment, whatever it holds.
        id: &'a [u8],
        /// Which endpoint is meant.
        wanted: Wanted<'a>,
        /// The beginning of the path that named them.
        prefix: &'a [u8],
        /// What follows the prefix: empty, or it begins with `/` or `?`.
        rest: &'a [u8],
        /// Whether the prefix is removed before the request is forwarded.
        strip: bool,
    },
    /// The host names the agent.
    ByHost {
        /// The labels before the suffix, whatever they hold.
        id: &'a [u8],
    },
    /// Nothing names an agent.
    Nothing,
}

impl<'a> Named<'a> {
    /// The id that the path or the host names, whatever it holds.
    #[must_use]
    pub const fn id(&self) -> Option<&'a [u8]> {
        match self {
            Self::ByPath { id, .. } | Self::ByHost { id } => Some(id),
            Self::ByHeader { .. } | Self::Nothing => None,
        }
    }
}

/// Which endpoint of the agent a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The one with this name, whatever it holds, and no other.
    Exactly(&'a [u8]),
    /// The first of these that the route has.
    FirstOf(&'a [EndpointName]),
    /// `a2a` for gRPC; otherwise `rest` if the route has it, else `a2a`.
    Default,
}

impl Addressing {
    /// What the request names: by its header, else by its path, else by its host.
    #[must_use]
    pub fn find<'a>(&'a self, parts: &Parts<'a>) -> Named<'a> {
        if let Some(value) = parts.header {
            return Named::ByHeader { value };
        }
        for prefix in &self.prefixes {
            if let Some(Matched { id, endpoint, len }) = prefix.find(parts.path) {
                let (matched, rest) = parts.path.split_at_checked(len).unwrap_or((parts.path, &[]));
                let wanted = endpoint.map_or_else(|| prefix.wanted(), Wanted::Exactly);
                return Named::ByPath { id, wanted, prefix: matched, rest, strip: prefix.strip };
            }
        }
        match self.host_suffix.as_deref().and_then(|suffix| id_of_host(parts.authority, suffix)) {
            Some(id) => Named::ByHost { id },
            None => Named::Nothing,
        }
    }
}

/// The path that is forwarded if a prefix is removed, from what followed it: an empty path is `/` (RFC 9110, 4.2.3), and the query stays.
#[must_use]
pub fn stripped(rest: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if rest.starts_with(b"/") { b"" } else { b"/" };
    [slash, rest].concat()
}

/// What stands before `suffix` in an authority without its port; `None` if that is nothing, or the suffix is another one. Hosts are
/// compared without regard to case (RFC 9110, 4.2.3).
fn id_of_host<'a>(authority: &'a [u8], suffix: &str) -> Option<&'a [u8]> {
    let host = match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if authority.get(colon + 1..).is_some_and(|port| port.iter().all(u8::is_ascii_digit)) => {
            authority.get(..colon)?
        }
        _ => authority,
    };
    let (id, end) = host.split_at_checked(host.len().checked_sub(suffix.len())?)?;
    (end.eq_ignore_ascii_case(suffix.as_bytes()) && !id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn default() -> Addressing {
        Addressing { prefixes: PathPrefix::defaults(), host_suffix: Some(".agents.example.com".to_owned()) }
    }

    #[track_caller]
    fn by_path(path: &str, expected: Option<(&str, Wanted<'_>, &str, &str)>) {
        let addressing = default();
        let found = match addressing.find(&Parts { path: path.as_bytes(), ..Parts::default() }) {
            Named::ByPath { id, wanted, prefix, rest, strip: true } => Some((id, wanted, prefix, rest)),
            Named::Nothing => None,
            other => panic!("{other:?}"),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = found.map(|(id, wanted, prefix, rest)| (text(id), wanted, text(prefix), text(rest)));
        let expected = expected.map(|(id, wanted, prefix, rest)| (id.to_owned(), wanted, prefix.to_owned(), rest.to_owned()));
        assert_eq!(found, expected, "{path}");
    }

    const A2A: Wanted<'static> = Wanted::FirstOf(&[EndpointName::A2A]);
    const API: Wanted<'static> = Wanted::FirstOf(&[EndpointName::REST, EndpointName::A2A]);
    const UI: Wanted<'static> = Wanted::FirstOf(&[EndpointName::UI, EndpointName::REST, EndpointName::A2A]);

    /// The rows of the default list.
    #[test]
    fn the_default_prefixes_in_their_order() {
        by_path("/agents/x/-/rest", Some(("x", Wanted::Exactly(b"rest"), "/agents/x/-/rest", "")));
        by_path("/agents/x/-/a2a/a2a?q", Some(("x", Wanted::Exactly(b"a2a"), "/agents/x/-/a2a", "/a2a?q")));
        by_path("/agents/x/a2a", Some(("x", A2A, "/agents/x/a2a", "")));
        by_path("/agents/x/a2a/pkg.Service/Method", Some(("x", A2A, "/agents/x/a2a", "/pkg.Service/Method")));
        by_path("/agents/x/api?a=/b", Some(("x", API, "/agents/x/api", "?a=/b")));
        by_path("/agents/x/ui/", Some(("x", UI, "/agents/x/ui", "/")));
        by_path("/agents/x", Some(("x", Wanted::Default, "/agents/x", "")));
        by_path("/agents/x/", Some(("x", Wanted::Default, "/agents/x", "/")));
        by_path("/agents/x?q", Some(("x", Wanted::Default, "/agents/x", "?q")));
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        by_path("/agents/x/a2abc", Some(("x", Wanted::Default, "/agents/x", "/a2abc")));
        by_path("/agents/x/-", Some(("x", Wanted::Default, "/agents/x", "/-")));
        by_path("/agents/x/-/", Some(("x", Wanted::Exactly(b""), "/agents/x/-/", "")));
        for path in ["/", "", "*", "/agents", "/agents?x/y", "/agentsx/y", "/Agents/x", "//agents/x", "agents/x", "/a/agents/x"]
        {
            by_path(path, None);
        }
    }

    #[test]
    fn the_id_segment_is_taken_raw() {
        for id in ["", "%61", "a%2Fb", "..", ".", "a;b", "a b", "a%00", "a\\b", "a@b", "a:b", "ä", "-", "a2a"] {
            by_path(&format!("/agents/{id}/a2a/z"), Some((id, A2A, &format!("/agents/{id}/a2a"), "/z")));
        }
        // Dot segments are names like any other: nothing leads out of the matched segment.
        by_path("/agents/x/../y/a2a", Some(("x", Wanted::Default, "/agents/x", "/../y/a2a")));
        by_path("/agents/../agents/y", Some(("..", Wanted::Default, "/agents/..", "/agents/y")));
        by_path("/agents//y", Some(("", Wanted::Default, "/agents/", "/y")));
    }

    #[test]
    fn the_header_goes_before_the_path_and_the_path_before_the_host() {
        let addressing = default();
        let all = Parts { header: Some(b"h"), path: b"/agents/p", authority: b"x.agents.example.com" };
        assert_eq!(addressing.find(&all), Named::ByHeader { value: b"h" });
        let path = Parts { header: None, ..all };
        assert!(matches!(addressing.find(&path), Named::ByPath { id: b"p", .. }));
        let host = Parts { path: b"/", ..path };
        assert_eq!(addressing.find(&host), Named::ByHost { id: b"x" });
        let off = Addressing { prefixes: Vec::new(), host_suffix: None };
        assert_eq!(off.find(&path), Named::Nothing);
    }

    #[test]
    fn a_host_names_an_agent_before_the_suffix() {
        #[track_caller]
        fn check(authority: &str, expected: Option<&str>) {
            let found = id_of_host(authority.as_bytes(), ".agents.example.com");
            assert_eq!(found.map(|id| String::from_utf8_lossy(id).into_owned()).as_deref(), expected, "{authority}");
        }
        check("x.agents.example.com", Some("x"));
        check("x.agents.example.com:50051", Some("x"));
        check("A.b.AGENTS.Example.com", Some("A.b"));
        check("a b.agents.example.com", Some("a b"));
        for authority in
            ["", ".agents.example.com", "agents.example.com", "xagents.example.com", "x.agents.example.com.", "[::1]:1"]
        {
            check(authority, None);
        }
        check("x.agents.example.com:http", None);
        check("x.agents.example.com:", Some("x"));
    }

    #[test]
    fn a_stripped_path_is_a_path() {
        for (rest, path) in [("", "/"), ("/", "/"), ("/a/b?c", "/a/b?c"), ("?c", "/?c"), ("//a", "//a")] {
            assert_eq!(stripped(rest.as_bytes()), path.as_bytes());
        }
    }
}
