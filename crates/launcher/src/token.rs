//! The bearer token of the route API, from a variable or from a file that a variable names.

use crate::settings::{ADMIN_TOKEN, ADMIN_TOKEN_FILE};
use pixell_core::admin::token::{InvalidToken, Token};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes. A token of `openssl rand -hex 32` has 64.
const MAX_BYTES: u64 = 8192;

/// Why there is no token although a variable sets one. No error shows the value: it may be a secret with a typing mistake.
#[derive(Debug)]
pub enum TokenError {
    /// Both variables are set.
    Both,
    /// The variable holds no bearer token.
    Variable,
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The file holds no bearer token.
    File(PathBuf),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both => write!(f, "{ADMIN_TOKEN} and {ADMIN_TOKEN_FILE} are both set: expected one of them"),
            Self::Variable => write!(f, "{InvalidToken}"),
            Self::Unreadable(path, error) => {
                write!(
                    f,
                    "{ADMIN_TOKEN_FILE} is {}: expected a file with the route API's token, but it cannot be read: {error}",
                    shown(path)
                )
            }
            Self::File(path) => write!(
                f,
                "{ADMIN_TOKEN_FILE} is {}: expected a file with the route API's token, at most {MAX_BYTES} bytes of \
                 A-Z a-z 0-9 - . _ ~ + / with = only at the end, optionally followed by one newline",
                shown(path)
            ),
        }
    }
}

impl std::error::Error for TokenError {}

/// The token that the variables set, which `get` returns by name. An empty variable is an error: most likely a secret was not filled
/// in, and without a token the route API would be open.
///
/// # Errors
/// [`TokenError`], which names the variable.
pub fn resolve(get: impl Fn(&str) -> Option<OsString>) -> Result<Option<String>, TokenError> {
    match (get(ADMIN_TOKEN), get(ADMIN_TOKEN_FILE)) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(TokenError::Both),
        (Some(value), None) => value.into_string().ok().filter(|text| is_token(text)).ok_or(TokenError::Variable).map(Some),
        (None, Some(path)) => read(Path::new(&path)).map(Some),
    }
}

fn read(path: &Path) -> Result<String, TokenError> {
    let mut bytes = Vec::new();
    // One byte more than allowed shows that the file is too long, even if it has no end.
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| TokenError::Unreadable(path.to_owned(), error))?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MAX_BYTES);
    let token = text.map(|text| text.strip_suffix('\n').unwrap_or(&text).to_owned());
    token.filter(|text| is_token(text)).ok_or_else(|| TokenError::File(path.to_owned()))
}

/// A warning if every user of the machine may read the token's file.
#[must_use]
pub fn warning(get: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    exposed(ADMIN_TOKEN_FILE, Path::new(&get(ADMIN_TOKEN_FILE)?))
}

/// A warning if every user of the machine may read the file at `path`, which the variable `name` names: agents are such users.
#[must_use]
pub(crate) fn exposed(name: &str, path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        format!("warning: {name} is {}: every user can read this file, agents too; expected mode 0600 or 0640", shown(path))
    })
}

fn shown(path: &Path) -> String {
    crate::shown::path(&path.to_string_lossy())
}

fn is_token(text: &str) -> bool {
    Token::parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(vars: &[(&str, &str)]) -> Result<Option<String>, String> {
        let get = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        super::resolve(get).map_err(|error| error.to_string())
    }

    #[test]
    fn exactly_one_of_the_two_variables_may_be_set() {
        assert_eq!(resolve(&[]), Ok(None));
        assert_eq!(resolve(&[(ADMIN_TOKEN, "s3cret=")]), Ok(Some("s3cret=".to_owned())));
        let both = resolve(&[(ADMIN_TOKEN, "s3cret"), (ADMIN_TOKEN_FILE, "/nowhere")]).unwrap_err();
        assert_eq!(both, "PIXELL_ADMIN_TOKEN and PIXELL_ADMIN_TOKEN_FILE are both set: expected one of them");
        for value in ["", " ", "two words", "s3cret\n"] {
            let error = resolve(&[(ADMIN_TOKEN, value)]).unwrap_err();
            assert!(error.starts_with("PIXELL_ADMIN_TOKEN is empty or holds characters"), "{error}");
        }
    }

    #[test]
    fn one_newline_at_the_end_of_the_file_is_ignored() {
        let directory = std::env::temp_dir().join(format!("pixell-envoy-token-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("token");
        let place = path.to_str().unwrap();
        let long = "x".repeat(8193);
        for (content, expected) in [
            ("s3cret+/=", Some("s3cret+/=")),
            ("s3cret\n", Some("s3cret")),
            ("s3cret\n\n", None),
            ("s3cret\r\n", None),
            (" s3cret", None),
            ("", None),
            ("\n", None),
            ("two words\n", None),
            (&long[1..], Some(&long[1..])),
            (&long, None),
        ] {
            std::fs::write(&path, content).unwrap();
            let found = resolve(&[(ADMIN_TOKEN_FILE, place)]);
            match expected {
                Some(token) => assert_eq!(found, Ok(Some(token.to_owned()))),
                None => {
                    let error = found.unwrap_err();
                    assert!(error.starts_with("PIXELL_ADMIN_TOKEN_FILE is \"/"), "{error}");
                    assert!(!error.contains("s3cret"), "{error}");
                }
            }
        }
        std::fs::write(&path, b"\xff").unwrap();
        assert!(resolve(&[(ADMIN_TOKEN_FILE, place)]).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_file_that_every_user_can_read_is_named() {
        let path = std::env::temp_dir().join(format!("pixell-envoy-exposed-{}", std::process::id()));
        std::fs::write(&path, "s3cret").unwrap();
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o404, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let said = exposed(ADMIN_TOKEN_FILE, &path);
            assert_eq!(said.is_some(), warned, "{mode:o}");
            let place = format!("warning: PIXELL_ADMIN_TOKEN_FILE is {path:?}: ");
            assert!(said.is_none_or(|said| said.starts_with(&place) && !said.contains("s3cret")));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(exposed(ADMIN_TOKEN_FILE, &path), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        for (path, reason) in [("/nonexistent/token", "No such file"), ("/", "directory"), ("", "No such file")] {
            let error = resolve(&[(ADMIN_TOKEN_FILE, path)]).unwrap_err();
            assert!(error.contains(&format!("{path:?}")) && error.contains(reason), "{error}");
        }
        assert!(resolve(&[(ADMIN_TOKEN_FILE, "/dev/zero")]).is_err(), "a file without an end");
    }
}
