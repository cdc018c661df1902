//! The members that say how a request without a header names its agent.

use crate::addressing::prefix::PathPrefix;
use crate::endpoint::EndpointName;
use crate::fields::Fields;
use crate::json::{Json, pointer};
use crate::problem::{FieldError, FieldErrors};

/// Prefixes as `{"prefix": "/agents/{id}/api", "endpoints": ["rest", "a2a"], "strip": false}`, or the prefix alone.
pub(super) fn path_prefixes(fields: &mut Fields<'_, '_>) -> Vec<PathPrefix> {
    let list = match fields.take("path_prefixes") {
        None => return PathPrefix::defaults(),
        Some(Json::Array(list)) => list,
        Some(other) => {
            fields.error("path_prefixes", format!("must be a list of path prefixes, got {other}"));
            return Vec::new();
        }
    };
    let parent = "/path_prefixes";
    let parse = |(number, json): (usize, &Json)| path_prefix(json, &pointer(parent, &number.to_string()), fields.errors());
    list.iter().enumerate().filter_map(parse).collect()
}

fn path_prefix(json: &Json, at: &str, errors: &mut FieldErrors) -> Option<PathPrefix> {
    let (text, endpoints, strip) = if let Json::String(text) = json {
        (Some(text), None, None)
    } else {
        let mut fields = Fields::of(json, at, errors);
        let text = match fields.take("prefix") {
            Some(Json::String(text)) => Some(text),
            Some(other) => {
                fields.error("prefix", format!("must be a path such as /agents/{{id}}/a2a, got {other}"));
                None
            }
            None => {
                fields.error("prefix", "is missing");
                None
            }
        };
        let (endpoints, strip) = (fields.take("endpoints"), fields.take("strip"));
        fields.reject_the_rest();
        (text, endpoints, strip)
    };
    let strip = match strip {
        None => true,
        Some(Json::Bool(strip)) => *strip,
        Some(other) => {
            errors.add(|| FieldError::new(pointer(at, "strip"), format!("must be true or false, got {other}")));
            true
        }
    };
    let endpoints = match endpoints {
        None => Some(Vec::new()),
        Some(Json::Array(names)) if !names.is_empty() => {
            let name =
                |json: &Json| if let Json::String(name) = json { EndpointName::parse(name.as_bytes()).ok() } else { None };
            names.iter().map(name).collect()
        }
        Some(_) => None,
    };
    if endpoints.is_none() {
        errors.add(|| {
            FieldError::new(pointer(at, "endpoints"), "must be a list of at least one endpoint name, such as \"rest\"")
        });
    }
    match PathPrefix::parse(text?, &endpoints?, strip) {
        Ok(prefix) => Some(prefix),
        Err(error) => {
            errors.add(|| FieldError::new(at, error.to_string()));
            None
        }
    }
}

pub(super) fn host_suffix(fields: &mut Fields<'_, '_>) -> Option<String> {
    let json = fields.take("host_suffix")?;
    if let Json::String(suffix) = json
        && suffix.starts_with('.')
        && suffix.split('.').skip(1).all(is_host_label)
    {
        return Some(suffix.clone());
    }
    fields
        .error("host_suffix", format!("must be a dot and a host name in lower case, such as .agents.example.com, got {json}"));
    None
}

/// A label of a host name (RFC 1123, 2.1), in lower case.
fn is_host_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
}
