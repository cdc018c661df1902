//! An origin (RFC 6454) under which clients reach this proxy, such as `https://agents.example.com`: a scheme and an authority.

use std::fmt;

/// How a list of origins is written, for error messages.
pub const EXPECTED: &str = "origins separated by commas, each of them http:// or https://, a host (perhaps *.example.com) and a port \
                            unless it is the scheme's own, such as https://agents.example.com; no authority twice";

/// One origin. Its host is a DNS name, a DNS name whose first label is `*`, or an IP address, all in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: &'static str,
    host: String,
    port: u16,
}

impl Origin {
    /// Parses a list of origins separated by commas; `None` if one of them is invalid, or an authority is named twice.
    #[must_use]
    pub fn parse_list(text: &str) -> Option<Vec<Self>> {
        let origins = text.split(',').map(|text| Self::parse(text.trim())).collect::<Option<Vec<_>>>()?;
        let mut domains: Vec<_> = origins.iter().flat_map(Self::domains).collect();
        let count = domains.len();
        domains.sort();
        domains.dedup();
        (domains.len() == count).then_some(origins)
    }

    /// Parses a list of origins separated by commas; `None` if one of them is not valid, or is named twice.
    #[must_use]
    pub fn parse_set(text: &str) -> Option<Vec<Self>> {
        let origins = text.split(',').map(|text| Self::parse(text.trim())).collect::<Option<Vec<_>>>()?;
        let is_new = |(n, origin): (usize, &Self)| !origins.iter().take(n).any(|earlier| earlier == origin);
        origins.iter().enumerate().all(is_new).then_some(origins)
    }

    /// Whether it stands for one host and not for several.
    #[must_use]
    pub fn is_one(&self) -> bool {
        !self.host.starts_with('*')
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = if let Some(rest) = text.strip_prefix("https://") {
            ("https", rest)
        } else {
            ("http", text.strip_prefix("http://")?)
        };
        let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match authority.get(end..)?.find(':') {
            None => (authority, default_port(scheme)),
            Some(colon) => {
                let (host, port) = authority.split_at_checked(end + colon)?;
                let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
                (host, digits.parse().ok().filter(|port| *port != 0)?)
            }
        };
        is_host(host).then(|| Self { scheme, host: host.to_owned(), port })
    }

    /// The authorities that clients send for this origin, in the form of Envoy's `domains`.
    #[must_use]
    pub fn domains(&self) -> Vec<String> {
        let Self { scheme, host, port } = self;
        let with_port = format!("{host}:{port}");
        if *port == default_port(scheme) { vec![host.clone(), with_port] } else { vec![with_port] }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        write!(f, "{scheme}://{host}")?;
        if *port == default_port(scheme) { Ok(()) } else { write!(f, ":{port}") }
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, domains: Option<&[&str]>) {
        let found = Origin::parse_list(text).map(|origins| origins.iter().flat_map(Origin::domains).collect::<Vec<_>>());
        assert_eq!(
            found.as_deref().map(|all| all.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
            domains,
            "{text}"
        );
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        check("https://Agents.Example.com", Some(&["agents.example.com", "agents.example.com:443"]));
        check("https://a.test:8443, http://b.test", Some(&["a.test:8443", "b.test", "b.test:80"]));
        check("http://127.0.0.1:50051", Some(&["127.0.0.1:50051"]));
        check("https://[::1]", Some(&["[::1]", "[::1]:443"]));
        check("https://*.agents.test", Some(&["*.agents.test", "*.agents.test:443"]));
        check("http://a.test:443,https://a.test:80", Some(&["a.test:443", "a.test:80"]));
    }

    #[test]
    fn anything_else_is_invalid() {
        for text in [
            "",
            ",",
            "a.test",
            "https://",
            "https://a.test/",
            "https://a.test/x",
            "https://u@a.test",
            "ftp://a.test",
            "https://a.test:",
            "https://a.test:0",
            "https://a.test:65536",
            "https://a.test:+1",
            "https://a..test",
            "https://-a.test",
            "https://a b",
            "https://*",
            "https://*.*.test",
            "https://a.*.test",
            "https://[::1",
            "https://::1",
            "https://a.test?x",
            "https://a.test#x",
            "https://a\"b",
            "https://a.test,",
            "https://a.test,http://a.test",
            "https://a.test,https://A.test:443",
            "null",
            "*",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_set_may_have_an_authority_twice() {
        let count = |text| Origin::parse_set(text).map(|origins| origins.len());
        assert_eq!(count("https://a.test:8443,http://a.test:8443"), Some(2));
        assert_eq!([count("https://a.test,https://A.test:443"), count("*"), count("null"), count("")], [None; 4]);
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for text in ["https://a.test", "http://a.test:8080", "https://[::1]:8443"] {
            assert_eq!(Origin::parse_list(text).unwrap()[0].to_string(), text);
        }
        assert_eq!(Origin::parse_list("HTTPS://A.test:443").unwrap()[0].to_string(), "https://a.test");
    }
}
