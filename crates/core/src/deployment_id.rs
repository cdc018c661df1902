//! A deployment id: the opaque key, usually a UUID, by which a client names an agent.

use std::fmt;

/// A valid deployment id: 1 to [`DeploymentId::MAX_LEN`] bytes of `A-Z a-z 0-9 . _ -`.
///
/// The alphabet is safe in a URL path, a JSON string, a gRPC status message and a log line without escaping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeploymentId<'a>(&'a str);

impl<'a> DeploymentId<'a> {
    /// Longest id, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Parses an id as it stands in a header or a path segment.
    ///
    /// # Errors
    /// [`InvalidDeploymentId`] says what is wrong with the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, InvalidDeploymentId> {
        if bytes.is_empty() {
            return Err(InvalidDeploymentId::Empty);
        }
        if bytes.len() > Self::MAX_LEN {
            return Err(InvalidDeploymentId::TooLong { len: bytes.len() });
        }
        if let Some(at) = bytes.iter().position(|byte| !is_allowed(*byte)) {
            return Err(InvalidDeploymentId::BadByte { at });
        }
        // Allowed bytes are ASCII, so this cannot fail; the compiler cannot know.
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self(text)),
            Err(error) => Err(InvalidDeploymentId::BadByte { at: error.valid_up_to() }),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// A deployment id that owns its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnedDeploymentId(Box<str>);

impl OwnedDeploymentId {
    /// The id.
    #[must_use]
    pub fn as_id(&self) -> DeploymentId<'_> {
        DeploymentId(&self.0)
    }
}

impl From<DeploymentId<'_>> for OwnedDeploymentId {
    fn from(id: DeploymentId<'_>) -> Self {
        Self(id.0.into())
    }
}

impl fmt::Display for DeploymentId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Why some bytes are not a deployment id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidDeploymentId {
    /// There are no bytes.
    Empty,
    /// More than [`DeploymentId::MAX_LEN`] bytes.
    TooLong {
        /// How many there are.
        len: usize,
    },
    /// A byte outside the alphabet.
    BadByte {
        /// Its offset.
        at: usize,
    },
}

impl fmt::Display for InvalidDeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a deployment id is empty; it has 1 to {} bytes", DeploymentId::MAX_LEN),
            Self::TooLong { len } => {
                write!(f, "a deployment id has {len} bytes; at most {} are allowed", DeploymentId::MAX_LEN)
            }
            Self::BadByte { at } => {
                write!(f, "a deployment id holds a byte that is not allowed, at offset {at}; allowed are A-Z a-z 0-9 . _ -")
            }
        }
    }
}

impl std::error::Error for InvalidDeploymentId {}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<&str, InvalidDeploymentId>) {
        assert_eq!(DeploymentId::parse(bytes).map(DeploymentId::as_str), expected);
    }

    #[test]
    fn accepts_the_alphabet_up_to_128_bytes() {
        check(b"a", Ok("a"));
        check(b"0f8fad5b-d9cb-469f-a165-70867728950e", Ok("0f8fad5b-d9cb-469f-a165-70867728950e"));
        check(b"A.b_C-9", Ok("A.b_C-9"));
        check(b"..", Ok(".."));
        let longest = "x".repeat(128);
        check(longest.as_bytes(), Ok(&longest));
    }

    #[test]
    fn rejects_everything_else() {
        check(b"", Err(InvalidDeploymentId::Empty));
        check(&[b'x'; 129], Err(InvalidDeploymentId::TooLong { len: 129 }));
        for byte in (0..=255).filter(|byte| !is_allowed(*byte)) {
            check(&[b'a', byte], Err(InvalidDeploymentId::BadByte { at: 1 }));
        }
    }
}
