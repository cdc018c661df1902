//! What the module needs to load, and what keeps Envoy from starting with it.

use std::process::Command;

use harness::Envoy;
use harness::envoy::modules::{NATIVE, locate};
use launcher::filter::{Filter, TESTED};
use serde_json::json;
use workspace::elf::Needs;
use workspace::envoy as binary;

fn native() -> harness::EnvoyBuilder {
    Envoy::builder().filter(Filter::Native)
}

/// The symbols of the module, as GNU's readelf tells them.
pub(crate) fn symbols() -> String {
    let module = locate().unwrap().join(NATIVE);
    let output = Command::new("readelf").args(["--wide", "--dyn-syms"]).arg(module).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_module_needs_only_what_envoys_images_have() {
    let needs = Needs::of(&locate().unwrap().join(NATIVE)).unwrap();
    assert!(needs.libraries.iter().any(|library| library == "libc.so.6") && !needs.glibc.is_empty(), "{needs:?}");
    needs.check_envoys_images().unwrap();
}

/// The global names among the symbols of the module, each with whether it is imported.
fn globals(symbols: &str) -> impl Iterator<Item = (&str, bool)> {
    let lines = symbols.lines().filter(|line| line.contains("GLOBAL"));
    lines.map(|line| (line.split_whitespace().nth(7).unwrap(), line.contains(" UND ")))
}

/// What the module exports, of its symbols.
pub(crate) fn exports(symbols: &str) -> impl Iterator<Item = &str> {
    globals(symbols).filter(|(_, is_imported)| !is_imported).map(|(name, _)| name)
}

/// The module exports only hooks, and imports only Envoy's callbacks and glibc. (Each hook is in the table of `hooks.rs`.)
#[test]
fn the_module_exports_only_its_hooks() {
    let symbols = symbols();
    for (name, _) in globals(&symbols).filter(|(_, is_imported)| *is_imported) {
        assert!(name.starts_with("envoy_dynamic_module_callback_") || name.contains("@GLIBC_"), "{name}");
    }
    assert!(exports(&symbols).all(|name| name.starts_with("envoy_dynamic_module_on_")), "{symbols}");
    assert!(exports(&symbols).count() > 15, "{symbols}");
}

/// The module is tested with each series of Envoy that the launcher accepts for it.
#[test]
fn every_accepted_series_has_a_tested_release() {
    let series = |version: &String| version.rsplit_once('.').unwrap().0.to_owned();
    let mut tested: Vec<_> = binary::releases().unwrap().iter().map(series).filter(|series| series != "1.37").collect();
    tested.sort();
    assert_eq!(tested, TESTED);
}

#[tokio::test]
async fn an_invalid_configuration_is_explained() {
    let role = "\"role\": \"router\"";
    for (edit, expected) in [
        ("\"role\": \"admin\"", "configuration of the router filter: "),
        ("\"role\": \"router\", \"no_such_setting\": 1", "no_such_setting"),
    ] {
        let error = native().edit(role, edit).start().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A filter in the wrong role would let every request through.
    let filter = json!({
        "name": "router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": { "module": { "local": { "filename": locate().unwrap().join(NATIVE) } }, "do_not_close": true },
            "filter_name": "rety",
        },
    });
    let error = native().data_filter(&format!("- {filter}")).start().await.unwrap_err().to_string();
    assert!(error.contains("filter_name must be router, retry"), "{error}");
}
