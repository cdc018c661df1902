//! Adapts the shipped `envoy/envoy.yaml` to this machine: only ports, addresses and paths are replaced.
//!
//! Every text to replace must be found exactly as often as expected. If the shipped file has changed, the error names the text, and no
//! test runs with a file that is only partly adapted.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use launcher::configuration::{ADMIN_PLACE, HTTPS_LINKS};
use launcher::filter::{Filter, Role, to_native};
use launcher::jwt::SOCKET;
use launcher::peers::FILTER_MEMBER;
use launcher::{ADMIN_SOCKET, LAUNCHER_SOCKET};

use super::modules::NATIVE;
use crate::ports;

/// Where the image keeps the modules.
const MODULES: &str = "/usr/local/lib/pixell-envoy";

/// Where the image keeps the rate of the access log.
const LOG_RATE: &str = "/etc/envoy/log-rate.yaml";

/// The first line of the router's item in `http_filters`.
const ROUTER_FILTER: &str = "- name: pixell.router";
/// The first line of the retry filter's item, which is in the agents' first cluster.
const RETRY_FILTER: &str = "- name: pixell.retry";
/// The line that the retry filter needs in the virtual host.
const ATTEMPT_COUNT: &str = "                      include_request_attempt_count: true\n";
/// The first line of the item of the filter of responses, which needs the router's, and what enables it.
const RESPONSES_FILTER: &str = "- &responses_filter";
const ENABLED: [&str; 2] = [
    "                          typed_per_filter_config: &rewritten\n                            pixell.responses: \
     { \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {} }\n",
    "                          typed_per_filter_config: *rewritten\n",
];

/// One change of the text: `from` must be found `times` times and becomes `to`.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// The text to look for.
    pub(super) from: String,
    /// The text that replaces it.
    pub(super) to: String,
    /// How often `from` must be found.
    pub(super) times: usize,
}

impl Edit {
    /// A change of a text that must be found exactly once.
    pub(super) fn once(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self { from: from.into(), to: to.into(), times: 1 }
    }

    fn apply(&self, text: &str) -> Result<String> {
        let found = text.matches(&self.from).count();
        if found != self.times {
            bail!("envoy.yaml holds {:?} {found} times, not {}", self.from, self.times);
        }
        Ok(text.replace(&self.from, &self.to))
    }
}

/// The change that moves a file beside the configuration, which the image has at `path`, and which `edits` name.
pub(super) fn move_file(path: &str, to: &Path, edits: &[Edit]) -> Edit {
    let from = format!("path: {path} ");
    let times = edits.iter().map(|edit| edit.to.matches(&from).count()).sum();
    Edit { to: format!("path: {} ", quoted(to.display())), from, times }
}

/// What differs between the image and a run on this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The address that all listeners bind.
    pub(super) bind: IpAddr,
    /// The data path's port; 0 for any free port.
    pub(super) data_port: u16,
    /// The port of the route API, readiness and stats; 0 for any free port.
    pub(super) api_port: u16,
    /// The port for other tasks, if there is a fleet.
    pub(super) peer_port: u16,
    /// The directory that holds the modules.
    pub(super) modules: &'a Path,
    /// The Unix socket of Envoy's own admin interface.
    pub(super) admin_socket: &'a Path,
    /// The Unix socket for the entry point's reports of dropped lines.
    pub(super) launcher_socket: &'a Path,
    /// The file with the rate of the access log.
    pub(super) log_rate: &'a Path,
}

/// The filter on the data path.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataPath<'a> {
    /// The form of our own filters.
    pub(super) form: Filter,
    /// The item of `http_filters` that replaces the router's; if it is empty, the router's is only removed.
    pub(super) filter: Option<&'a str>,
    /// Whether the retry filter stays. It must not if `filter` replaces the router.
    pub(super) retry: bool,
}

/// Applies `edits`, whose texts are those of the shipped file, then sets the filter of the data path, and then moves the file to `place`.
///
/// # Errors
/// If a text to replace is not found as often as it must be.
pub(super) fn render(shipped: &str, edits: &[Edit], data_path: DataPath<'_>, place: &Place<'_>) -> Result<String> {
    let mut changes = edits.to_vec();
    let mut roles = vec![Role::Admin];
    match data_path.filter {
        Some(filter) => {
            changes.extend([replace_item(shipped, ROUTER_FILTER, filter)?, replace_item(shipped, RESPONSES_FILTER, "")?]);
            changes.extend(ENABLED.map(|text| Edit::once(text, "")));
        }
        None => roles.extend([Role::Router, Role::Responses]),
    }
    if data_path.retry {
        roles.push(Role::Retry);
    } else {
        changes.extend([replace_item(shipped, RETRY_FILTER, "")?, Edit::once(ATTEMPT_COUNT, "")]);
    }
    let text = apply(&changes, shipped.to_owned())?;
    let has_fleet = text.contains(FILTER_MEMBER);
    if has_fleet {
        roles.extend(Role::FLEET);
    }
    let text = match data_path.form {
        Filter::Wasm => text,
        Filter::Native => to_native(&text, &roles).map_err(|error| anyhow!("envoy.yaml {error}"))?,
    };
    let text = apply(&links(&text, place.data_port), text)?;
    // Only a setting adds this module, which limits the connections of each client.
    let clients = text.matches(&format!("filename: {MODULES}/clients.wasm")).count();
    let sockets = text.matches(&format!("path: {SOCKET}")).count();
    // Natively the router does what the filter of responses does.
    let filters = roles.iter().filter(|role| **role != Role::Responses).count();
    let mut moves = moves(data_path, filters, clients, sockets, place);
    if has_fleet {
        moves.extend(fleet(place));
    }
    apply(&moves, text)
}

/// Has the links of the status page lead to this port, if that is known and the settings do not lead them elsewhere.
fn links(text: &str, data_port: u16) -> Vec<Edit> {
    if data_port == 0 {
        return Vec::new();
    }
    if text.contains(HTTPS_LINKS) {
        return vec![Edit::once(HTTPS_LINKS, format!("https://{{host}}:{data_port}"))];
    }
    if text.contains("\"agents_url\"") {
        return Vec::new();
    }
    vec![Edit::once(ADMIN_PLACE, format!("{ADMIN_PLACE}, \"agents_url\": \"//{{host}}:{data_port}\""))]
}

/// The change of a listener's port and address.
fn listener(shipped_port: u16, bind: IpAddr, port: u16) -> Edit {
    Edit::once(
        format!("address: 0.0.0.0, port_value: {shipped_port} "),
        format!("address: {}, port_value: {port} ", quoted(bind.to_string())),
    )
}

/// The changes of the port for other tasks, and of the filter that sends to it.
fn fleet(place: &Place<'_>) -> [Edit; 2] {
    // What is bound to all addresses is bound to the shipped one.
    let local = if place.bind.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { place.bind };
    let member = format!("\"fleet\": {{\"port\": {}, \"local\": \"{local}\"}}", place.peer_port);
    [listener(ports::PEERS, place.bind, place.peer_port), Edit::once(FILTER_MEMBER, member)]
}

/// The changes that move a file to `place`. The file has `filters` filters of ours, `clients` that limit clients, and names the socket of the
/// keys `sockets` times.
fn moves(data_path: DataPath<'_>, filters: usize, clients: usize, sockets: usize, place: &Place<'_>) -> Vec<Edit> {
    let module = |name: &str, times| Edit {
        from: format!("filename: {MODULES}/{name}"),
        to: format!("filename: {}", quoted(place.modules.join(name).display())),
        times,
    };
    let mut moves = vec![
        module("clients.wasm", clients),
        listener(ports::LISTEN, place.bind, place.data_port),
        listener(ports::ADMIN, place.bind, place.api_port),
        // Only a setting adds it; Envoy opens this one and connects to it, too.
        Edit {
            from: format!("path: {SOCKET}"),
            to: format!("path: {}", quoted(place.admin_socket.with_file_name("jwks.sock").display())),
            times: sockets,
        },
        // Envoy opens this socket, and a cluster connects to it.
        Edit { from: format!("path: {ADMIN_SOCKET}"), to: format!("path: {}", quoted(place.admin_socket.display())), times: 2 },
        Edit::once(format!("path: {LOG_RATE}"), format!("path: {}", quoted(place.log_rate.display()))),
        Edit::once(format!("path: {LAUNCHER_SOCKET}"), format!("path: {}", quoted(place.launcher_socket.display()))),
    ];
    match data_path.form {
        Filter::Wasm => {
            let ours = data_path.filter.is_none().into();
            moves.extend([module("router.wasm", ours), module("responses.wasm", ours), module("admin.wasm", 1)]);
        }
        Filter::Native => moves.push(module(NATIVE, filters)),
    }
    moves
}

fn apply(edits: &[Edit], text: String) -> Result<String> {
    edits.iter().try_fold(text, |text, edit| edit.apply(&text))
}

/// The change that replaces the list item whose first line is `first` by the one line `new`, or removes it if `new` is empty.
fn replace_item(text: &str, first: &str, new: &str) -> Result<Edit> {
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let Some(start) = lines.iter().position(|line| line.trim() == first) else { bail!("envoy.yaml has no item {first:?}") };
    let mut item = lines.iter().skip(start);
    let mut from = item.next().map(ToString::to_string).unwrap_or_default();
    let depth = indent(&from);
    from.extend(item.take_while(|line| line.trim().is_empty() || indent(line) > depth).copied());
    let to = if new.is_empty() { String::new() } else { format!("{}{new}\n", " ".repeat(depth)) };
    Ok(Edit::once(from, to))
}

/// `text` as a YAML scalar: every JSON string is one.
fn quoted(text: impl ToString) -> String {
    serde_json::Value::from(text.to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: DataPath<'static> = DataPath { form: Filter::Wasm, filter: None, retry: true };

    fn place() -> Place<'static> {
        Place {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            data_port: 0,
            api_port: 7,
            peer_port: 8,
            modules: Path::new("/some where"),
            admin_socket: Path::new("/tmp/a.sock"),
            launcher_socket: Path::new("/tmp/l.sock"),
            log_rate: Path::new("/tmp/rate.yaml"),
        }
    }

    fn shipped() -> String {
        std::fs::read_to_string(workspace::root().join("envoy/envoy.yaml")).unwrap()
    }

    #[test]
    fn ports_and_paths_are_replaced() {
        let text = render(&shipped(), &[], OURS, &place()).unwrap();
        for expected in [
            "address: \"127.0.0.1\", port_value: 0 ",
            "address: \"127.0.0.1\", port_value: 7 ",
            "filename: \"/some where/router.wasm\"",
            "filename: \"/some where/responses.wasm\"",
            "filename: \"/some where/admin.wasm\"",
            "path: \"/tmp/a.sock\"",
            "path: \"/tmp/l.sock\"",
        ] {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
        for gone in ["port_value: 50051", "port_value: 9901", "filename: /usr", "path: /run/"] {
            assert!(!text.contains(gone), "{gone} is still in {text}");
        }
    }

    #[test]
    fn the_native_filter_replaces_the_wasm_filter() {
        let native = DataPath { form: Filter::Native, ..OURS };
        let edit = Edit::once("\"role\": \"router\"", "\"role\": \"router\", \"fallback_port\": 1");
        let text = render(&shipped(), &[edit], native, &place()).unwrap();
        assert_eq!(text.matches("filename: \"/some where/native.so\"").count(), 3);
        assert!(text.contains("\"fallback_port\": 1") && !text.contains(".wasm\""), "{text}");
        let text = render(&shipped(), &[], DataPath { filter: Some(""), retry: false, ..native }, &place()).unwrap();
        assert_eq!(text.matches("filename: \"/some where/native.so\"").count(), 1);
    }

    #[test]
    fn the_links_of_the_status_page_lead_to_the_data_path() {
        let text = render(&shipped(), &[], OURS, &Place { data_port: 5, ..place() }).unwrap();
        assert!(text.contains("\"role\": \"admin\", \"agents_url\": \"//{host}:5\"\n"), "{text}");
        assert!(!render(&shipped(), &[], OURS, &place()).unwrap().contains("agents_url"));
    }

    #[test]
    fn edits_are_applied_to_the_shipped_file() {
        let edit = Edit::once("address: 0.0.0.0, port_value: 50051 ", "address: 0.0.0.0, port_value: 50051 , x: 1");
        let text = render(&shipped(), &[edit], OURS, &place()).unwrap();
        assert!(text.contains("port_value: 0 , x: 1"));
    }

    #[test]
    fn another_filter_replaces_the_router() {
        let text = render(&shipped(), &[], DataPath { filter: Some("- name: other"), retry: false, ..OURS }, &place()).unwrap();
        assert!(text.contains("# (tokens)\n                  - name: other\n"));
        assert!(!text.contains("/router.wasm"));
        let text = render(&shipped(), &[], DataPath { filter: Some(""), retry: false, ..OURS }, &place()).unwrap();
        assert!(!text.contains(ROUTER_FILTER));
        let text = render(&shipped(), &[], DataPath { retry: false, ..OURS }, &place()).unwrap();
        assert!(text.contains(ROUTER_FILTER));
        for gone in [RETRY_FILTER, ATTEMPT_COUNT] {
            assert!(!text.contains(gone), "{gone}");
        }
        assert!(text.contains("- name: pixell.agent_headers\n") && text.contains("http_filters: *agent_filters\n"));
    }

    #[test]
    fn a_missing_text_is_named() {
        let error = render(&shipped(), &[Edit::once("no such text", "")], OURS, &place()).unwrap_err();
        assert!(error.to_string().contains("holds \"no such text\" 0 times, not 1"), "{error}");
    }

    #[test]
    fn a_text_that_is_found_too_often_is_named() {
        let doubled = shipped() + "# address: 0.0.0.0, port_value: 9901 }";
        let error = render(&doubled, &[], OURS, &place()).unwrap_err();
        assert!(error.to_string().contains("port_value: 9901"), "{error}");
    }
}
