//! The tests against Envoy that apply only to Wasm. The native filter has its own test in place of each.

/// A test of `tests/envoy`, and the test of `tests/native` that replaces it, both as `module::name`.
const TESTS: [(&str, &str); 5] = [
    ("api_bootstrap::a_crash_of_the_admin_vm_loses_nothing", "panics::every_hook_survives_a_panic"),
    ("trap::a_trapped_worker_recovers_and_nobody_else_notices", "panics::a_panic_fails_one_request_and_nobody_else_notices"),
    ("trap::a_writer_that_traps_leaves_a_whole_map_and_blocks_nobody", "panics::every_hook_survives_a_panic"),
    ("waiting::a_filter_that_crashed_checks_retries_again", "panics::every_hook_survives_a_panic"),
    ("waiting::a_misspelt_root_id_keeps_envoy_from_starting", "loading::an_invalid_configuration_is_explained"),
];

/// The arguments of `cargo test` that skip them.
pub(super) fn skips() -> Vec<&'static str> {
    ["--"].into_iter().chain(TESTS.iter().flat_map(|(wasm, _)| ["--skip", wasm])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_test_exists() {
        let mut missing = Vec::new();
        for (directory, test) in TESTS.iter().flat_map(|(wasm, native)| [("envoy", wasm), ("native", native)]) {
            let (module, name) = test.split_once("::").unwrap();
            let path = workspace::root().join(format!("tests/{directory}/{module}.rs"));
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if !text.contains(&format!("fn {name}(")) {
                missing.push(format!("{}: {name}", path.display()));
            }
        }
        assert_eq!(missing, [""; 0]);
    }
}
