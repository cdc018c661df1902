//! The two forms of the filter: WebAssembly modules, as in the shipped configuration, or the native module. For the native module the
//! filters' items in the configuration are rewritten.

use crate::settings::FILTER;
use std::fmt;
use std::path::Path;
use std::process::Command;

/// The form of the filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// `router.wasm`, `responses.wasm` and `admin.wasm`.
    #[default]
    Wasm,
    /// `native.so`.
    Native,
}

/// Where the image keeps the native module.
pub const NATIVE_MODULE: &str = "/usr/local/lib/pixell-envoy/native.so";

/// The series of Envoy releases that the native module is tested on. Others may have a different interface for modules, or none.
pub const TESTED: [&str; 3] = ["1.38", "1.39", "1.40"];

impl Filter {
    /// Every form, by its name.
    pub const ALL: [(&str, Self); 2] = [("wasm", Self::Wasm), ("native", Self::Native)];

    /// The form with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, filter)| *filter)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Native => "native",
        }
    }

    /// Checks that this form is tested on the Envoy of this version, such as `1.40.0`.
    ///
    /// # Errors
    /// If it is not; the error says what to use instead.
    pub fn check_envoy(self, version: &str) -> Result<(), String> {
        let is_series = |series: &&str| version.strip_prefix(series).is_some_and(|patch| patch.starts_with('.'));
        if self == Self::Wasm || TESTED.iter().any(is_series) {
            return Ok(());
        }
        let tested = TESTED.join(", ");
        Err(format!(
            "the native filter is not tested on Envoy {version}, only on {tested}: use one of these, or the Wasm filter"
        ))
    }
}

/// The form that the variable [`FILTER`] names; WebAssembly if it is not set.
///
/// # Errors
/// If the variable names no form.
pub fn from_environment() -> Result<Filter, String> {
    let Some(name) = std::env::var_os(FILTER).filter(|name| !name.is_empty()) else { return Ok(Filter::default()) };
    let known = || Filter::ALL.map(|(name, _)| name).join(", ");
    name.to_str().and_then(Filter::named).ok_or_else(|| format!("{FILTER} is {name:?}: expected one of {}", known()))
}

/// One of the filters, as an item of `http_filters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The data path.
    Router,
    /// Responses to requests that a path or a host addresses.
    Responses,
    /// The route API.
    Admin,
    /// The data path, before each attempt to reach an agent.
    Retry,
    /// The data path of requests that other tasks send. Only a fleet has it.
    Incoming,
    /// The data path, before each attempt to reach another task. Only a fleet has it.
    Hops,
}

impl Role {
    /// Those that there are always.
    pub const ALL: [Self; 4] = [Self::Router, Self::Responses, Self::Admin, Self::Retry];
    /// Those that a fleet adds.
    pub const FLEET: [Self; 2] = [Self::Incoming, Self::Hops];

    const fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Responses => "responses",
            Self::Admin => "admin",
            Self::Retry => "retry",
            Self::Incoming => "incoming",
            Self::Hops => "hops",
        }
    }
}

/// The item is missing from the configuration, or does not look like the shipped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoItem {
    /// A filter.
    Filter(Role),
    /// The runtime's layers.
    Layers,
}

impl fmt::Display for NoItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(role) => {
                let name = role.name();
                write!(
                    f,
                    "must hold the filter \"name: pixell.{name}\" once, with a configuration: keep it as the shipped file has it"
                )
            }
            Self::Layers => write!(f, "must hold {LAYERS:?} once: keep it as the shipped file has it"),
        }
    }
}

impl std::error::Error for NoItem {}

/// Returns `text` with the items of these roles rewritten from the Wasm filter to the native one. Their configuration stays. The item of
/// [`Role::Responses`] is removed, because the native router does its work; routes that enable it then have no effect. With [`Role::Retry`]
/// the filter that removes agents' headers is removed, too, because the native filter does its work.
///
/// # Errors
/// [`NoItem`] if an item is missing, or the file holds it twice.
pub fn to_native(text: &str, roles: &[Role]) -> Result<String, NoItem> {
    let native = |text: &str, role| match role {
        Role::Responses => without_responses(text),
        _ => native_item(text, role),
    };
    let text = roles.iter().try_fold(text.to_owned(), |text, role| native(&text, *role).ok_or(NoItem::Filter(*role)))?;
    let text = if roles.contains(&Role::Hops) {
        // The script counts for the Wasm filter; the native module counts by itself.
        let (before, _, after) = filter_item(&text, "name: pixell.returns").ok_or(NoItem::Filter(Role::Hops))?;
        [before, after].concat()
    } else {
        text
    };
    let text = if roles.contains(&Role::Retry) {
        let (before, _, after) = filter_item(&text, "name: pixell.agent_headers").ok_or(NoItem::Filter(Role::Retry))?;
        [before, after].concat()
    } else {
        text
    };
    if text.matches(LAYERS).count() != 1 {
        return Err(NoItem::Layers);
    }
    Ok(text.replace(LAYERS, &format!("{LAYERS}{METRICS_LAYER}")))
}

/// The beginning of the list of runtime layers.
const LAYERS: &str = "layered_runtime:\n  layers:\n";

/// The layer that lets Prometheus see the native module's metrics under their own names, like those of Wasm modules.
const METRICS_LAYER: &str = "    - name: native
      static_layer: { envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix: true }
";

/// The lines that begin the item of the responses' filter, and that refer to it.
const RESPONSES: [&str; 2] = ["- &responses_filter\n", "- *responses_filter\n"];

fn without_responses(text: &str) -> Option<String> {
    let [anchor, alias] = RESPONSES;
    let (before, _, after) = filter_item(text, "name: pixell.responses")?;
    // A copy of the file for one task needs no anchor, and may have the name in the item's first line.
    let before = before.trim_end_matches(' ');
    let before = before.strip_suffix(anchor).unwrap_or(before);
    let rest = [before.trim_end_matches(' '), after].concat();
    Some(rest.split_inclusive('\n').filter(|line| line.trim_start() != alias).collect())
}

fn native_item(text: &str, role: Role) -> Option<String> {
    let name = role.name();
    let (before, item, after) = filter_item(text, &format!("name: pixell.{name}"))?;
    let (first, rest) = item.split_once('\n')?;
    let (_, configuration, _) = block(rest, "configuration:")?;
    let (key, value) = configuration.split_once('\n').unwrap_or((configuration, ""));
    let (from, to) = (indent(configuration), key_indent(first) + 2);
    let key = key.trim_start().strip_prefix("configuration:")?;
    let pad = " ".repeat(key_indent(first));
    let mut native = format!(
        "{first}\n\
         {pad}typed_config:\n\
         {pad}  \"@type\": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter\n\
         {pad}  dynamic_module_config:\n\
         {pad}    module: {{ local: {{ filename: {NATIVE_MODULE} }} }}\n\
         {pad}    do_not_close: true\n\
         {pad}    # The name that the Wasm filter's metrics have, so that both have the same.\n\
         {pad}    metrics_namespace: wasmcustom\n\
         {pad}  filter_name: {name}\n\
         {pad}  filter_config:{key}\n"
    );
    for line in value.split_inclusive('\n') {
        match line.get(from..).filter(|text| !text.trim().is_empty()) {
            Some(text) => native.extend([" ".repeat(to).as_str(), text]),
            None => native.push('\n'),
        }
    }
    Some([before, &native, after].concat())
}

/// The text before the filter item with this name, the item itself, and the text after it. The item holds the name twice, but only its
/// first line is followed by `typed_config:`.
fn filter_item<'t>(text: &'t str, name: &str) -> Option<(&'t str, &'t str, &'t str)> {
    let is_start = |line: &str, next: &str| line.trim().trim_start_matches("- ") == name && next.trim() == "typed_config:";
    let starts =
        |text: &'t str| line_starts(text).zip(line_starts(text).skip(1)).filter(|((_, line), (_, next))| is_start(line, next));
    let ((start, line), _) = starts(text).next()?;
    let (before, rest) = text.split_at_checked(start)?;
    let belongs = |inner: &str| inner.trim().is_empty() || indent(inner) >= key_indent(line);
    let length = line.len() + rest.split_inclusive('\n').skip(1).take_while(|line| belongs(line)).map(str::len).sum::<usize>();
    let (item, after) = rest.split_at_checked(length)?;
    starts(after).next().is_none().then_some((before, item, after))
}

/// The column of the keys of the mapping that begins in this line, which may be the first line of a list item.
fn key_indent(line: &str) -> usize {
    indent(line) + if line.trim_start().starts_with("- ") { 2 } else { 0 }
}

/// The text before the one line that starts with `first`, that line with the deeper indented lines that follow it, and the text after
/// them.
fn block<'t>(text: &'t str, first: &str) -> Option<(&'t str, &'t str, &'t str)> {
    let mut starts = line_starts(text).filter(|(_, line)| is_named(line.trim(), first));
    let (start, line) = starts.next()?;
    if starts.next().is_some() {
        return None;
    }
    let (before, rest) = text.split_at_checked(start)?;
    let belongs = |line: &str| line.trim().is_empty() || indent(line) > indent_of_first(rest);
    let length = line.len() + rest.split_inclusive('\n').skip(1).take_while(|line| belongs(line)).map(str::len).sum::<usize>();
    let (block, after) = rest.split_at_checked(length)?;
    Some((before, block, after))
}

/// Whether a line is `first`, alone or with a value after it.
fn is_named(line: &str, first: &str) -> bool {
    line.strip_prefix(first).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn line_starts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |next, line| {
        let start = *next;
        *next += line.len();
        Some((start, line))
    })
}

fn indent_of_first(text: &str) -> usize {
    text.split_inclusive('\n').next().map_or(0, indent)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The version that the Envoy at `binary` reports.
///
/// # Errors
/// If it does not run, or reports no version; the error shows what it printed.
pub fn version_of(binary: &Path) -> Result<String, String> {
    let output = Command::new(binary).arg("--version").output();
    let output = output.map_err(|error| format!("{} --version does not run: {error}", binary.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    // envoy  version: <commit>/<version>/<state>/<build type>/<TLS library>
    let version = said.split_once(" version: ").and_then(|(_, facts)| facts.split('/').nth(1));
    version.map(str::to_owned).ok_or_else(|| format!("{} --version printed {:?}, not a version", binary.display(), said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::render;
    use crate::fleet::Fleet;
    use crate::peers::Around;

    const SHIPPED: &str = include_str!("../../../envoy/envoy.yaml");

    #[test]
    fn the_shipped_file_becomes_native() {
        let native = to_native(SHIPPED, &Role::ALL).unwrap();
        assert_eq!(native.matches(&format!("filename: {NATIVE_MODULE} ")).count(), 3);
        // The router does what this filter does.
        assert!(!native.contains("filter_name: responses\n") && !native.contains("responses_filter"));
        for gone in ["http.wasm.v3", "router_vm", "ExtensionWithMatcher", ".wasm }", "pixell.agent_headers"] {
            assert!(!native.contains(gone), "{gone}");
        }
        assert!(native.contains("filter_name: retry\n") && native.contains("filter_config: *router_configuration\n"));
        // The text before and after the items is unchanged.
        let (before, _) = SHIPPED.split_once("- name: pixell.router").unwrap();
        let native = native.replace(METRICS_LAYER, "");
        let (_, after) = SHIPPED.split_once("- name: envoy.filters.http.upstream_codec").unwrap();
        assert!(native.starts_with(before) && native.ends_with(after));
    }

    #[test]
    fn a_copy_without_the_anchor_becomes_native() {
        let [anchor, _] = RESPONSES;
        let (before, after) = SHIPPED.split_once(anchor).unwrap();
        let copy = format!("{before}- {}", after.trim_start_matches(' '));
        assert!(copy.contains("- name: pixell.responses\n"));
        assert_eq!(to_native(&copy, &Role::ALL), to_native(SHIPPED, &Role::ALL));
    }

    #[test]
    fn what_a_fleet_adds_becomes_native() {
        let fleet = Fleet::parse("10.0.1.0/24").unwrap();
        let text = render(SHIPPED, &fleet.edits(Around::default())).unwrap();
        let roles: Vec<_> = Role::ALL.into_iter().chain(Role::FLEET).collect();
        let native = to_native(&text, &roles).unwrap();
        assert_eq!(native.matches(&format!("filename: {NATIVE_MODULE} ")).count(), 5);
        assert!(text.contains("- *responses_filter\n") && !native.contains("responses_filter"));
        for name in ["filter_name: incoming\n", "filter_name: hops\n"] {
            assert!(native.contains(name), "{name}");
        }
        // The script counts what the native module counts by itself.
        assert!(!native.contains("filters.http.lua") && text.contains("filters.http.lua"));
        assert_eq!(to_native(SHIPPED, &roles), Err(NoItem::Filter(Role::Incoming)));
    }

    #[test]
    fn an_item_keeps_its_configuration() {
        let wasm = "\
a:
  - name: other
  - name: pixell.admin
    typed_config:
      config:
        configuration: &c
          value: |
            {

            }
        vm: 1
  - name: last
";
        let native = "\
a:
  - name: other
  - name: pixell.admin
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
      dynamic_module_config:
        module: { local: { filename: /usr/local/lib/pixell-envoy/native.so } }
        do_not_close: true
        # The name that the Wasm filter's metrics have, so that both have the same.
        metrics_namespace: wasmcustom
      filter_name: admin
      filter_config: &c
        value: |
          {

          }
  - name: last
";
        assert_eq!(native_item(wasm, Role::Admin).unwrap(), native);
    }

    #[test]
    fn what_is_configured_stays_configured() {
        let text = SHIPPED
            .replace("\"role\": \"router\"", "\"role\": \"router\",\n                              \"fallback_port\": 5000");
        let native = to_native(&text, &Role::ALL).unwrap();
        assert!(native.contains("\"fallback_port\": 5000"));
    }

    #[test]
    fn a_file_without_an_item_is_an_error() {
        let renamed = SHIPPED.replace("name: pixell.admin", "name: other");
        let error = to_native(&renamed, &Role::ALL).unwrap_err();
        assert_eq!(error, NoItem::Filter(Role::Admin));
        assert!(error.to_string().contains("\"name: pixell.admin\""), "{error}");
        assert!(to_native(&renamed, &[Role::Router, Role::Retry]).is_ok());
        // Without the native filter that does its work, the filter for agents' headers stays.
        assert!(to_native(SHIPPED, &[Role::Router]).unwrap().contains("name: pixell.agent_headers\n"));
        let twice = SHIPPED.to_owned() + "\n- name: pixell.router\n  typed_config:\n";
        assert_eq!(to_native(&twice, &Role::ALL), Err(NoItem::Filter(Role::Router)));
    }

    #[test]
    fn only_tested_envoys_get_the_native_filter() {
        for version in ["1.38.0", "1.38.2", "1.39.3", "1.40.0", "1.40.12"] {
            assert_eq!(Filter::Native.check_envoy(version), Ok(()));
        }
        for version in ["1.37.0", "1.41.0", "1.4.0", "1.400.0", "2.40.0", "1.40", ""] {
            let error = Filter::Native.check_envoy(version).unwrap_err();
            assert!(error.contains(&format!("Envoy {version}, only on 1.38, 1.39, 1.40")), "{error}");
            assert_eq!(Filter::Wasm.check_envoy(version), Ok(()));
        }
    }
}
