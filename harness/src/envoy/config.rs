//! The shipped `envoy/envoy.yaml` with ports, addresses and paths replaced, and nothing else.
//!
//! Every replacement must be found exactly as often as expected: a file that changed its form fails here, by name, and is not
//! tested half-replaced.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, bail};

/// Where the image keeps the modules.
const MODULES: &str = "/usr/local/lib/pixell-envoy";
/// Where the image keeps Envoy's admin socket.
const ADMIN_SOCKET: &str = "/run/pixell-envoy/admin.sock";

/// The first line of the router's item in `http_filters`.
const ROUTER_FILTER: &str = "- name: pixell.router";
/// The first line of its item in those of the agents' first cluster, and the line that gives the second one the same.
const RETRY_FILTER: &str = "- name: pixell.retry";
const SAME_FILTERS: &str = "          http_filters: *agent_filters\n";
/// What that filter needs.
const ATTEMPT_COUNT: &str = "                      include_request_attempt_count: true\n";

/// One change of the text: `from` is found `times` times and becomes `to`.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// The text to look for.
    pub(super) from: String,
    /// What takes its place.
    pub(super) to: String,
    /// How often `from` must be there.
    pub(super) times: usize,
}

impl Edit {
    /// A change of a text that stands there exactly once.
    pub(super) fn once(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self { from: from.into(), to: to.into(), times: 1 }
    }

    fn apply(&self, text: &str) -> Result<String> {
        let found = text.matches(&self.from).count();
        if found != self.times {
            bail!("envoy.yaml: {:?} stands there {found} times, not {}", self.from, self.times);
        }
        Ok(text.replace(&self.from, &self.to))
    }
}

/// What differs between the image and a run on this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The address both listeners bind.
    pub(super) bind: IpAddr,
    /// The data path's port; 0 for any free one.
    pub(super) data_port: u16,
    /// The port of the route API, readiness and stats; 0 for any free one.
    pub(super) api_port: u16,
    /// The directory that holds `router.wasm` and `admin.wasm`.
    pub(super) modules: &'a Path,
    /// The Unix socket of Envoy's own admin interface.
    pub(super) admin_socket: &'a Path,
}

/// `shipped` with `edits`, which speak of the file as it ships, and then moved to `place`. With a `filter`, that item of
/// `http_filters` (none, where it is empty) stands in for the router's. `retry_filter` says whether the one before retries stays, which
/// it can only beside the router's.
///
/// # Errors
/// Where a text to replace is not there as often as it must be.
pub(super) fn render(
    shipped: &str,
    edits: &[Edit],
    filter: Option<&str>,
    retry_filter: bool,
    place: &Place<'_>,
) -> Result<String> {
    let listener = |shipped_port: u16, port: u16| {
        Edit::once(
            format!("address: 0.0.0.0, port_value: {shipped_port} "),
            format!("address: {}, port_value: {port} ", quoted(place.bind.to_string())),
        )
    };
    let module = |name: &str| {
        Edit::once(format!("filename: {MODULES}/{name}"), format!("filename: {}", quoted(place.modules.join(name).display())))
    };
    let router = match filter {
        Some(filter) => replace_item(shipped, ROUTER_FILTER, filter)?,
        None => module("router.wasm"),
    };
    let retry = if retry_filter {
        Vec::new()
    } else {
        vec![replace_item(shipped, RETRY_FILTER, "")?, Edit::once(SAME_FILTERS, ""), Edit::once(ATTEMPT_COUNT, "")]
    };
    let moves = [
        router,
        listener(50051, place.data_port),
        listener(9901, place.api_port),
        module("admin.wasm"),
        // Once where Envoy opens it, once in the cluster that reaches it.
        Edit { from: format!("path: {ADMIN_SOCKET}"), to: format!("path: {}", quoted(place.admin_socket.display())), times: 2 },
    ];
    edits.iter().chain(&retry).chain(&moves).try_fold(shipped.to_owned(), |text, edit| edit.apply(&text))
}

/// The change that puts the one line `new`, or nothing, in the place of the list item whose first line is `first`.
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

/// `text` as a YAML scalar: a JSON string is one, whatever characters it has.
fn quoted(text: impl ToString) -> String {
    serde_json::Value::from(text.to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::workspace;

    fn place() -> Place<'static> {
        Place {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            data_port: 0,
            api_port: 7,
            modules: Path::new("/some where"),
            admin_socket: Path::new("/tmp/a.sock"),
        }
    }

    fn shipped() -> String {
        std::fs::read_to_string(workspace::root().join("envoy/envoy.yaml")).unwrap()
    }

    #[test]
    fn the_shipped_file_moves() {
        let text = render(&shipped(), &[], None, true, &place()).unwrap();
        for expected in [
            "address: \"127.0.0.1\", port_value: 0 ",
            "address: \"127.0.0.1\", port_value: 7 ",
            "filename: \"/some where/router.wasm\"",
            "filename: \"/some where/admin.wasm\"",
            "path: \"/tmp/a.sock\"",
        ] {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
        for gone in ["port_value: 50051", "port_value: 9901", "filename: /usr", "path: /run/"] {
            assert!(!text.contains(gone), "{gone} is still in {text}");
        }
    }

    #[test]
    fn edits_speak_of_the_shipped_file() {
        let edit = Edit::once("address: 0.0.0.0, port_value: 50051 ", "address: 0.0.0.0, port_value: 50051 , x: 1");
        let text = render(&shipped(), &[edit], None, true, &place()).unwrap();
        assert!(text.contains("port_value: 0 , x: 1"));
    }

    #[test]
    fn another_filter_stands_in_for_the_router() {
        let text = render(&shipped(), &[], Some("- name: other"), false, &place()).unwrap();
        assert!(
            text.contains(
                "http_filters:\n                  - name: other\n                  - name: envoy.filters.http.router"
            )
        );
        assert!(!text.contains("/router.wasm"));
        let text = render(&shipped(), &[], Some(""), false, &place()).unwrap();
        assert!(text.contains("http_filters:\n                  - name: envoy.filters.http.router"));
        let text = render(&shipped(), &[], None, false, &place()).unwrap();
        assert!(text.contains(ROUTER_FILTER));
        for gone in [RETRY_FILTER, SAME_FILTERS, ATTEMPT_COUNT] {
            assert!(!text.contains(gone), "{gone}");
        }
    }

    #[test]
    fn a_text_that_is_not_there_is_named() {
        let error = render(&shipped(), &[Edit::once("no such text", "")], None, true, &place()).unwrap_err();
        assert!(error.to_string().contains("\"no such text\" stands there 0 times, not 1"), "{error}");
    }

    #[test]
    fn a_text_that_stands_there_too_often_is_named() {
        let doubled = shipped() + "# address: 0.0.0.0, port_value: 9901 }";
        let error = render(&doubled, &[], None, true, &place()).unwrap_err();
        assert!(error.to_string().contains("port_value: 9901"), "{error}");
    }
}
