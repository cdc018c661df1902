//! The contract as a small model, written without the filter's code.

use pixell_core::rejection::GrpcStatus;

use crate::request::Request;

/// A route: id, port, whether it is draining, further endpoints.
pub(crate) type Entry = (&'static str, u16, bool, &'static [(&'static str, u16)]);

/// The routes.
pub(crate) const ROUTES: [Entry; 4] = [
    ("a", 1000, false, &[("rest", 1001), ("ui", 1002)]),
    ("b", 2000, false, &[]),
    ("c", 3000, false, &[("ui", 3001), ("x-1", 3002)]),
    ("d", 4000, true, &[("rest", 4001)]),
];

/// A prefix of paths: its segments, the endpoints that it stands for (none: the default), whether it is removed.
pub(crate) type Prefix = (&'static [&'static str], &'static [&'static str], bool);

/// The contract's table.
pub(crate) const DEFAULTS: [Prefix; 5] = [
    (&["agents", "{id}", "-", "{endpoint}"], &[], true),
    (&["agents", "{id}", "a2a"], &["a2a"], true),
    (&["agents", "{id}", "api"], &["rest", "a2a"], true),
    (&["agents", "{id}", "ui"], &["ui", "rest", "a2a"], true),
    (&["agents", "{id}"], &[], true),
];

/// Others: with an endpoint that has no substitute, kept prefixes, and the id behind the endpoint.
pub(crate) const OTHERS: [Prefix; 4] = [
    (&["ui", "{id}"], &["ui"], false),
    (&["e", "{endpoint}", "{id}"], &[], false),
    (&["agents", "{id}", "api"], &["x-1", "rest"], true),
    (&["agents", "{id}"], &[], false),
];

/// A configuration, as the model reads it.
pub(crate) struct Settings {
    pub(crate) text: &'static str,
    pub(crate) id_headers: &'static [&'static str],
    pub(crate) prefixes: &'static [Prefix],
    pub(crate) suffix: Option<&'static str>,
    pub(crate) fallback: Option<u16>,
}

pub(crate) const SETTINGS: [Settings; 4] = [
    Settings {
        text: r#"{"role":"router"}"#,
        id_headers: &["x-deployment-id", "deployment-id", "deployment_id"],
        prefixes: &DEFAULTS,
        suffix: None,
        fallback: None,
    },
    Settings {
        text: r#"{"role":"router","id_headers":["other","x-deployment-id"],"host_suffix":".h.test"}"#,
        id_headers: &["other", "x-deployment-id"],
        prefixes: &DEFAULTS,
        suffix: Some(".h.test"),
        fallback: None,
    },
    Settings {
        text: r#"{"role":"router","id_headers":[],"host_suffix":".h.test","fallback_port":9000,"path_prefixes":[
            {"prefix":"/ui/{id}","endpoints":["ui"],"strip":false},{"prefix":"/e/{endpoint}/{id}","strip":false},
            {"prefix":"/agents/{id}/api","endpoints":["x-1","rest"]},{"prefix":"/agents/{id}","strip":false}]}"#,
        id_headers: &[],
        prefixes: &OTHERS,
        suffix: Some(".h.test"),
        fallback: Some(9000),
    },
    Settings {
        text: r#"{"role":"router","path_prefixes":[]}"#,
        id_headers: &["x-deployment-id", "deployment-id", "deployment_id"],
        prefixes: &[],
        suffix: None,
        fallback: None,
    },
];

/// What must become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The agent gets it: at this port, as this id, with this path and value of `x-forwarded-prefix`. `is_addressed`: not by a header.
    Forward { port: u16, id: Vec<u8>, path: Vec<u8>, prefix: Option<Vec<u8>>, is_addressed: bool },
    /// The client gets this code.
    Reject(&'static str),
}

/// The contract, sections 4.1 and 4.2. The second value names the row that applied.
pub(crate) fn model(settings: &Settings, request: &Request) -> (Expected, String) {
    let header =
        settings.id_headers.iter().find_map(|name| Some((name, request.headers.get(name).filter(|id| !id.is_empty())?)));
    let (path, query) = match request.path.iter().position(|byte| *byte == b'?') {
        Some(at) => request.path.split_at(at),
        None => (&request.path[..], &[][..]),
    };
    let segments: Vec<&[u8]> = path.strip_prefix(b"/").map_or_else(Vec::new, |rest| rest.split(|byte| *byte == b'/').collect());
    let matches = |prefix: &&Prefix| {
        let same = |(text, found): (&&str, &&[u8])| text.starts_with('{') || text.as_bytes() == *found;
        prefix.0.len() <= segments.len() && prefix.0.iter().zip(&segments).all(same)
    };
    let mut forwarded = (request.path.clone(), None);
    let (row, id, wanted): (_, &[u8], Vec<&[u8]>) = if let Some((name, value)) = header {
        // Equal values are one.
        let mut values: Vec<_> = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
        values.dedup();
        ((*name).to_owned(), if let [one] = values[..] { one } else { b"" }, Vec::new())
    } else if let Some((names, endpoints, strip)) = settings.prefixes.iter().find(matches) {
        let found = |name| names.iter().position(|text| *text == name).map(|at| segments[at]);
        if *strip {
            let (prefix, rest) = segments.split_at(names.len());
            let join =
                |segments: &[&[u8]]| segments.iter().fold(Vec::new(), |path, segment| [&path[..], b"/", segment].concat());
            let rest = if rest.is_empty() { b"/".to_vec() } else { join(rest) };
            forwarded = ([&rest, query].concat(), Some(join(prefix)));
        }
        let wanted = match found("{endpoint}") {
            Some(endpoint) => vec![endpoint],
            None => endpoints.iter().map(|name| name.as_bytes()).collect(),
        };
        (format!("/{}", names.join("/")), found("{id}").unwrap(), wanted)
    } else if let Some(id) = settings.suffix.and_then(|suffix| of_host(&request.authority, suffix)) {
        ("host".to_owned(), id, Vec::new())
    } else {
        return (Expected::Reject("missing_deployment_id"), "nothing".to_owned());
    };
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    if !(1..=128).contains(&id.len()) || !id.iter().all(allowed) {
        return (Expected::Reject("invalid_deployment_id"), row);
    }
    let port = match ROUTES.iter().find(|route| route.0.as_bytes() == id) {
        None => settings.fallback.ok_or("unknown_deployment"),
        Some((_, _, true, _)) => Err("deployment_draining"),
        Some((_, a2a, false, endpoints)) => {
            let port = |name: &[u8]| match name {
                b"a2a" => Some(*a2a),
                _ => endpoints.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, port)| *port),
            };
            match wanted[..] {
                [] if is_grpc(request) => Ok(*a2a),
                [] => Ok(port(b"rest").unwrap_or(*a2a)),
                [..] => wanted.iter().find_map(|name| port(name)).ok_or("unknown_endpoint"),
            }
        }
    };
    let (path, prefix) = forwarded;
    let forward = |port| Expected::Forward { port, id: id.to_vec(), path, prefix, is_addressed: header.is_none() };
    (port.map_or_else(Expected::Reject, forward), row)
}

/// The id before the suffix of a host. Hosts are compared without regard to case, and a port does not belong to them.
pub(crate) fn of_host<'a>(authority: &'a [u8], suffix: &str) -> Option<&'a [u8]> {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let host = &authority[..authority.len() - digits];
    let host = host.strip_suffix(b":").unwrap_or(authority);
    let end = host.len().checked_sub(suffix.len())?;
    (end > 0 && host[end..].to_ascii_lowercase() == suffix.as_bytes()).then(|| &host[..end])
}

/// `application/grpc`, alone or followed by `+` or a parameter.
pub(crate) fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers.get("content-type").map(|value| String::from_utf8(value.clone()).unwrap());
    let essence = content_type.as_deref().and_then(|value| value.split(';').next()).unwrap_or_default().trim_end().to_owned();
    essence == "application/grpc" || essence.starts_with("application/grpc+")
}

/// HTTP and gRPC status of a rejection: the contract, section 4.2.
pub(crate) fn statuses(code: &str) -> (u16, GrpcStatus) {
    match code {
        "missing_deployment_id" | "invalid_deployment_id" => (400, GrpcStatus::InvalidArgument),
        "unknown_deployment" | "unknown_endpoint" => (404, GrpcStatus::NotFound),
        "deployment_draining" => (503, GrpcStatus::Unavailable),
        other => panic!("{other}"),
    }
}
