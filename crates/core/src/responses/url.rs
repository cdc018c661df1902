//! What a URL in a response points to, as far as it matters here: a path of this agent, an authority, or something else.
//!
//! It reads what browsers read (the WHATWG URL Standard) or gives up: what is not plainly `http(s)://host:port/...` or `/...` is foreign, and
//! foreign URLs are never changed. So `//host`, `/\host`, user information, other spellings of IPv4 addresses and whatever a browser would have
//! to repair are left alone. A property compares it with the crate `url`, which would make the module twice as large (193 KiB more).

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What a URL points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// An absolute path, with a query and a fragment.
    Path(&'a str),
    /// A URL with an authority.
    Absolute {
        /// What stands before the path, such as `http://localhost:5000`.
        origin: &'a str,
        /// The authority, without a port if it is the scheme's own.
        authority: Authority<'a>,
        /// The port, the scheme's own if none is written.
        port: u16,
        /// Path, query and fragment: empty, or beginning with `/`, `?` or `#`.
        rest: &'a str,
    },
    /// Anything else: another host, or a path that is relative.
    Foreign,
}

/// A host and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A DNS name, an IPv4 address, or an IPv6 address in brackets.
    pub host: &'a str,
    /// The port, unless it is the scheme's own.
    pub port: Option<u16>,
}

/// The port of a scheme.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

impl<'a> Target<'a> {
    /// Judges a URL.
    #[must_use]
    pub fn of(url: &'a str) -> Self {
        // Browsers drop some of these wherever they stand, and trim others.
        if url.bytes().any(|byte| byte.is_ascii_control()) || url.trim().len() != url.len() {
            return Self::Foreign;
        }
        if let Some(rest) = url.strip_prefix('/') {
            return if rest.starts_with(['/', '\\']) { Self::Foreign } else { Self::Path(url) };
        }
        let (default, after) = match after_scheme(url) {
            Some(found) => found,
            None => return Self::Foreign,
        };
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (Some((text, rest)), Some(origin)) = (after.split_at_checked(end), url.get(..url.len() - (after.len() - end)))
        else {
            return Self::Foreign;
        };
        match Authority::parse(text, default) {
            Some(authority) => Self::Absolute { origin, authority, port: authority.port.unwrap_or(default), rest },
            None => Self::Foreign,
        }
    }
}

/// The port of the scheme `http` or `https`, and what follows `://`.
fn after_scheme(url: &str) -> Option<(u16, &str)> {
    let (scheme, after) = url.split_once("://")?;
    if scheme.eq_ignore_ascii_case("http") {
        Some((HTTP, after))
    } else if scheme.eq_ignore_ascii_case("https") {
        Some((HTTPS, after))
    } else {
        None
    }
}

/// The port of a scheme, `http` unless it is `https`.
#[must_use]
pub fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { HTTPS } else { HTTP }
}

impl<'a> Authority<'a> {
    /// Parses `host` or `host:port`, without user information. `default` is the port of the scheme.
    #[must_use]
    pub fn parse(text: &'a str, default: u16) -> Option<Self> {
        let end = text.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match text.get(end..)?.find(':') {
            None => (text, None),
            Some(colon) => {
                let (host, port) = text.split_at_checked(end + colon)?;
                let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
                let port = if digits.is_empty() { default } else { digits.parse().ok().filter(|port| *port != 0)? };
                (host, Some(port).filter(|port| *port != default))
            }
        };
        is_host(host).then_some(Self { host, port })
    }

    /// Whether both are the same, without regard to case.
    #[must_use]
    pub fn is(&self, other: &Authority<'_>) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port == other.port
    }

    /// Whether it is this machine, as an agent sees it: `localhost`, a loopback address, or the unspecified one that servers bind.
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        if let Some(address) = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = address.parse::<Ipv6Addr>().ok();
            return address.is_some_and(|address| match address.to_ipv4_mapped() {
                Some(mapped) => mapped.is_loopback() || mapped.is_unspecified(),
                None => address.is_loopback() || address.is_unspecified(),
            });
        }
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback() || address.is_unspecified())
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    }
}

/// A path without dot segments (RFC 3986, 5.2.4), encoded ones included, as every client makes it before it sends it. A query and a fragment
/// stay as they are.
#[must_use]
pub fn without_dot_segments(url: &str) -> Cow<'_, str> {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let Some((path, tail)) = url.split_at_checked(end) else { return url.into() };
    if !path.split(['/', '\\']).any(|segment| is_dot(segment) || is_dots(segment)) {
        return url.into();
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split(['/', '\\']).skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if is_dots(segment) {
            kept.pop();
        } else if !is_dot(segment) {
            kept.push(segment);
            continue;
        }
        if last {
            kept.push("");
        }
    }
    format!("/{}{tail}", kept.join("/")).into()
}

fn is_dot(segment: &str) -> bool {
    segment == "." || segment.eq_ignore_ascii_case("%2e")
}

fn is_dots(segment: &str) -> bool {
    ["..", ".%2e", "%2e.", "%2e%2e"].iter().any(|dots| segment.eq_ignore_ascii_case(dots))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn urls_are_paths_or_have_an_authority() {
        #[track_caller]
        fn check(url: &str, origin: &str, host: &str, port: u16, rest: &str) {
            let Target::Absolute { origin: found, authority, port: at, rest: tail } = Target::of(url) else { panic!("{url}") };
            assert_eq!((found, authority.host, at, tail), (origin, host, port, rest), "{url}");
        }
        for path in ["/", "/x?y#z", "/x//y", "/é x", "/x\\y"] {
            assert_eq!(Target::of(path), Target::Path(path));
        }
        check("http://localhost:5000/x", "http://localhost:5000", "localhost", 5000, "/x");
        check("HTTPS://A.test", "HTTPS://A.test", "A.test", 443, "");
        check("http://a.test:80?x", "http://a.test:80", "a.test", 80, "?x");
        check("http://a.test:#x", "http://a.test:", "a.test", 80, "#x");
        check("http://[::1]:1/", "http://[::1]:1", "[::1]", 1, "/");
    }

    #[test]
    fn what_a_browser_reads_otherwise_is_foreign() {
        for url in [
            "",
            "x",
            "?x",
            "#x",
            "../x",
            "//h/x",
            "/\\h",
            "\\/h",
            "\\x",
            "/\t/h",
            " /x",
            "/x ",
            "/x\0",
            "http:/x",
            "http:x",
            "http:///h",
            "http://",
            "http://u@localhost/",
            "http://localhost@h/",
            "http://localhost\\@h/",
            "http://localhost:5000:1/",
            "http://localhost:0/",
            "http://localhost:65536/",
            "http://loc%61lhost/",
            "http://lo\u{ad}calhost/",
            "http://[::1/",
            "http://[1]/",
            "http://::1/",
            "ftp://localhost/",
            "javascript:alert(1)",
            "http\u{3a}\\\\localhost/",
        ] {
            assert_eq!(Target::of(url), Target::Foreign, "{url:?}");
        }
    }

    #[test]
    fn this_machine_has_several_names() {
        let is = |host: &str| Authority::parse(host, 80).is_some_and(|authority| authority.is_this_machine());
        for host in
            ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:1", "0.0.0.0:1", "[::1]", "[::]:1", "[::ffff:127.0.0.1]"]
        {
            assert!(is(host), "{host}");
        }
        for host in
            ["localhost.test", "127.0.0.1.test", "10.0.0.1", "127.1", "0x7f.1", "2130706433", "[::2]", "0", "localhost."]
        {
            assert!(!is(host), "{host}");
        }
    }

    #[test]
    fn authorities_are_equal_without_regard_to_case_and_to_the_scheme_s_port() {
        let of = |text, default| Authority::parse(text, default).unwrap();
        assert!(of("A.test:80", 80).is(&of("a.TEST", 443)));
        assert!(of("a.test:8080", 80).is(&of("a.test:8080", 443)));
        assert!(!of("a.test:443", 80).is(&of("a.test", 80)));
        assert!(!of("a.test", 80).is(&of("b.test", 80)));
    }

    #[test]
    fn dot_segments_go() {
        for (path, expected) in [
            ("/a/./b", "/a/b"),
            ("/a/../b?x/../y", "/b?x/../y"),
            ("/../../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/%2E%2e", "/a/"),
            ("/a/.%2e/b/%2e", "/b/"),
            ("/a\\..\\b", "/b"),
            ("/a/...", "/a/..."),
            ("/a//b", "/a//b"),
            ("/", "/"),
            ("", ""),
            ("/a#/../b", "/a#/../b"),
        ] {
            assert_eq!(without_dot_segments(path), expected, "{path}");
        }
    }
}
