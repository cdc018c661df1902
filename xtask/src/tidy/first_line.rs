//! Every Rust file says what it is, before any code.

use anyhow::Result;

use super::{files, text};

/// Looks into every Rust file of the repository.
pub(super) fn check() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in files("*.rs")? {
        faults.extend(fault(&path, &text(&path)?));
    }
    Ok(faults)
}

fn fault(path: &str, text: &str) -> Option<String> {
    let first = text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty());
    (!says).then(|| format!("{path} does not start with a `//!` line that says what it is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_a_fault() {
        assert_eq!(fault("a.rs", "//! What it is.\nfn a() {}\n"), None);
        for silent in ["", "fn a() {}\n", "//!\n", "// What it is.\n", "\n//! Too late.\n"] {
            assert!(fault("a.rs", silent).is_some_and(|fault| fault.contains("a.rs")), "{silent:?}");
        }
    }
}
