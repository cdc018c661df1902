//! The external origins under which clients reach the proxy: only their authorities are written into URLs, if any are configured.

use super::url::{Authority, default_port};

/// Origins such as `https://agents.example.com` or `https://*.example.com`; without any, every authority is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalOrigins(Vec<Origin>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: &'static str,
    /// In lower case. With a dot at its beginning it stands for all names below it.
    host: String,
    port: Option<u16>,
}

impl ExternalOrigins {
    /// Adds an origin; `None` if the text is not an origin.
    #[must_use]
    pub fn with(mut self, text: &str) -> Option<Self> {
        let (scheme, authority) = match text.strip_prefix("https://") {
            Some(authority) => ("https", authority),
            None => ("http", text.strip_prefix("http://")?),
        };
        let (star, name) = authority.strip_prefix('*').map_or(("", authority), |name| ("*", name));
        let Authority { host, port } = Authority::parse(name, default_port(scheme))?;
        if star.is_empty() == host.starts_with('.') {
            return None;
        }
        self.0.push(Origin { scheme, host: host.to_ascii_lowercase(), port });
        Some(self)
    }

    /// The scheme that a client of this authority uses: the origin's, or `seen` if no origins are configured. `None` if the authority is not valid,
    /// or not that of an origin. A whole name goes before the longest one with a star, as in Envoy's virtual hosts.
    #[must_use]
    pub fn scheme_for(&self, authority: &str, seen: &'static str) -> Option<&'static str> {
        if self.0.is_empty() {
            return Authority::parse(authority, default_port(seen)).map(|_| seen);
        }
        let fits = |origin: &&Origin| {
            Authority::parse(authority, default_port(origin.scheme)).is_some_and(|client| {
                let host = client.host.to_ascii_lowercase();
                let is_named = if origin.host.starts_with('.') {
                    host.len() > origin.host.len() && host.ends_with(&origin.host)
                } else {
                    host == origin.host
                };
                client.port == origin.port && is_named
            })
        };
        let rank = |origin: &&Origin| (!origin.host.starts_with('.'), origin.host.len());
        self.0.iter().filter(fits).max_by_key(rank).map(|origin| origin.scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn origins(list: &[&str]) -> ExternalOrigins {
        list.iter().fold(ExternalOrigins::default(), |origins, text| origins.with(text).expect(text))
    }

    #[test]
    fn without_origins_every_authority_is_one() {
        let none = ExternalOrigins::default();
        assert_eq!(none.scheme_for("a.test:1", "http"), Some("http"));
        assert_eq!(none.scheme_for("a.test", "https"), Some("https"));
        assert_eq!(none.scheme_for("a test", "http"), None);
    }

    #[test]
    fn a_client_uses_the_scheme_of_its_origin() {
        let some = origins(&[
            "https://A.test",
            "http://b.test:8080",
            "https://*.h.test",
            "http://*.x.h.test",
            "http://y.x.h.test:443",
        ]);
        for (authority, scheme) in [
            ("a.test", Some("https")),
            ("A.TEST:443", Some("https")),
            ("a.test:80", None),
            ("b.test:8080", Some("http")),
            ("b.test", None),
            ("z.h.test", Some("https")),
            ("z.x.h.test", Some("http")),
            ("y.x.h.test:443", Some("http")),
            ("h.test", None),
            (".h.test", None),
            ("xh.test", None),
            ("a.test.evil", None),
            ("", None),
        ] {
            assert_eq!(some.scheme_for(authority, "http"), scheme, "{authority}");
        }
    }

    #[test]
    fn anything_else_is_no_origin() {
        for text in [
            "",
            "a.test",
            "ftp://a.test",
            "https://",
            "https://a.test/",
            "https://u@a.test",
            "https://*",
            "https://.a.test",
            "https://*a.test",
        ] {
            assert_eq!(ExternalOrigins::default().with(text), None, "{text}");
        }
    }
}
