//! The bearer token that guards the route API if one is set (RFC 6750).

use std::fmt;
use subtle::ConstantTimeEq;

/// Environment variable of Envoy that holds the token.
pub const VARIABLE: &str = "PIXELL_ADMIN_TOKEN";

/// A bearer token. It has no `Display`, and its `Debug` form does not show it, so that it cannot reach a log or a response.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes the token out of its environment variable.
    ///
    /// # Errors
    /// [`InvalidToken`] if it is empty or holds bytes that no client could send. An empty token most likely is a secret that
    /// was not filled in; running on without one would leave the API open.
    pub fn parse(value: &str) -> Result<Self, InvalidToken> {
        let body = value.trim_end_matches('=');
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if body.is_empty() || !body.bytes().all(allowed) {
            return Err(InvalidToken);
        }
        Ok(Self(value.to_owned()))
    }

    /// Whether an `Authorization` header carries this token. Takes the same time wherever a wrong one differs.
    #[must_use]
    pub fn admits(&self, authorization: Option<&[u8]>) -> bool {
        // The scheme's name is case-insensitive (RFC 9110, 11.1).
        let Some((scheme, token)) = authorization.and_then(|value| value.split_at_checked(7)) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.trim_ascii().ct_eq(self.0.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The variable's value is not a bearer token. It is not repeated here: it may be a secret with a typing mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken;

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{VARIABLE} is empty or holds characters other than A-Z a-z 0-9 - . _ ~ + / and = at the end; \
             give it a value such as the output of `openssl rand -base64 32`, or unset it to go without a token"
        )
    }
}

impl std::error::Error for InvalidToken {}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn admits_itself_alone() {
        let token = Token::parse("s3cret+/=").expect("valid");
        let check = |header: &str, expected| assert_eq!(token.admits(Some(header.as_bytes())), expected, "{header}");
        check("Bearer s3cret+/=", true);
        check("bearer s3cret+/=", true);
        check("Bearer  s3cret+/=", true);
        check("Bearer s3cret+/", false);
        check("Bearer s3cret+/==", false);
        check("Bearer", false);
        check("Bearer ", false);
        check("Basic s3cret+/=", false);
        check("s3cret+/=", false);
        check("Bearer s3cret+/=,Bearer s3cret+/=", false);
        assert!(!token.admits(None));
        assert!(!token.admits(Some(b"Bearer \xff")));
    }

    #[test]
    fn rejects_what_no_client_could_send() {
        for value in ["", "=", "a b", "a\n", "ä", "a=b"] {
            assert_eq!(Token::parse(value).err(), Some(InvalidToken), "{value:?}");
        }
    }

    #[test]
    fn does_not_show_itself() {
        assert_eq!(format!("{:?}", Token::parse("s3cret").expect("valid")), "Token(..)");
    }
}
