//! The core knows no host: only `src/filter` may name proxy-wasm's SDK, and nothing else may depend on it.

use anyhow::Result;

use super::{files, text};
use crate::command::{cargo, read};

/// The one directory that talks to the host.
const SHELL: &str = "src/filter/";
/// The SDK's package.
const SDK: &str = "proxy-wasm";

/// Looks for the SDK's name in the core's code. Comments may speak of it.
pub(super) fn words() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in files("src/*.rs")?.iter().filter(|path| !path.starts_with(SHELL)) {
        faults.extend(named(path, &text(path)?));
    }
    Ok(faults)
}

fn named(path: &str, text: &str) -> Vec<String> {
    let code = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    let lines = code.enumerate().filter(|(_, line)| line.contains("proxy_wasm"));
    lines.map(|(number, _)| format!("{path}:{}: only {SHELL} may name proxy_wasm", number + 1)).collect()
}

/// Asks cargo what the package links on this machine and where the core is tested as WebAssembly.
pub(super) fn dependencies() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for target in [None, Some("wasm32-unknown-unknown")] {
        let mut tree = cargo(["tree", "--package", "pixell-router", "--edges", "normal", "--prefix", "none"]);
        if let Some(target) = target {
            tree.args(["--target", target]);
        }
        faults.extend(linked(target.unwrap_or("this machine"), &read(&mut tree)?));
    }
    Ok(faults)
}

fn linked(target: &str, tree: &str) -> Option<String> {
    let found = tree.lines().find(|line| line.split_whitespace().next() == Some(SDK))?;
    Some(format!("on {target} the package depends on {found}: it may for target_os = \"wasi\" only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_in_code_is_found_with_its_line() {
        let text = "//! Free of `proxy_wasm`.\nuse proxy_wasm::types;\nlet a = 1; // not proxy_wasm\n";
        assert_eq!(named("src/a.rs", text), ["src/a.rs:2: only src/filter/ may name proxy_wasm"]);
    }

    #[test]
    fn the_sdk_in_a_tree_is_found() {
        assert_eq!(linked("x", "pixell-router v0.1.0\nlog v0.4.1\n"), None);
        let fault = linked("x", "pixell-router v0.1.0\nproxy-wasm v0.2.5\n").unwrap();
        assert!(fault.contains("on x the package depends on proxy-wasm v0.2.5"), "{fault}");
    }
}
