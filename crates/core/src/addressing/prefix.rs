//! A path prefix that names an agent, such as `/agents/{id}/a2a`.

use super::Wanted;
use crate::endpoint::EndpointName;
use std::fmt;

/// A prefix of paths: literal segments, one for the id, and perhaps one for the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix {
    segments: Vec<Segment>,
    endpoints: Vec<EndpointName>,
    /// Whether the prefix is removed before the request is forwarded.
    pub strip: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Vec<u8>),
    Id,
    Endpoint,
}

/// What a prefix found in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched<'a> {
    /// The id segment.
    pub id: &'a [u8],
    /// The endpoint segment, if the prefix has one.
    pub endpoint: Option<&'a [u8]>,
    /// The length of what matched, in bytes.
    pub len: usize,
}

/// Why a text is not a path prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPrefix {
    /// It does not begin with `/`, or ends with one, or has an empty segment.
    Segments,
    /// It does not have the segment `{id}` exactly once.
    Id,
    /// It has the segment `{endpoint}` more than once, or together with a list of endpoints.
    Endpoint,
    /// A literal segment holds a byte that cannot be in a path segment as it is (RFC 3986, 3.3), or a `%`.
    Byte,
}

impl PathPrefix {
    /// Parses a prefix. `endpoints` are the endpoints it stands for, the first that the route has; without any, and without a segment
    /// `{endpoint}`, it stands for the default endpoint.
    ///
    /// # Errors
    /// [`InvalidPrefix`]
    pub fn parse(text: &str, endpoints: &[EndpointName], strip: bool) -> Result<Self, InvalidPrefix> {
        let rest = text.strip_prefix('/').ok_or(InvalidPrefix::Segments)?;
        let mut segments = Vec::new();
        for segment in rest.split('/') {
            segments.push(match segment {
                "" => return Err(InvalidPrefix::Segments),
                "{id}" => Segment::Id,
                "{endpoint}" => Segment::Endpoint,
                _ if segment.bytes().all(is_plain) => Segment::Literal(segment.into()),
                _ => return Err(InvalidPrefix::Byte),
            });
        }
        let count = |wanted: &Segment| segments.iter().filter(|segment| *segment == wanted).count();
        if count(&Segment::Id) != 1 {
            return Err(InvalidPrefix::Id);
        }
        if count(&Segment::Endpoint) + usize::from(!endpoints.is_empty()) > 1 {
            return Err(InvalidPrefix::Endpoint);
        }
        Ok(Self { segments, endpoints: endpoints.to_vec(), strip })
    }

    /// The prefixes that apply unless others are configured.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        use EndpointName as E;
        let rows: [(&str, &[E]); 5] = [
            ("/agents/{id}/-/{endpoint}", &[]),
            ("/agents/{id}/a2a", &[E::A2A]),
            ("/agents/{id}/api", &[E::REST, E::A2A]),
            ("/agents/{id}/ui", &[E::UI, E::REST, E::A2A]),
            ("/agents/{id}", &[]),
        ];
        rows.iter().filter_map(|(text, endpoints)| Self::parse(text, endpoints, true).ok()).collect()
    }

    /// The endpoint that the prefix stands for, unless it has a segment for it.
    #[must_use]
    pub fn wanted(&self) -> Wanted<'_> {
        if self.endpoints.is_empty() { Wanted::Default } else { Wanted::FirstOf(&self.endpoints) }
    }

    /// Looks for the prefix at the beginning of a path. It matches whole segments of the path, without the query.
    #[must_use]
    pub fn find<'a>(&self, path: &'a [u8]) -> Option<Matched<'a>> {
        let (mut id, mut endpoint, mut at) = (&[][..], None, 0);
        for segment in &self.segments {
            let rest = path.get(at..)?.strip_prefix(b"/")?;
            let len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            let found = rest.get(..len)?;
            match segment {
                Segment::Literal(literal) if literal == found => {}
                Segment::Literal(_) => return None,
                Segment::Id => id = found,
                Segment::Endpoint => endpoint = Some(found),
            }
            at += 1 + len;
        }
        Some(Matched { id, endpoint, len: at })
    }

    /// The prefix of an id, and of an endpoint if the prefix has a segment for one.
    #[must_use]
    pub fn path_of(&self, id: &str, endpoint: EndpointName) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(literal) => path.push_str(&String::from_utf8_lossy(literal)),
                Segment::Id => path.push_str(id),
                Segment::Endpoint => path.push_str(endpoint.as_str()),
            }
        }
        path
    }

    /// The literal text that every path with this prefix begins with, such as `/agents/`.
    #[must_use]
    pub fn literal_start(&self) -> String {
        let literals = self.segments.iter().map_while(|segment| match segment {
            Segment::Literal(literal) => Some(String::from_utf8_lossy(literal)),
            Segment::Id | Segment::Endpoint => None,
        });
        literals.fold("/".to_owned(), |start, literal| format!("{start}{literal}/"))
    }
}

/// Unreserved characters, sub-delimiters, `:` and `@` (RFC 3986, 3.3): what a segment holds without being encoded. But no `;`, which would end
/// the path of a cookie.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write!(f, "/{}", String::from_utf8_lossy(literal))?,
                Segment::Id => f.write_str("/{id}")?,
                Segment::Endpoint => f.write_str("/{endpoint}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for InvalidPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segments => "must be segments, each after a /, such as /agents/{id}/a2a",
            Self::Id => "must have the segment {id} exactly once",
            Self::Endpoint => "must have either one segment {endpoint} or a list of endpoints, or neither",
            Self::Byte => {
                "holds a character that is not allowed in a segment; allowed are A-Z a-z 0-9 - . _ ~ ! $ & ' ( ) * + , = : @"
            }
        })
    }
}

impl std::error::Error for InvalidPrefix {}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn takes_literals_an_id_and_an_endpoint() {
        for text in ["/{id}", "/agents/{id}", "/v1/agents/{id}/-/{endpoint}", "/{endpoint}/{id}", "/a,b/{id}/c:@"] {
            let prefix = PathPrefix::parse(text, &[], true).expect(text);
            assert_eq!(prefix.to_string(), text);
        }
        assert_eq!(PathPrefix::defaults().len(), 5);
    }

    #[test]
    fn rejects_everything_else() {
        for (text, error) in [
            ("", InvalidPrefix::Segments),
            ("agents/{id}", InvalidPrefix::Segments),
            ("/agents/{id}/", InvalidPrefix::Segments),
            ("/agents//{id}", InvalidPrefix::Segments),
            ("/agents", InvalidPrefix::Id),
            ("/{id}/{id}", InvalidPrefix::Id),
            ("/{id}/{endpoint}/{endpoint}", InvalidPrefix::Endpoint),
            ("/{id}/x{id}", InvalidPrefix::Byte),
            ("/a%20b/{id}", InvalidPrefix::Byte),
            ("/a b/{id}", InvalidPrefix::Byte),
            ("/{id}?x", InvalidPrefix::Byte),
            ("/{id}/#", InvalidPrefix::Byte),
            ("/a;b/{id}", InvalidPrefix::Byte),
        ] {
            assert_eq!(PathPrefix::parse(text, &[], true), Err(error), "{text}");
        }
        let both = PathPrefix::parse("/{id}/{endpoint}", &[EndpointName::A2A], true);
        assert_eq!(both, Err(InvalidPrefix::Endpoint));
    }

    /// The list is read from the message itself, so that it says what is allowed, and no more.
    #[test]
    fn the_message_names_what_a_segment_may_hold() {
        let message = InvalidPrefix::Byte.to_string();
        let (_, list) = message.split_once("allowed are ").expect("a list");
        let mut named = Vec::new();
        for item in list.split(' ') {
            match item.as_bytes() {
                [byte] => named.push(*byte),
                [first, b'-', last] => named.extend(*first..=*last),
                _ => panic!("{item}"),
            }
        }
        named.sort_unstable();
        let allowed: Vec<u8> = (0..=u8::MAX).filter(|byte| is_plain(*byte)).collect();
        assert_eq!(named, allowed);
        for byte in 0..=u8::MAX {
            let Ok(text) = String::from_utf8(vec![b'/', byte, b'/', b'{', b'i', b'd', b'}']) else { continue };
            let parsed = PathPrefix::parse(&text, &[], true);
            let error = if byte == b'/' { InvalidPrefix::Segments } else { InvalidPrefix::Byte };
            assert_eq!(parsed.err(), (!is_plain(byte)).then_some(error), "{text:?}");
        }
    }

    #[test]
    fn tells_the_literal_start() {
        for (text, start) in [("/{id}", "/"), ("/agents/{id}/a2a", "/agents/"), ("/v1/agents/{id}", "/v1/agents/")] {
            assert_eq!(PathPrefix::parse(text, &[], true).expect(text).literal_start(), start);
        }
    }
}
