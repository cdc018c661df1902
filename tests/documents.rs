//! docs/configuration.md agrees with the parser on every default, every example and every setting.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use std::collections::BTreeMap;

use pixell_core::addressing::Addressing;
use pixell_core::addressing::prefix::PathPrefix;
use pixell_core::config::{AdminConfig, RouterConfig};
use pixell_core::routes::limits::Limits;
use serde_json::{Map, Value, json};

const TEXT: &str = include_str!("../docs/configuration.md");

/// Default and example of a setting, if the table gives one.
#[derive(Debug)]
struct Row {
    default: Option<Value>,
    example: Option<Value>,
}

/// The table below the heading that names `role`.
fn table(role: &str) -> BTreeMap<String, Row> {
    let (_, section) = TEXT.split_once(&format!("## The role `{role}`")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let value = |cell: &str| {
            let text = cell.strip_prefix('`')?.strip_suffix('`')?;
            Some(serde_json::from_str(text).unwrap_or_else(|error| panic!("{line}: {error}")))
        };
        (cells[1].trim_matches('`').to_owned(), Row { default: value(cells[2]), example: value(cells[3]) })
    })
    .collect()
}

fn text(role: &str, settings: impl IntoIterator<Item = (String, Value)>) -> Vec<u8> {
    let mut all: Map<String, Value> = settings.into_iter().collect();
    all.insert("role".to_owned(), role.into());
    Value::Object(all).to_string().into_bytes()
}

#[track_caller]
fn router(settings: impl IntoIterator<Item = (String, Value)>) -> RouterConfig {
    RouterConfig::parse(&text("router", settings)).unwrap()
}

#[track_caller]
fn admin(settings: impl IntoIterator<Item = (String, Value)>) -> AdminConfig {
    AdminConfig::parse(&text("admin", settings)).unwrap()
}

fn defaults(table: &BTreeMap<String, Row>) -> Vec<(String, Value)> {
    table.iter().filter_map(|(key, row)| Some((key.clone(), row.default.clone()?))).collect()
}

#[test]
fn every_setting_has_a_row() {
    // A new setting does not compile until it is named here, and then it needs its row.
    let RouterConfig { id_headers: _, addressing, fallback_port: _, external_origins: _, deployments_claim: _, fleet: _ } =
        router([]);
    let Addressing { prefixes: _, host_suffix: _ } = addressing;
    let rows = table("router");
    assert!(rows.into_keys().eq([
        "deployments_claim",
        "external_origins",
        "fallback_port",
        "fleet",
        "host_suffix",
        "id_headers",
        "path_prefixes",
        "role"
    ]));
    let AdminConfig { limits, max_body_bytes: _, fleet: _, bootstrap_routes: _, agents_url: _ } = admin([]);
    let Limits { min_port: _, max_port: _, denied_ports: _, max_routes: _, max_id_bytes: _ } = limits;
    let keys = [
        "agents_url",
        "bootstrap_routes",
        "denied_ports",
        "fleet",
        "max_body_bytes",
        "max_id_bytes",
        "max_routes",
        "port_range",
        "role",
    ];
    assert!(table("admin").into_keys().eq(keys));
}

#[test]
fn every_documented_default_is_the_default() {
    assert_eq!(router(defaults(&table("router"))), router([]));
    assert_eq!(admin(defaults(&table("admin"))), admin([]));
    let given = |table: &BTreeMap<String, Row>| defaults(table).len();
    assert_eq!((given(&table("router")), given(&table("admin"))), (3, 6));
}

#[test]
fn every_example_is_accepted_and_makes_a_difference() {
    for (key, row) in table("router") {
        let example = row.example.unwrap_or_else(|| panic!("{key} has no example"));
        let config = router([(key.clone(), example)]);
        assert_eq!(config == router([]), key == "role", "{key}");
    }
    for (key, row) in table("admin") {
        let example = row.example.unwrap_or_else(|| panic!("{key} has no example"));
        let config = admin([(key.clone(), example)]);
        assert_eq!(config == admin([]), key == "role", "{key}");
    }
}

#[test]
fn the_whole_configurations_are_accepted_and_name_every_setting() {
    let blocks: Vec<&str> = TEXT.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [for_router, for_admin] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    RouterConfig::parse(for_router.as_bytes()).unwrap();
    AdminConfig::parse(for_admin.as_bytes()).unwrap();
    for (role, block) in [("router", for_router), ("admin", for_admin)] {
        let named: Map<String, Value> = serde_json::from_str(block).unwrap();
        assert!(table(role).into_keys().eq(named.into_iter().map(|(key, _)| key)), "{role}");
    }
}

#[test]
fn the_documented_message_is_that_of_the_parser() {
    let error =
        AdminConfig::parse(json!({"role": "admin", "max_routs": 5, "max_routes": 0}).to_string().as_bytes()).unwrap_err();
    assert!(TEXT.contains(&format!("configuration of the admin filter: {error}\n")), "{error}");
}

#[test]
fn the_variables_are_those_of_the_programs() {
    use pixell_core::admin::token::VARIABLE;
    let launcher = include_str!("../crates/launcher/src/settings/names.rs");
    let rows: Vec<&str> = TEXT.lines().filter_map(|line| line.strip_prefix("| `PIXELL_")?.split('`').next()).collect();
    let known: Vec<&str> = launcher.lines().filter_map(|line| line.split("\"PIXELL_").nth(1)?.strip_suffix("\";")).collect();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let known = sorted(known.into_iter().filter(|name| !name.is_empty()).map(|name| format!("PIXELL_{name}")).collect());
    assert_eq!(sorted(rows.into_iter().map(|name| format!("PIXELL_{name}")).collect()), known);
    assert!(known.iter().any(|name| name == VARIABLE));
}

/// The page of docs/addressing.md is the one that `cargo xtask agent --page` shows and `tests/browser` opens.
#[test]
fn the_page_of_the_example_is_the_agents() {
    let text = include_str!("../docs/addressing.md");
    let blocks: Vec<&str> = text.split("```html\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks, [harness::agents::page::PAGE]);
}

#[test]
fn the_prefixes_of_addressing_are_the_defaults() {
    let text = include_str!("../docs/addressing.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `/agents/")?.split_once("/...` | "));
    let named: Vec<_> = rows.map(|(path, _)| format!("/agents/{path}")).collect();
    let mut known: Vec<_> = PathPrefix::defaults().iter().map(ToString::to_string).collect();
    // There the longest comes first, which is the order in which they are tried.
    known.sort();
    let mut sorted = named.clone();
    sorted.sort();
    assert_eq!(sorted, known);
}
