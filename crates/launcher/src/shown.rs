//! How messages show the value of a variable. Somebody may have put a secret there in place of its path or its URL.

use std::borrow::Cow;

/// Longest value that is shown, in bytes.
const MAX_BYTES: usize = 256;

/// What a message says in place of a value that it does not show.
const HIDDEN: &str = "not shown";

/// The value of a variable that names a file: only a path is shown.
#[must_use]
pub fn path(value: &str) -> String {
    if value.is_empty() || value.starts_with('/') && is_plain(value) {
        quoted(value)
    } else {
        hidden(value, "an absolute path")
    }
}

/// The value of a variable with a URL: only a URL is shown, without the user's name and password and without the query.
#[must_use]
pub fn url(value: &str) -> String {
    let is_url = value.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|c| c.is_ascii_alphabetic()));
    if value.is_empty() || is_url && is_plain(value) { quoted(&without_secrets(value)) } else { hidden(value, "a URL") }
}

/// The value of any other variable. A URL in it is shown without the parts that may be secret.
#[must_use]
pub fn text(value: &str) -> String {
    if value.contains("://") { quoted(&without_secrets(value)) } else { quoted(value) }
}

fn quoted(value: &str) -> String {
    format!("{value:?}")
}

fn hidden(value: &str, kind: &str) -> String {
    format!("{HIDDEN}, because its {} bytes are not {kind}", value.len())
}

fn is_plain(value: &str) -> bool {
    value.len() <= MAX_BYTES && !value.chars().any(char::is_control)
}

/// A URL, or several of them, without what stands after the first `?` or `#` and before the last `@`.
fn without_secrets(value: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = value.split_once("://") else { return value.into() };
    let mark = rest.find(['?', '#']);
    if mark.is_some_and(|mark| rest.find('@').is_some_and(|at| at > mark)) {
        // It may be in a password.
        return format!("{scheme}://***").into();
    }
    let (rest, query) = mark.map_or((rest, ""), |mark| (rest.get(..=mark).unwrap_or_default(), "***"));
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("***@", rest));
    format!("{scheme}://{user}{rest}{query}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_path_is_shown_for_one() {
        let long = format!("/{}", "x".repeat(256));
        assert_eq!(path("/etc/tls.key"), "\"/etc/tls.key\"");
        assert_eq!(path(""), "\"\"");
        assert_eq!(path(&long[1..]), "not shown, because its 256 bytes are not an absolute path");
        for secret in ["s3cret", "-----BEGIN KEY-----\ns3cret\n", "{\"keys\":[\"s3cret\"]}", "/s3cret\n", "./s3cret", &long] {
            assert_eq!(path(secret), format!("not shown, because its {} bytes are not an absolute path", secret.len()));
        }
    }

    #[test]
    fn a_url_is_shown_without_secrets() {
        for (value, expected) in [
            ("https://i.test/keys", "\"https://i.test/keys\""),
            ("https://user:s3cret@i.test/keys", "\"https://***@i.test/keys\""),
            ("https://user:s3/cr@et@i.test/keys", "\"https://***@i.test/keys\""),
            ("https://i.test/keys?key=s3cret#s3cret", "\"https://i.test/keys?***\""),
            ("https://i.test/keys#s3cret", "\"https://i.test/keys#***\""),
            ("https://u@i.test/k?a@s3cret", "\"https://***@i.test/k?***\""),
            ("https://u:s3?cret@i.test/k", "\"https://***\""),
            ("ftp://i.test/k", "\"ftp://i.test/k\""),
            ("", "\"\""),
            ("user:s3cret@i.test", "not shown, because its 18 bytes are not a URL"),
            ("{\"keys\":[{\"k\":\"s3cret\"}]}", "not shown, because its 25 bytes are not a URL"),
            ("{\"u\":\"https://i.test\"}", "not shown, because its 22 bytes are not a URL"),
            ("https://i.test/s3cret\n", "not shown, because its 22 bytes are not a URL"),
        ] {
            assert_eq!(url(value), expected);
        }
        assert_eq!(text("https://u:s3cret@a.test,https://b.test/?s3cret"), "\"https://***@a.test,https://b.test/?***\"");
        assert_eq!((text("two"), text("a@b")), ("\"two\"".to_owned(), "\"a@b\"".to_owned()));
    }
}
