//! The way back: how the client reached the agent, and under which path it reaches another one of the agent's URLs.

use super::origins::ExternalOrigins;
use super::url::{Authority, default_port, without_dot_segments};
use crate::addressing::{Addressing, Named, Parts, Wanted, stripped};
use crate::decision::wanted_ports;
use crate::route::StoredRoute;

/// What the data path notes about a request that the path or the host addresses, for when its response comes.
#[derive(Clone, Copy, Debug)]
pub struct Note<'a> {
    /// The port that the request was given.
    pub port: u16,
    /// Whether it asks for an agent card.
    pub is_card: bool,
    /// Whether the client used `https`, as far as Envoy knows; the external origins override this.
    pub is_https: bool,
    /// Whether nothing but the prefix was in the path. Then the path's own directory is that of all agents.
    pub is_prefix_alone: bool,
    /// `:authority`, as the client sent it.
    pub authority: &'a [u8],
    /// `:path`, as the client sent it.
    pub path: &'a [u8],
    /// The route, as it was then.
    pub route: StoredRoute<'a>,
}

impl<'a> Note<'a> {
    /// The note as bytes:
    ///
    /// ```text
    /// port u16 | is_card, is_https, is_prefix_alone: a bit each, u8 | length u32, authority | length u32, path | route     (little-endian)
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let route = self.route.to_bytes();
        // Space for all of it at once: to grow step by step would take a tenth of what a request by path costs.
        let mut bytes = Vec::with_capacity(11 + self.authority.len() + self.path.len() + route.len());
        bytes.extend_from_slice(&self.port.to_le_bytes());
        bytes.push(u8::from(self.is_card) | u8::from(self.is_https) << 1 | u8::from(self.is_prefix_alone) << 2);
        for text in [self.authority, self.path] {
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_le_bytes());
            bytes.extend_from_slice(text);
        }
        bytes.extend_from_slice(&route);
        bytes
    }

    /// Reads what [`Self::to_bytes`] made; `None` for anything else.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
            let (length, rest) = bytes.split_first_chunk()?;
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        }
        let (&[low, high, flags], rest) = bytes.split_first_chunk()?;
        let (authority, rest) = text(rest)?;
        let (path, rest) = text(rest)?;
        let (is_card, is_https, is_prefix_alone) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        let (port, route) = (u16::from_le_bytes([low, high]), StoredRoute::parse(rest)?);
        Some(Self { port, is_card, is_https, is_prefix_alone, authority, path, route })
    }
}

/// How a client reached an agent.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The prefix of the client's path; empty if the host names the agent.
    pub prefix: String,
    /// The path that the agent received, with the query.
    pub path: String,
    /// The port that served the request.
    pub port: u16,
    id: String,
    authority: String,
    scheme: &'static str,
    /// Whether URLs may be written with this authority.
    is_allowed: bool,
    /// In its stored form.
    route: Vec<u8>,
}

impl Reached {
    /// How a request reached its agent; `None` if it is not one that a path or a host addresses.
    #[must_use]
    pub fn of(note: &Note<'_>, addressing: &Addressing, origins: &ExternalOrigins) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let (id, prefix, path) = match addressing.find(&Parts { header: None, path: note.path, authority: note.authority }) {
            Named::ByPath { id, prefix, rest, strip: true, .. } => (id, prefix, stripped(rest)),
            Named::ByPath { id, prefix, .. } => (id, prefix, note.path.to_vec()),
            Named::ByHost { id } => (id, &[][..], note.path.to_vec()),
            Named::ByHeader { .. } | Named::Nothing => return None,
        };
        let authority = text(note.authority)?;
        let seen = if note.is_https { "https" } else { "http" };
        let allowed = origins.scheme_for(&authority, seen);
        Some(Self {
            prefix: text(prefix)?,
            path: text(&path).unwrap_or_default(),
            port: note.port,
            id: text(id)?,
            authority,
            scheme: allowed.unwrap_or(seen),
            is_allowed: allowed.is_some(),
            route: note.route.to_bytes(),
        })
    }

    /// The deployment id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn route(&self) -> Option<StoredRoute<'_>> {
        StoredRoute::parse(&self.route)
    }

    /// The authority that the client used, unless none may be written with it.
    #[must_use]
    pub fn client(&self) -> Option<Authority<'_>> {
        Authority::parse(&self.authority, default_port(self.scheme)).filter(|_| self.is_allowed)
    }

    /// The origin that the client used, such as `https://agents.example.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// The client's scheme.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The host and port at which gRPC clients reach the agent, which have no path to name it by: a host of its own, if there are such. The
    /// port is written out, because gRPC has another default.
    #[must_use]
    pub fn grpc_target(&self, client: &Authority<'_>, addressing: &Addressing) -> String {
        let port = client.port.unwrap_or_else(|| default_port(self.scheme));
        match &addressing.host_suffix {
            Some(suffix) => format!("{}{suffix}:{port}", self.id),
            None => format!("{}:{port}", client.host),
        }
    }

    /// Whether a port is one of the agent's: the one that served the request, or another endpoint of its route.
    #[must_use]
    pub fn is_own(&self, port: u16) -> bool {
        port == self.port || self.route().is_some_and(|route| route.ports().any(|own| own == port))
    }

    /// The port that a URL of this machine means: its own, if it is one of the agent's, else the one that served the request.
    #[must_use]
    pub fn port_meant(&self, port: u16) -> u16 {
        if self.is_own(port) { port } else { self.port }
    }

    /// The path under which the client reaches `path` (with query and fragment, perhaps empty) of the agent's endpoint on `port`: with the
    /// client's own prefix if that leads there, else with the first configured one that does. `None` if none does.
    #[must_use]
    pub fn back(&self, path: &str, port: u16, addressing: &Addressing) -> Option<String> {
        let path = without_dot_segments(path);
        if self.has_prefix(&path, addressing) {
            return Some(path.into_owned());
        }
        let own = [self.prefix.clone()];
        let names = self.route().map(|route| route.names_of(port)).unwrap_or_default();
        let others = addressing.prefixes.iter().flat_map(|prefix| names.iter().map(|name| prefix.path_of(&self.id, *name)));
        own.into_iter()
            .chain(others)
            .map(|prefix| prefix + &path)
            .find(|full| is_local(full) && self.leads(full, &path, port, addressing))
    }

    /// Whether a path names this agent already.
    fn has_prefix(&self, path: &str, addressing: &Addressing) -> bool {
        let parts = Parts { header: None, path: without_fragment(path).as_bytes(), authority: b"" };
        matches!(addressing.find(&parts), Named::ByPath { id, .. } if id == self.id.as_bytes())
    }

    /// Whether a client that sends `full` reaches `path` on `port`.
    fn leads(&self, full: &str, path: &str, port: u16, addressing: &Addressing) -> bool {
        let (full, path) = (without_fragment(full).as_bytes(), without_fragment(path).as_bytes());
        let parts = Parts { header: None, path: full, authority: self.authority.as_bytes() };
        let Some(route) = self.route() else { return false };
        let (id, wanted, rest) = match addressing.find(&parts) {
            Named::ByPath { id, wanted, rest, strip: true, .. } => (id, wanted, rest),
            Named::ByHost { id } => (id, Wanted::Default, full),
            Named::ByPath { strip: false, .. } | Named::ByHeader { .. } | Named::Nothing => return false,
        };
        id == self.id.as_bytes()
            && stripped(rest) == stripped(path)
            && wanted_ports(&route, wanted).is_some_and(|ports| ports.other == port)
    }
}

/// Whether browsers take this path for one of the same host: `//x` and `/\x` name another host, and tabs and line ends in them do not count.
fn is_local(path: &str) -> bool {
    !path.chars().filter(|char| !matches!(char, '\t' | '\n' | '\r')).skip(1).take(1).any(|second| matches!(second, '/' | '\\'))
}

fn without_fragment(url: &str) -> &str {
    url.split('#').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addressing::prefix::PathPrefix;
    use crate::endpoint::EndpointName;
    use crate::route::Route;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn defaults() -> Addressing {
        Addressing { prefixes: PathPrefix::defaults(), host_suffix: Some(".h.test".to_owned()) }
    }

    /// An agent `x` with `a2a` on 1001, `rest` on 1002 and `ui` on 1003, reached by this path on `port`.
    fn reached(path: &str, authority: &str, port: u16, addressing: &Addressing) -> Reached {
        let endpoints = [(EndpointName::REST, 1002), (EndpointName::UI, 1003)].into();
        let route = Route { endpoints, ..Route::active(1001) }.to_bytes();
        let route = StoredRoute::parse(&route).unwrap();
        let (path, authority) = (path.as_bytes(), authority.as_bytes());
        let note = Note { port, is_card: false, is_https: false, is_prefix_alone: false, authority, path, route };
        Reached::of(&note, addressing, &ExternalOrigins::default()).unwrap()
    }

    #[track_caller]
    fn check(prefix: &str, path: &str, port: u16, expected: Option<&str>) {
        let addressing = defaults();
        let reached = reached(&format!("{prefix}/y"), "c.test", 1002, &addressing);
        assert_eq!((reached.prefix.as_str(), reached.path.as_str()), (prefix, "/y"));
        assert_eq!(reached.back(path, port, &addressing).as_deref(), expected, "{prefix} {path} {port}");
    }

    #[test]
    fn the_client_s_prefix_if_it_leads_there() {
        check("/agents/x/api", "/y?z#f", 1002, Some("/agents/x/api/y?z#f"));
        check("/agents/x", "", 1002, Some("/agents/x"));
        check("/agents/x", "/", 1002, Some("/agents/x/"));
        check("/agents/x", "?q", 1002, Some("/agents/x?q"));
        check("/agents/x/a2a", "/a2a", 1001, Some("/agents/x/a2a/a2a"));
        check("/agents/x/-/ui", "/../../../y", 1003, Some("/agents/x/-/ui/y"));
    }

    #[test]
    fn the_canonical_form_otherwise() {
        check("/agents/x", "/a2a", 1002, Some("/agents/x/-/rest/a2a"));
        check("/agents/x", "/-/ui/y", 1002, Some("/agents/x/-/rest/-/ui/y"));
        check("/agents/x", "/y", 1001, Some("/agents/x/-/a2a/y"));
        check("/agents/x/api", "/y", 1003, Some("/agents/x/-/ui/y"));
        check("/agents/x/ui", "", 1001, Some("/agents/x/-/a2a"));
        // No endpoint has it.
        check("/agents/x/api", "/y", 1004, None);
    }

    #[test]
    fn a_path_that_names_the_agent_stays() {
        for path in ["/agents/x/api/y", "/agents/x", "/agents/x?q", "/agents/x/a2a#f", "/agents/x/-/ui/y"] {
            check("/agents/x/api", path, 1002, Some(path));
        }
        check("/agents/x/api", "/agents/y", 1002, Some("/agents/x/api/agents/y"));
        check("/agents/x/api", "/agents/xy", 1002, Some("/agents/x/api/agents/xy"));
    }

    #[test]
    fn a_host_needs_no_prefix_but_for_other_endpoints() {
        let addressing = defaults();
        let reached = reached("/y", "x.h.test:80", 1002, &addressing);
        let back = |path, port| reached.back(path, port, &addressing);
        assert_eq!(back("/z", 1002).as_deref(), Some("/z"));
        assert_eq!(back("", 1002).as_deref(), Some(""));
        assert_eq!(back("/z", 1003).as_deref(), Some("/agents/x/-/ui/z"));
        assert_eq!(back("/agents/y", 1002).as_deref(), Some("/agents/x/-/rest/agents/y"));
    }

    #[test]
    fn other_prefixes_than_the_default_ones() {
        let parse = |text, strip| PathPrefix::parse(text, &[], strip).unwrap();
        let prefixes = vec![parse("/keep/{id}", false), parse("/p/{endpoint}/of/{id}", true)];
        let addressing = Addressing { prefixes, host_suffix: None };
        let reached = reached("/keep/x/y", "c.test", 1002, &addressing);
        assert_eq!((reached.prefix.as_str(), reached.path.as_str()), ("/keep/x", "/keep/x/y"));
        assert_eq!(reached.back("/keep/x/z", 1002, &addressing).as_deref(), Some("/keep/x/z"));
        assert_eq!(reached.back("/z", 1003, &addressing).as_deref(), Some("/p/ui/of/x/z"));
    }

    #[test]
    fn grpc_has_a_host_of_its_own_or_the_client_s() {
        let mut addressing = defaults();
        let reached = reached("/y", "x.h.test", 1002, &addressing);
        assert_eq!(reached.grpc_target(&reached.client().unwrap(), &addressing), "x.h.test:80");
        addressing.host_suffix = None;
        let other = Authority::parse("c.test:8080", 80).unwrap();
        assert_eq!(reached.grpc_target(&other, &addressing), "c.test:8080");
    }

    #[test]
    fn what_neither_path_nor_host_names_has_no_way_back() {
        let note = Note {
            port: 1,
            is_card: false,
            is_https: false,
            is_prefix_alone: false,
            authority: b"c.test",
            path: b"/y",
            route: StoredRoute::active(1),
        };
        assert!(Reached::of(&note, &defaults(), &ExternalOrigins::default()).is_none());
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let route = Route { endpoints: [(EndpointName::UI, 3)].into(), ..Route::draining(1) }.to_bytes();
        let route = StoredRoute::parse(&route).unwrap();
        for flags in 0..8 {
            let (is_card, is_https, is_prefix_alone) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            let note =
                Note { port: 2, is_card, is_https, is_prefix_alone, authority: b"c.test", path: b"/agents/x\xff?y", route };
            let bytes = note.to_bytes();
            let read = Note::parse(&bytes).unwrap();
            assert_eq!((read.port, read.is_card, read.is_https, read.is_prefix_alone), (2, is_card, is_https, is_prefix_alone));
            assert_eq!((read.authority, read.path, read.route), (note.authority, note.path, route));
            for cut in 0..bytes.len() {
                let Some(read) = Note::parse(&bytes[..cut]) else { continue };
                assert_eq!(read.path, note.path);
            }
        }
    }
}
