//! The names under which the route API is called: those of the loopback interface.
//!
//! A browser that runs beside Envoy, such as an agent's headless one, connects from the loopback interface whatever page it shows. A page
//! of another site reaches the route API by DNS rebinding, and then sends its own name as `Host`; or without it, and then sends its
//! own `Origin`. So both are checked, before the token.

/// Whether a `Host` (RFC 9110, 7.2) is `localhost`, `127.0.0.1` or `[::1]`, with any port or none.
///
/// Names are compared without regard to case (RFC 3986, 3.2.2). No other spelling is accepted: no trailing dot, no user
/// information, no other form of an address, no list.
#[must_use]
pub fn is_local_host(host: &[u8]) -> bool {
    let names: [&[u8]; 3] = [b"localhost", b"127.0.0.1", b"[::1]"];
    names.iter().any(|name| {
        host.split_at_checked(name.len())
            .is_some_and(|(found, port)| found.eq_ignore_ascii_case(name) && (port.is_empty() || is_port(port)))
    })
}

/// Whether an `Origin` (RFC 6454, 7) is one of these hosts over `http` or `https`. `null` is not.
#[must_use]
pub fn is_local_origin(origin: &[u8]) -> bool {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    schemes.iter().any(|scheme| {
        origin
            .split_at_checked(scheme.len())
            .is_some_and(|(found, host)| found.eq_ignore_ascii_case(scheme) && is_local_host(host))
    })
}

/// A colon and a port, 0 to 65535.
fn is_port(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b":").and_then(|digits| std::str::from_utf8(digits).ok());
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Hosts that name this machine, and hosts that do not or that nobody sends for it.
    const LOCAL: [&str; 9] = [
        "localhost",
        "localhost:9901",
        "LOCALHOST",
        "LocalHost:1",
        "127.0.0.1",
        "127.0.0.1:9901",
        "127.0.0.1:65535",
        "[::1]",
        "[::1]:9901",
    ];
    const FOREIGN: [&str; 36] = [
        "",
        "evil.example",
        "evil.example:9901",
        "localhost.",
        "localhost.:9901",
        "localhost:",
        "localhost:65536",
        "localhost:+1",
        "localhost:x",
        "localhost:9901:9901",
        "localhost:9901/",
        "localhost.evil.example",
        "localhost.localdomain",
        "evil.example,localhost",
        "localhost,evil.example",
        "localhost,localhost",
        "user@localhost",
        "evil.example@localhost",
        "localhost@evil.example",
        "localhost#@evil.example",
        "127.0.0.1.",
        "127.0.0.1.nip.io",
        "127.0.0.2",
        "127.1",
        "127.0.0.01",
        "0177.0.0.1",
        "2130706433",
        "0.0.0.0",
        "::1",
        "[::1",
        "[::1].",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::1%25lo]",
        " localhost",
        "localhost ",
    ];

    #[test]
    fn only_the_names_of_the_loopback_interface_are_local() {
        for host in LOCAL {
            assert!(is_local_host(host.as_bytes()), "{host:?}");
        }
        for host in FOREIGN {
            assert!(!is_local_host(host.as_bytes()), "{host:?}");
        }
        assert!(!is_local_host(b"localhost:\xff"));
    }

    #[test]
    fn an_origin_is_a_scheme_and_such_a_host() {
        for host in LOCAL {
            for scheme in ["http", "https", "HTTP"] {
                assert!(is_local_origin(format!("{scheme}://{host}").as_bytes()), "{scheme}://{host}");
            }
            for text in [host.to_owned(), format!("ftp://{host}"), format!("http://{host}/"), format!("http:{host}")] {
                assert!(!is_local_origin(text.as_bytes()), "{text}");
            }
        }
        for host in FOREIGN {
            assert!(!is_local_origin(format!("http://{host}").as_bytes()), "{host:?}");
        }
        for text in ["", "null", "http://", "http://localhost, http://localhost", "file://", "chrome-extension://localhost"] {
            assert!(!is_local_origin(text.as_bytes()), "{text:?}");
        }
    }
}
