//! Documents name files of this repository in backticks; what they name has to exist.

use std::path::Path;

use anyhow::Result;
use regex::Regex;

use super::{files, text};

/// Looks through every Markdown file.
pub(super) fn check() -> Result<Vec<String>> {
    let root = harness::workspace::root();
    let mut faults = Vec::new();
    for document in files("*.md")? {
        let directory = root.join(&document).parent().map(Path::to_path_buf).unwrap_or_default();
        let exists = |path: &str| root.join(path).exists() || directory.join(path).exists();
        faults.extend(missing(&document, &text(&document)?, exists)?);
    }
    Ok(faults)
}

/// The faults of a document: a code span that is a path with a directory and nothing else, but names no file or directory.
fn missing(document: &str, text: &str, exists: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let directories = "src|tests|harness|xtask|envoy|clients|integration|deploy|docs|launcher|fuzz|bench";
    let span = Regex::new(&format!(r"`((?:{directories})/[\w./-]*)`"))?;
    let named = text.lines().enumerate().flat_map(|(number, line)| {
        span.captures_iter(line).map(move |found| (number + 1, found.extract::<1>().1[0].to_owned()))
    });
    let gone = named.filter(|(_, path)| !exists(path));
    Ok(gone.map(|(line, path)| format!("{document}:{line}: `{path}` does not exist")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_long_gone_is_found() {
        let text = "See `src/lib.rs` and\n`src/gone.rs`, `cargo test`, `envoy` and `GET /v1/routes`.\n";
        let faults = missing("A.md", text, |path| path == "src/lib.rs").unwrap();
        assert_eq!(faults, ["A.md:2: `src/gone.rs` does not exist"]);
    }
}
