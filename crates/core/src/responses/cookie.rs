//! `Set-Cookie` (RFC 6265, 4.1): a cookie of an agent that has no host of its own stays below the agent's prefix.

/// The cookie with its path below `prefix`, and for this host alone. Without a path of its own it gets the one that a browser would give
/// it, by the path that the agent received.
#[must_use]
pub fn scoped(cookie: &[u8], prefix: &str, request_path: &str) -> Vec<u8> {
    let mut parts = cookie.split(|byte| *byte == b';');
    let mut scoped = parts.next().unwrap_or_default().to_vec();
    let mut path = None;
    for part in parts {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"path") {
            path = Some(part.splitn(2, |byte| *byte == b'=').nth(1).unwrap_or_default().trim_ascii());
        } else if !name.eq_ignore_ascii_case(b"domain") {
            scoped.push(b';');
            scoped.extend_from_slice(part);
        }
    }
    // The last one counts, and one that is not absolute counts as none (RFC 6265, 5.2.4).
    let path = path.filter(|path| path.starts_with(b"/"));
    if prefix.is_empty() && path.is_none() {
        return scoped;
    }
    scoped.extend_from_slice(b"; Path=");
    let path = path.unwrap_or_else(|| default_path(request_path).as_bytes());
    if !begins_with(path, prefix.as_bytes()) {
        scoped.extend_from_slice(prefix.as_bytes());
    }
    // `/x` covers itself and all below it, `/x/` not itself.
    scoped.extend_from_slice(if path == b"/" && !prefix.is_empty() { b"" } else { path });
    scoped
}

/// The path of a cookie without one (RFC 6265, 5.1.4), up to a semicolon: what follows one would be attributes of the cookie.
fn default_path(request_path: &str) -> &str {
    let path = request_path.split(['?', ';']).next().unwrap_or_default();
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(slash) => path.get(..slash).unwrap_or("/"),
    }
}

/// Whether a path begins with a prefix, by whole segments.
fn begins_with(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check(cookie: &str, prefix: &str, request: &str, expected: &str) {
        assert_eq!(String::from_utf8(scoped(cookie.as_bytes(), prefix, request)).unwrap(), expected, "{cookie}");
    }

    #[test]
    fn the_path_gets_the_prefix() {
        let below = |cookie, expected| check(cookie, "/agents/x", "/y/z?/q", expected);
        below("a=b; Path=/", "a=b; Path=/agents/x");
        below("a=b; path=/y", "a=b; Path=/agents/x/y");
        below("a=b; Path=/y; Path = /z ; Secure", "a=b; Secure; Path=/agents/x/z");
        below("a=b; Path=/agents/x/y", "a=b; Path=/agents/x/y");
        below("a=b; Path=/agents/x", "a=b; Path=/agents/x");
        below("a=b; Path=/agents/xy", "a=b; Path=/agents/x/agents/xy");
    }

    #[test]
    fn without_a_path_it_gets_the_browser_s() {
        for cookie in ["a=b", "a=b; Path", "a=b; Path=", "a=b; Path=y"] {
            check(cookie, "/agents/x", "/y/z?/q", "a=b; Path=/agents/x/y");
            check(cookie, "/agents/x", "/", "a=b; Path=/agents/x");
            check(cookie, "/agents/x", "/?q", "a=b; Path=/agents/x");
            check(cookie, "/agents/x", "/y/z;Path=/;/q", "a=b; Path=/agents/x/y");
            check(cookie, "/agents/x", "/y;Domain=test;/q", "a=b; Path=/agents/x");
        }
    }

    #[test]
    fn the_domain_goes_and_all_else_stays() {
        let cookie = "__Host-a=\"b c\"; Max-Age=1; HttpOnly; SameSite=Lax; Domain=.test; Partitioned;; x=y";
        let expected = "__Host-a=\"b c\"; Max-Age=1; HttpOnly; SameSite=Lax; Partitioned;; x=y; Path=/agents/x/y";
        check(cookie, "/agents/x", "/y/z", expected);
        check("domain=b; Domain", "/agents/x", "/", "domain=b; Path=/agents/x");
    }

    #[test]
    fn a_host_of_its_own_keeps_its_paths() {
        check("a=b; Path=/; Domain=test", "", "/y/z", "a=b; Path=/");
        check("a=b; Path=/y", "", "/y/z", "a=b; Path=/y");
        check("a=b; domain=test", "", "/y/z", "a=b");
    }
}
