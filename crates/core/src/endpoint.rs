//! An endpoint name: which of an agent's ports a request is for.

use std::fmt;

/// A valid endpoint name: 1 to [`EndpointName::MAX_LEN`] bytes of `a-z 0-9 -`, not `-` alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName {
    /// The name, padded with zeros, which no name contains: so names compare as their text does.
    bytes: [u8; Self::MAX_LEN],
}

impl EndpointName {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 16;

    /// The endpoint that every route has: its `port`.
    pub const A2A: Self = Self::padded(*b"a2a");

    /// The endpoint that serves an agent's HTTP API.
    pub const REST: Self = Self::padded(*b"rest");

    /// The endpoint that serves an agent's pages.
    pub const UI: Self = Self::padded(*b"ui");

    /// Parses a name as it stands in a path segment or as a member of a route.
    ///
    /// # Errors
    /// [`InvalidEndpointName`]
    pub fn parse(name: &[u8]) -> Result<Self, InvalidEndpointName> {
        let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        let mut bytes = [0; Self::MAX_LEN];
        let place = bytes.get_mut(..name.len()).ok_or(InvalidEndpointName)?;
        if name.is_empty() || name == b"-" || !name.iter().all(allowed) {
            return Err(InvalidEndpointName);
        }
        place.copy_from_slice(name);
        Ok(Self { bytes })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The name as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    const fn padded<const N: usize>(name: [u8; N]) -> Self {
        let mut bytes = [0; Self::MAX_LEN];
        if let Some(place) = bytes.first_chunk_mut() {
            *place = name;
        }
        Self { bytes }
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Bytes that are not an endpoint name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEndpointName;

impl fmt::Display for InvalidEndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an endpoint name has 1 to {} characters of a-z 0-9 - and is not - alone", EndpointName::MAX_LEN)
    }
}

impl std::error::Error for InvalidEndpointName {}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn accepts_the_alphabet_up_to_16_bytes() {
        for name in ["a", "a2a", "rest", "ui", "0", "a-", "--", "-x", "abcdefghijklmnop"] {
            assert_eq!(EndpointName::parse(name.as_bytes()).map(|name| name.to_string()), Ok(name.to_owned()));
        }
        assert_eq!(EndpointName::parse(b"a2a"), Ok(EndpointName::A2A));
        assert_eq!(EndpointName::parse(b"rest"), Ok(EndpointName::REST));
        assert_eq!(EndpointName::parse(b"ui"), Ok(EndpointName::UI));
    }

    #[test]
    fn rejects_everything_else() {
        for name in ["", "-", "abcdefghijklmnopq", "A", "a_b", "a.b", "a/b", "a b", "ä", "a\0"] {
            assert_eq!(EndpointName::parse(name.as_bytes()), Err(InvalidEndpointName), "{name:?}");
        }
    }

    #[test]
    fn sorts_as_text() {
        let sorted = ["-a", "0", "a", "a-", "a2a", "ab", "b"].map(|name| EndpointName::parse(name.as_bytes()).expect("valid"));
        assert!(sorted.is_sorted());
    }
}
