//! Every Rust file begins with a line that says what it is.

use anyhow::Result;

use super::{files, text};

/// Checks every Rust file of the repository.
pub(super) fn check() -> Result<Vec<String>> {
    let mut errors = Vec::new();
    for path in files("*.rs")? {
        errors.extend(check_file(&path, &text(&path)?));
    }
    Ok(errors)
}

fn check_file(path: &str, text: &str) -> Option<String> {
    let first = text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty());
    (!says).then(|| format!("{path} does not start with a `//!` line that says what it is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_first_line_is_an_error() {
        assert_eq!(check_file("a.rs", "//! What it is.\nfn a() {}\n"), None);
        for silent in ["", "fn a() {}\n", "//!\n", "// What it is.\n", "\n//! Too late.\n"] {
            assert!(check_file("a.rs", silent).is_some_and(|error| error.contains("a.rs")), "{silent:?}");
        }
    }
}
