//! Documents name files of this repository in backticks and in links, and those files must exist. The maps of the core name all its modules.

use std::path::Path;

use anyhow::Result;
use regex::Regex;

use super::{files, text};

/// Checks that every file that a Markdown file names exists.
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

/// Checks that the map in the core's `lib.rs` names every public module, and the one in ARCHITECTURE.md every module.
pub(super) fn modules() -> Result<Vec<String>> {
    unmapped(&text("crates/core/src/lib.rs")?, &text("ARCHITECTURE.md")?)
}

fn unmapped(library: &str, architecture: &str) -> Result<Vec<String>> {
    let module = Regex::new(r"(?m)^(pub )?mod (\w+);$")?;
    let mut errors = Vec::new();
    for declared in module.captures_iter(library) {
        let name = &declared[2];
        if declared.get(1).is_some() && !library.contains(&format!("[`{name}`]")) {
            errors.push(format!("crates/core/src/lib.rs: the table does not name [`{name}`]"));
        }
        // In a row for several files only the first has its directory.
        let named = [format!("`{name}.rs`"), format!("/{name}.rs`"), format!("crates/core/src/{name}/`")];
        if !named.iter().any(|named| architecture.contains(named)) {
            errors.push(format!("ARCHITECTURE.md: the code map does not name crates/core/src/{name}"));
        }
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
    fn a_module_that_no_map_names_is_an_error() {
        let library = "//! | [`a`], [`b`] | what |\npub mod a;\npub mod b;\nmod c;\npub mod d;\n#[cfg(test)]\nmod e {}\n";
        let architecture = "| `crates/core/src/a.rs`, `b.rs` | what |\n| `crates/core/src/c/` | what |\n";
        let errors = unmapped(library, architecture).unwrap();
        assert_eq!(
            errors,
            [
                "crates/core/src/lib.rs: the table does not name [`d`]",
                "ARCHITECTURE.md: the code map does not name crates/core/src/d"
            ]
        );
    }

    #[test]
    fn a_path_that_does_not_exist_is_an_error() {
        let text = "See `src/lib.rs` and\n`src/gone.rs`, `cargo test`, `envoy` and `GET /v1/routes`.\n\
                    [here](src/lib.rs#part), [there](docs/gone.md), [out](https://a.example/b), [below](#part)\n";
        let errors = missing("A.md", text, |path| path == "src/lib.rs").unwrap();
        assert_eq!(errors, ["A.md:2: src/gone.rs does not exist", "A.md:3: docs/gone.md does not exist"]);
    }
}
