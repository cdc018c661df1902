//! Entity tags and the preconditions made of them (RFC 9110, 8.8.3 and 13.1).

use super::code::Code;
use crate::problem::Problem;
use crate::store::Version;

impl Version {
    /// The epoch as the API shows it: 16 hexadecimal digits, or `0` without a map.
    #[must_use]
    pub fn epoch_text(self) -> String {
        if self.epoch == 0 { "0".to_owned() } else { format!("{:016x}", self.epoch) }
    }

    /// What stands between the quotes of an entity tag: `<epoch>-<generation>`, without a map `0-0`.
    #[must_use]
    pub fn tag(self) -> String {
        format!("{}-{}", self.epoch_text(), self.generation)
    }

    /// The value of the `ETag` header.
    #[must_use]
    pub fn etag(self) -> String {
        format!("\"{}\"", self.tag())
    }
}

/// `If-Match` and `If-None-Match` of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: any map at all.
    Any,
    /// The listed ones.
    List(Vec<Tag>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    text: String,
}

impl Preconditions {
    /// Parses the two headers.
    ///
    /// # Errors
    /// 400 `invalid_precondition` if one is no list of entity tags: ignoring it would be writing without the condition.
    pub fn parse(if_match: Option<&[u8]>, if_none_match: Option<&[u8]>) -> Result<Self, Problem> {
        Ok(Self { if_match: parse("If-Match", if_match)?, if_none_match: parse("If-None-Match", if_none_match)? })
    }

    /// Whether `If-Match` lets a request through at this version (strong comparison).
    #[must_use]
    pub fn if_match_holds(&self, now: Version) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.include(now, |tag| !tag.weak))
    }

    /// Whether `If-None-Match` lets a request through at this version (weak comparison).
    #[must_use]
    pub fn if_none_match_holds(&self, now: Version) -> bool {
        self.if_none_match.as_ref().is_none_or(|tags| !tags.include(now, |_| true))
    }
}

impl Tags {
    fn include(&self, now: Version, counts: impl Fn(&Tag) -> bool) -> bool {
        match self {
            Self::Any => now != Version::default(),
            Self::List(tags) => {
                let now = now.tag();
                tags.iter().any(|tag| counts(tag) && tag.text == now)
            }
        }
    }
}

fn parse(name: &str, header: Option<&[u8]>) -> Result<Option<Tags>, Problem> {
    let Some(header) = header else { return Ok(None) };
    let tags = if header.trim_ascii() == b"*" { Some(Tags::Any) } else { parse_list(header).map(Tags::List) };
    tags.map(Some).ok_or_else(|| {
        let detail =
            format!("{name} must be * or quoted entity tags as ETag gives them, such as {name}: \"0123456789abcdef-7\"");
        Code::InvalidPrecondition.problem(detail)
    })
}

/// Entity tags with commas between them, at least one. A tag itself may hold commas.
fn parse_list(header: &[u8]) -> Option<Vec<Tag>> {
    let mut tags = Vec::new();
    let mut rest = header.trim_ascii();
    loop {
        let (weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |quoted| (true, quoted));
        let opaque = quoted.strip_prefix(b"\"")?;
        let end = opaque.iter().position(|byte| *byte == b'"')?;
        let text = std::str::from_utf8(opaque.get(..end)?).ok()?.to_owned();
        tags.push(Tag { weak, text });
        rest = opaque.get(end + 1..)?.trim_ascii_start();
        if rest.is_empty() {
            return Some(tags);
        }
        rest = rest.strip_prefix(b",")?.trim_ascii_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: Version = Version { epoch: 0xabc, generation: 7 };
    const NONE: Version = Version { epoch: 0, generation: 0 };

    #[test]
    fn writes_versions() {
        assert_eq!(NOW.etag(), "\"0000000000000abc-7\"");
        assert_eq!(NONE.etag(), "\"0-0\"");
    }

    #[test]
    fn compares_with_the_map_as_it_is() {
        #[track_caller]
        fn check(header: &str, now: Version, if_match: bool, if_none_match: bool) {
            let header = Some(header.as_bytes());
            let parsed = Preconditions::parse(header, header).expect("valid");
            assert_eq!((parsed.if_match_holds(now), parsed.if_none_match_holds(now)), (if_match, if_none_match));
        }
        check("\"0000000000000abc-7\"", NOW, true, false);
        check("W/\"0000000000000abc-7\"", NOW, false, false);
        check("\"x\", \"0000000000000abc-7\"", NOW, true, false);
        check("\"0000000000000abc-7\" ,W/\"x,y\"", NOW, true, false);
        check("\",0000000000000abc-7,\"", NOW, false, true);
        check("\"0000000000000abc-6\"", NOW, false, true);
        check("\"0-0\"", NOW, false, true);
        check("\"0-0\"", NONE, true, false);
        check("*", NOW, true, false);
        check("*", NONE, false, true);
        let neither = Preconditions::parse(None, None).expect("valid");
        assert!(neither.if_match_holds(NOW) && neither.if_none_match_holds(NOW));
    }

    #[test]
    fn rejects_what_is_not_a_list_of_tags() {
        for header in ["", "abc-7", "\"a", "\"a\",", "\"a\" \"b\"", "w/\"a\"", "\"\u{e9}\" x"] {
            let problem = Preconditions::parse(Some(header.as_bytes()), None).expect_err(header);
            assert_eq!((problem.status, problem.code), (400, "invalid_precondition"));
            assert!(problem.detail.contains("If-Match"));
        }
        assert!(Preconditions::parse(None, Some(b"\xff")).is_err());
    }
}
