//! A file that people edit has at most 450 lines: a longer one is about more than one thing.

use anyhow::Result;

use super::{files, text};

const MOST_LINES: usize = 450;

/// Files that may be longer, each with the reason. A pattern of `git ls-files`.
const LONGER: [(&str, &str); 4] = [
    ("envoy/envoy.yaml", "one file ships, and Envoy reads no others with it"),
    ("docs/openapi.yaml", "one document describes the whole API to generators"),
    ("*Cargo.lock", "cargo writes it"),
    ("*requirements*.txt", "cargo xtask lock writes it"),
];

/// Checks every text that is in the repository.
pub(super) fn check() -> Result<Vec<String>> {
    let mut longer = Vec::new();
    for (pattern, _) in LONGER {
        longer.extend(files(pattern)?);
    }
    let mut errors = Vec::new();
    for path in files("*")?.into_iter().filter(|path| !longer.contains(path)) {
        // What is not UTF-8 is a picture or an input for fuzzing.
        errors.extend(text(&path).ok().and_then(|text| check_file(&path, &text)));
    }
    Ok(errors)
}

fn check_file(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MOST_LINES).then(|| format!("{path} has {lines} lines; split it, so that each part has at most {MOST_LINES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_too_many_is_an_error() {
        assert_eq!(check_file("a.rs", &"a\n".repeat(MOST_LINES)), None);
        let error = check_file("a.rs", &"a\n".repeat(MOST_LINES + 1)).unwrap();
        assert!(error.starts_with("a.rs has 451 lines"), "{error}");
    }

    #[test]
    fn every_exception_is_needed() {
        for (pattern, _) in LONGER {
            let is_long = |path: &String| text(path).is_ok_and(|text| check_file(path, &text).is_some());
            assert!(files(pattern).unwrap().iter().any(is_long), "{pattern}");
        }
    }
}
