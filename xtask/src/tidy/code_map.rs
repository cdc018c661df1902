//! Documents name files of this repository in backticks and in links; what they name has to exist.

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

/// The faults of a document: a code span that is a path with a directory and nothing else, or a link without a host, that leads
/// nowhere.
fn missing(document: &str, text: &str, exists: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let directories = "src|tests|modules|harness|xtask|envoy|clients|integration|deploy|docs|launcher|fuzz|bench";
    // The end of a link's target must follow, so that `https` of a URL is not taken for a file.
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
    fn a_file_long_gone_is_found() {
        let text = "See `src/lib.rs` and\n`src/gone.rs`, `cargo test`, `envoy` and `GET /v1/routes`.\n\
                    [here](src/lib.rs#part), [there](docs/gone.md), [out](https://a.example/b), [below](#part)\n";
        let faults = missing("A.md", text, |path| path == "src/lib.rs").unwrap();
        assert_eq!(faults, ["A.md:2: src/gone.rs does not exist", "A.md:3: docs/gone.md does not exist"]);
    }
}
