//! The declarations of src/abi.rs and src/abi/calls.rs against abi.txt, the list of what Envoy's header says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};

use pixell_native::abi::{Buffer, HttpHeader};
use pixell_native::abi_types::{Attribute, DataStatus, LogLevel, Status};

const LIST: &str = include_str!("../abi.txt");
const SOURCE: &str = concat!(include_str!("../src/abi.rs"), include_str!("../src/abi/calls.rs"));

/// Functions by kind and name; what they take and return as Rust has it.
type Functions = BTreeMap<(String, String), String>;

/// The words of the list's entries of this kind: a name, and what the list says about it.
fn entries(kind: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    // A line that is indented continues the one above it.
    let starts = LIST.match_indices('\n').map(|(end, _)| &LIST[end + 1..]).filter(|rest| !rest.starts_with(' '));
    let of_kind = starts.filter_map(move |rest| rest.strip_prefix(kind)?.strip_prefix(' '));
    of_kind.map(|rest| {
        let end =
            rest.match_indices('\n').map(|(end, _)| end).find(|end| !rest[end + 1..].starts_with(' ')).unwrap_or(rest.len());
        rest[..end].split_once([' ', '(']).unwrap()
    })
}

fn entry(kind: &str, name: &str) -> Option<&'static str> {
    entries(kind).find(|(known, _)| *known == name).map(|(_, rest)| rest)
}

/// The Rust type for a C type of the list.
fn rust_type(c: &str) -> String {
    if let Some(pointer) = entry("pointer", c) {
        return rust_type(pointer);
    }
    if entry("enum", c).is_some() {
        let status = c.strip_prefix("on_http_filter_").and_then(|rest| rest.strip_suffix("_status"));
        let name = status.map_or("u32", |of| if of.ends_with("_body") { "DataStatus" } else { "Status" });
        return name.into();
    }
    match c {
        "bool" => "bool".into(),
        "size_t" => "usize".into(),
        "uint32_t" => "u32".into(),
        "uint64_t" => "u64".into(),
        "void*" => "Ptr".into(),
        "const void*" => "*const c_void".into(),
        "const char*" => "*const c_char".into(),
        "module_buffer" | "envoy_buffer" => "Buffer".into(),
        "module_http_header" | "envoy_http_header" => "HttpHeader".into(),
        other => {
            let of = other.strip_suffix('*').unwrap_or_else(|| panic!("what is {other} in Rust?"));
            of.strip_prefix("const ")
                .map_or_else(|| format!("*mut {}", rust_type(of)), |of| format!("*const {}", rust_type(of)))
        }
    }
}

/// The parts of `name(a, b) -> c`.
fn signature(text: &str) -> (String, Vec<String>, String) {
    let (name, rest) = text.split_once('(').unwrap();
    let (arguments, rest) = rest.split_once(')').unwrap();
    let arguments = arguments.split(',').map(str::trim).filter(|argument| !argument.is_empty()).map(str::to_owned).collect();
    let result = rest.trim().trim_start_matches("->").trim_end_matches(['{', ';']).trim();
    (name.trim().to_owned(), arguments, result.to_owned())
}

fn listed() -> Functions {
    let functions = ["callback", "hook"].into_iter().flat_map(|kind| entries(kind).map(move |(name, rest)| (kind, name, rest)));
    let typed = functions.map(|(kind, name, rest)| {
        let (name, arguments, result) = signature(&format!("{name}({rest}"));
        let arguments: Vec<_> = arguments.iter().map(|c| rust_type(c)).collect();
        let result = if result.is_empty() { result } else { rust_type(&result) };
        ((kind.to_owned(), name), format!("({}) -> {result}", arguments.join(", ")))
    });
    typed.collect()
}

/// What the blocks of the three macros declare.
fn declared() -> Functions {
    let mut functions = Functions::new();
    for (start, kind) in [("\ncallbacks! {\n", "callback"), ("\nhooks! {\n", "hook"), ("\nidle_hooks! {\n", "hook")] {
        let (_, block) = SOURCE.split_once(start).unwrap();
        let (block, _) = block.split_once("\n}\n").unwrap();
        for line in block.lines().filter_map(|line| line.strip_prefix("    fn ")) {
            let (name, arguments, result) = signature(line);
            let types: Vec<_> = arguments
                .iter()
                .map(|argument| argument.split_once(": ").map_or(argument.as_str(), |(_, kind)| kind))
                .collect();
            functions.insert((kind.to_owned(), name), format!("({}) -> {result}", types.join(", ")));
        }
    }
    functions
}

#[test]
fn every_declaration_is_the_one_of_the_list() {
    let (listed, declared) = (listed(), declared());
    assert!(listed.len() > 40, "{listed:#?}");
    assert_eq!(declared, listed);
}

/// All fields are as large as a pointer.
#[test]
fn every_struct_has_the_fields_of_the_list() {
    let buffer = [("ptr", offset_of!(Buffer, ptr)), ("length", offset_of!(Buffer, length))];
    let part =
        |of: &str, at: usize| buffer.iter().map(|(name, offset)| (format!("{of}_{name}"), at + offset)).collect::<Vec<_>>();
    let header = [part("key", offset_of!(HttpHeader, key)), part("value", offset_of!(HttpHeader, value))].concat();
    let buffer: Vec<_> = buffer.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect();
    let mut seen = 0;
    for (name, fields) in entries("struct") {
        let (size, mut ours) = match name {
            "module_buffer" | "envoy_buffer" => (size_of::<Buffer>(), buffer.clone()),
            "module_http_header" | "envoy_http_header" => (size_of::<HttpHeader>(), header.clone()),
            other => panic!("what is {other} in Rust?"),
        };
        ours.sort_by_key(|(_, offset)| *offset);
        let listed: Vec<_> =
            fields.split(' ').enumerate().map(|(n, field)| (field.to_owned(), n * size_of::<usize>())).collect();
        assert_eq!((ours, size), (listed.clone(), listed.len() * size_of::<usize>()), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}

/// The list has to be compared with the header when Envoy's release changes: then this fails until its second line names the new release.
#[test]
fn the_list_is_about_the_release_that_ships() {
    let manifest = include_str!("../../../Cargo.toml");
    let (_, ships) = manifest.split_once("\n[workspace.metadata.pixell]\n").unwrap();
    let (ships, _) = ships.split_once("\nenvoy = \"").unwrap().1.split_once('"').unwrap();
    let (_, compared) = LIST.lines().nth(1).unwrap().split_once("the header of Envoy ").unwrap();
    assert_eq!(compared.split_once(' ').unwrap().0, ships);
}

/// The number of a constant of src/abi/calls.rs.
fn constant(name: &str) -> u32 {
    let line = SOURCE.lines().find_map(|line| line.strip_prefix("const ")?.strip_prefix(name)?.strip_prefix(": u32 = "));
    line.unwrap_or_else(|| panic!("{name} is not there")).trim_end_matches(';').parse().unwrap()
}

#[test]
fn every_number_is_the_one_of_the_list() {
    let headers = "on_http_filter_request_headers_status";
    let body = "on_http_filter_request_body_status";
    let numbers = [
        ("log_level", "Info", LogLevel::Info as u32),
        ("log_level", "Warn", LogLevel::Warn as u32),
        ("log_level", "Error", LogLevel::Error as u32),
        ("metrics_result", "Success", constant("METRIC_SUCCESS")),
        ("http_header_type", "RequestHeader", constant("REQUEST_HEADER")),
        ("http_header_type", "ResponseHeader", constant("RESPONSE_HEADER")),
        ("http_header_type", "ResponseTrailer", constant("RESPONSE_TRAILER")),
        ("http_body_type", "ReceivedRequestBody", constant("RECEIVED_REQUEST_BODY")),
        ("http_body_type", "BufferedRequestBody", constant("BUFFERED_REQUEST_BODY")),
        ("http_body_type", "ReceivedResponseBody", constant("RECEIVED_RESPONSE_BODY")),
        ("http_body_type", "BufferedResponseBody", constant("BUFFERED_RESPONSE_BODY")),
        ("attribute_id", "ResponseCode", Attribute::ResponseCode as u32),
        ("attribute_id", "ResponseCodeDetails", Attribute::ResponseCodeDetails as u32),
        ("attribute_id", "UpstreamAddress", Attribute::UpstreamAddress as u32),
        ("attribute_id", "UpstreamLocalAddress", Attribute::UpstreamLocalAddress as u32),
        (headers, "Continue", Status::Continue as u32),
        (headers, "StopIteration", Status::Stop as u32),
        (body, "Continue", DataStatus::Continue as u32),
        (body, "StopIterationAndBuffer", DataStatus::StopAndKeep as u32),
        (body, "StopIterationNoBuffer", DataStatus::StopAndDrop as u32),
    ];
    for (kind, name, ours) in numbers {
        let names = entry("enum", kind).unwrap_or_else(|| panic!("the list has no enum {kind}"));
        let place = names.split_whitespace().position(|other| other == name);
        assert_eq!(place, Some(ours as usize), "{kind} {name}");
    }
    // One Rust type stands for the statuses of headers and trailers of both directions, and one for those of bodies.
    for (of, like) in
        [("response_headers", headers), ("request_trailers", headers), ("response_trailers", headers), ("response_body", body)]
    {
        let names = entry("enum", &format!("on_http_filter_{of}_status")).unwrap();
        assert!(entry("enum", like).unwrap().starts_with(names), "{of}");
    }
    // No number of ours is missing above.
    let ours = |text: &str, is_number: fn(&&str) -> bool| text.lines().filter(is_number).count();
    let constants = ours(SOURCE, |line| line.starts_with("const ") && line.contains(": u32 = "));
    let variants = ours(include_str!("../src/abi_types.rs"), |line| line.starts_with("    ") && line.contains(" = "));
    assert_eq!(constants + variants, numbers.len());
}
