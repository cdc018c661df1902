//! The declarations of src/abi.rs and src/abi/calls.rs against abi.txt, the list of what Envoy's header says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]

use std::collections::BTreeMap;

const LIST: &str = include_str!("../abi.txt");
const SOURCE: &str = concat!(include_str!("../src/abi.rs"), include_str!("../src/abi/calls.rs"));
const NUMBERS: &str = include_str!("../src/abi_types.rs");

/// Functions by kind and name; what they take and return as Rust has it.
type Functions = BTreeMap<(String, String), String>;

/// The Rust type for a C type of the list, whose name tells what it is in C.
fn rust_type(c: &str) -> String {
    let pointer = |of: &str| format!("*mut {}", rust_type(of));
    match c {
        "bool" => "bool".into(),
        "size_t" => "usize".into(),
        "uint32_t" => "u32".into(),
        "uint64_t" => "u64".into(),
        "module_buffer" | "envoy_buffer" => "Buffer".into(),
        "module_http_header" => "ModuleHttpHeader".into(),
        // Only passed by idle hooks, which do not look into them.
        "envoy_http_header*" => "Ptr".into(),
        "const envoy_buffer*" => "*const c_void".into(),
        "abi_version_module_ptr" => "*const c_char".into(),
        "http_filter_envoy_ptr" | "http_filter_config_envoy_ptr" | "http_filter_scheduler_module_ptr" => "Ptr".into(),
        "http_filter_module_ptr" | "http_filter_config_module_ptr" => "*const c_void".into(),
        "on_http_filter_request_body_status" | "on_http_filter_response_body_status" => "DataStatus".into(),
        status if status.starts_with("on_http_filter_") && status.ends_with("_status") => "Status".into(),
        "log_level" | "http_header_type" | "http_body_type" | "attribute_id" | "metrics_result" => "u32".into(),
        "http_callout_result" | "http_stream_reset_reason" => "u32".into(),
        other => pointer(other.strip_suffix('*').unwrap_or_else(|| panic!("what is {other} in Rust?"))),
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
    let functions = LIST.lines().filter_map(|line| {
        let (kind, rest) = line.split_once(' ')?;
        if !["callback", "hook"].contains(&kind) {
            return None;
        }
        let (name, arguments, result) = signature(rest);
        let arguments: Vec<_> = arguments
            .iter()
            // The idle hook that gets the body of a callout does not look into it.
            .map(|c| match (name.as_str(), c.as_str()) {
                ("http_filter_http_callout_done", "envoy_buffer*") => "Ptr".into(),
                // Two buffers, as in a header of the module's.
                ("http_get_headers", "envoy_http_header*") => rust_type("module_http_header*"),
                (_, c) => rust_type(c),
            })
            .collect();
        let result = if result.is_empty() { result } else { rust_type(&result) };
        Some(((kind.to_owned(), name), format!("({}) -> {result}", arguments.join(", "))))
    });
    functions.collect()
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

#[test]
fn every_number_is_the_one_of_the_list() {
    let number = |text: &str, name: &str| -> String {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix("= "));
        value.unwrap_or_else(|| panic!("{name} is not there")).trim_end_matches([',', ';']).to_owned()
    };
    let (_, data) = NUMBERS.split_once("enum DataStatus").unwrap();
    let (_, status) = NUMBERS.split_once("enum Status").unwrap();
    let mut seen = 0;
    for line in LIST.lines().filter_map(|line| line.strip_prefix("value ")) {
        let [kind, name, value] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let found = match (kind, name) {
            ("http_header_type", "RequestHeader") => number(SOURCE, "const REQUEST_HEADER: u32"),
            ("http_header_type", "ResponseTrailer") => number(SOURCE, "const RESPONSE_TRAILER: u32"),
            ("http_header_type", _) => number(SOURCE, "const RESPONSE_HEADER: u32"),
            ("http_body_type", "ReceivedRequestBody") => number(SOURCE, "const RECEIVED_REQUEST_BODY: u32"),
            ("http_body_type", "BufferedRequestBody") => number(SOURCE, "const BUFFERED_REQUEST_BODY: u32"),
            ("http_body_type", "ReceivedResponseBody") => number(SOURCE, "const RECEIVED_RESPONSE_BODY: u32"),
            ("http_body_type", _) => number(SOURCE, "const BUFFERED_RESPONSE_BODY: u32"),
            ("metrics_result", _) => number(SOURCE, "const METRIC_SUCCESS: u32"),
            ("on_http_filter_request_body_status", "Continue") => number(data, "Continue"),
            ("on_http_filter_request_body_status", "StopIterationAndBuffer") => number(data, "StopAndKeep"),
            ("on_http_filter_request_body_status", _) => number(data, "StopAndDrop"),
            (_, "StopIteration") => number(status, "Stop"),
            (_, name) => number(NUMBERS, name),
        };
        assert_eq!(found, value, "{line}");
        seen += 1;
    }
    assert_eq!(seen, 22);
}
