//! JSON text to values and back, with duplicate keys kept apart.
//!
//! `serde_json::Value` lets the last of two equal keys win in silence; the author of the first one would never learn of it.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value; an object keeps its members as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number that is whole and from 0 to 2^53; a zero fraction does not matter, 1.0 is 1 (JSON Schema 2020-12, 4.2.2).
    Integer(u64),
    /// Any other number. Nothing here has a use for one, so its value is not kept: printing it would cost the module 20 KiB.
    OtherNumber,
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object's members in the order of the text, duplicates included.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses JSON text (RFC 8259), nested at most 127 deep.
    ///
    /// # Errors
    /// [`MalformedJson`] says where the text stops being JSON.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedJson> {
        serde_json::from_slice(text).map_err(|error| {
            let position = format!(" at line {} column {}", error.line(), error.column());
            let full = error.to_string();
            let reason = full.strip_suffix(&position).unwrap_or(&full).to_owned();
            let (line, column) = (number(error.line()), number(error.column()));
            MalformedJson { line, column, reason }
        })
    }

    /// What kind of value this is, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "a number",
            Self::OtherNumber => "a negative, fractional or huge number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// The value as an integer from 0 to 2^53.
    #[must_use]
    pub const fn as_integer(&self) -> Option<u64> {
        match self {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }
}

impl fmt::Display for Json {
    /// A short form for messages: scalars as they are, containers by kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::String(value) if value.chars().count() <= 64 => f.write_str(&quote(value)),
            Self::String(value) => write!(f, "a string of {} bytes", value.len()),
            other => f.write_str(other.kind()),
        }
    }
}

/// A string as JSON text, with its quotation marks.
#[must_use]
pub fn quote(text: &str) -> String {
    // Serialising a string into memory cannot fail; an empty string stands for the impossible.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

/// Appends a reference token to a JSON pointer (RFC 6901).
#[must_use]
pub fn pointer(parent: &str, token: &str) -> String {
    format!("{parent}/{}", token.replace('~', "~0").replace('/', "~1"))
}

fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Text that is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedJson {
    /// Line of the error, from 1; 0 if the error has no place.
    pub line: u32,
    /// Column of the error in bytes, from 1; 0 before the first byte of a line.
    pub column: u32,
    /// What was wrong there.
    pub reason: String,
}

impl fmt::Display for MalformedJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {}, column {}", self.reason, self.line, self.column)
    }
}

impl std::error::Error for MalformedJson {}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

/// Up to here every integer is exact in any JSON implementation (RFC 8259, 6).
const LARGEST: u64 = 1 << 53;

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(if value <= LARGEST { Json::Integer(value) } else { Json::OtherNumber })
    }

    /// The parser gives only negative numbers so.
    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "whole and within 0 to 2^53, both just checked"
    )]
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        let whole = value.fract() == 0.0 && (0.0..=LARGEST as f64).contains(&value);
        Ok(if whole { Json::Integer(value as u64) } else { Json::OtherNumber })
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn keeps_duplicate_keys() {
        let parsed = Json::parse(br#"{"a":1,"a":"b"}"#).expect("valid");
        let members = vec![("a".to_owned(), Json::Integer(1)), ("a".to_owned(), Json::String("b".to_owned()))];
        assert_eq!(parsed, Json::Object(members));
    }

    #[test]
    fn says_where_text_stops_being_json() {
        #[track_caller]
        fn check(text: &str, line: u32, column: u32) {
            let error = Json::parse(text.as_bytes()).expect_err("malformed");
            assert_eq!((error.line, error.column), (line, column), "{error}");
        }
        check("{\n  \"a\": 1,\n  oops\n}", 3, 3);
        check("", 1, 0);
        check("{}x", 1, 3);
        check("1e999", 1, 5);
        let deep = "[".repeat(5_000_000);
        assert_eq!(Json::parse(deep.as_bytes()).expect_err("too deep").reason, "recursion limit exceeded");
        assert!(Json::parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn integers_are_whole_numbers() {
        let integer = |text: &str| Json::parse(text.as_bytes()).expect("valid").as_integer();
        assert_eq!(integer("50054"), Some(50054));
        assert_eq!(integer("50054.0"), Some(50054));
        assert_eq!(integer("0"), Some(0));
        assert_eq!(integer("-1"), None);
        assert_eq!(integer("1.5"), None);
        assert_eq!(integer("1e300"), None);
        assert_eq!(integer("9007199254740992"), Some(1 << 53));
        assert_eq!(integer("9007199254740993"), None);
        assert_eq!(integer("18446744073709551616"), None);
        assert_eq!(integer("\"1\""), None);
    }

    #[test]
    fn messages_show_a_short_value_and_the_kind_of_a_long_one() {
        #[track_caller]
        fn check(text: &str, shown: &str, kind: &str) {
            let value = Json::parse(text.as_bytes()).expect("valid");
            assert_eq!((value.to_string().as_str(), value.kind()), (shown, kind));
        }
        check("null", "null", "null");
        check("true", "true", "a boolean");
        check("50054", "50054", "a number");
        check("-1", "a negative, fractional or huge number", "a negative, fractional or huge number");
        check("[1]", "an array", "an array");
        check("{}", "an object", "an object");
        let longest = format!("\"{}\"", "ä".repeat(64));
        check(&longest, &longest, "a string");
        check(&format!("\"{}\"", "ä".repeat(65)), "a string of 130 bytes", "a string");
        let error = Json::parse(b"{\n]").expect_err("malformed");
        assert_eq!(error.to_string(), "key must be a string at line 2, column 1");
    }

    #[test]
    fn escapes_pointers_and_strings() {
        assert_eq!(pointer("/routes", "a/b~c"), "/routes/a~1b~0c");
        assert_eq!(quote("a\"\u{1}"), r#""a\"\u0001""#);
    }
}
