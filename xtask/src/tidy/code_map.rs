//! Documents name files of this repository in backticks and in links. Those files must exist.

use std::path::Path;

use anyhow::Result;
use regex::Regex;

use super::{files, text};

/// Checks every Markdown file.
pub(super) fn check() -> Result<Vec<String>> {
    let root = workspace::root();
    let mut errors = Vec::new();
    for document in files("*.md")? {
        let directory = root.join(&document).parent().map(Path::to_path_buf).unwrap_or_default();
        let exists = |path: &str| root.join(path).exists() || directory.join(path).exists();
        errors.extend(missing(&document, &text(&document)?, exists)?);
    }
    Ok(errors)
}

/// The errors of a document: each path that does not exist. A path is a code span that begins with a directory of this repository
/// and holds nothing else, or the target of a link without a host.
fn missing(document: &str, text: &str, exists: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let directories = "src|tests|crates|xtask|envoy|clients|integration|deploy|docs";
    // The link's target must end after the path, so that `https` of a URL is not taken for a file.
    let name = Regex::new(&format!(r"`(?:{directories})/[\w./-]*`|\]\([^)\s:#]+[)#]"))?;
    let named = text.lines().enumerate().flat_map(|(number, line)| {
        let paths = name.find_iter(line).map(|found| found.as_str().trim_matches(['`', ']', '(', ')', '#']));
        paths.map(move |path| (number + 1, path))
    });
    let gone = named.filter(|(_, path)| !exists(path));
    Ok(gone.map(|(line, path)| format!("{document}:{line}: {path} does not exist")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_exist_is_an_error() {
        let text = "See `src/lib.rs` and\n`src/gone.rs`, `cargo test`, `envoy` and `GET /v1/routes`.\n\
                    [here](src/lib.rs#part), [there](docs/gone.md), [out](https://a.example/b), [below](#part)\n";
        let errors = missing("A.md", text, |path| path == "src/lib.rs").unwrap();
        assert_eq!(errors, ["A.md:2: src/gone.rs does not exist", "A.md:3: docs/gone.md does not exist"]);
    }
}
