//! Finds the built modules of both forms of the filter, and checks that they are not older than the source.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

/// The modules' file names: one for each role of the WebAssembly filter, and the native one.
pub const NAMES: [&str; 5] = ["router.wasm", "responses.wasm", "admin.wasm", "clients.wasm", NATIVE];

/// The native module's file name.
pub const NATIVE: &str = "native.so";

/// The variable with the path of a directory of modules that were built elsewhere.
pub const VARIABLE: &str = "PIXELL_MODULES";

/// The sources of the WebAssembly modules.
const WASM_SOURCES: &[&str] = &[
    "src",
    "crates/core/src",
    "crates/router-module",
    "crates/responses-module",
    "crates/admin-module",
    "crates/clients-module",
    "crates/trim-modules",
    "Cargo.toml",
];

/// The sources of the native module.
const NATIVE_SOURCES: &[&str] = &["crates/native/src", "crates/native/build.rs", "crates/core/src", "Cargo.toml"];

/// The command that builds the shipped modules.
const BUILD: &str = "cargo xtask build";

/// The directory of the built modules: `$PIXELL_MODULES`, else `target/pixell`, where `cargo xtask build` writes them.
///
/// # Errors
/// If a module is missing, or one in `target/pixell` is older than the filter's source: a test of an old module proves nothing.
pub fn locate() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os(VARIABLE) {
        let directory = PathBuf::from(directory);
        check(&directory, &NAMES, &[], BUILD)?;
        return Ok(directory);
    }
    built("pixell", BUILD)
}

/// The directory of the modules with a trap, `target/pixell-trap`: a request with the header `x-test-trap` makes the Wasm modules crash
/// and the native one panic.
///
/// # Errors
/// If a module is missing or older than the filter's source.
pub fn locate_trap() -> Result<PathBuf> {
    built("pixell-trap", "cargo xtask build --test-trap")
}

/// The directory `directory` below `target/` in which `command` builds the modules.
fn built(directory: &str, command: &str) -> Result<PathBuf> {
    let (directory, root) = (workspace::target().join(directory), workspace::root());
    for (name, sources) in NAMES.iter().zip([WASM_SOURCES, WASM_SOURCES, WASM_SOURCES, WASM_SOURCES, NATIVE_SOURCES]) {
        let sources: Vec<_> = sources.iter().map(|source| root.join(source)).collect();
        check(&directory, &[name], &sources, command)?;
    }
    Ok(directory)
}

fn check(directory: &Path, names: &[&str], sources: &[PathBuf], command: &str) -> Result<()> {
    let mut newest = None;
    for source in sources {
        newest = newest.max(newest_below(source)?);
    }
    for name in names {
        let module = directory.join(name);
        let Ok(built) = module.metadata().and_then(|facts| facts.modified()) else {
            bail!("{} is missing: run `{command}`", module.display());
        };
        if let Some((_, source)) = newest.as_ref().filter(|(changed, _)| *changed > built) {
            bail!("{} is older than {}: run `{command}`", module.display(), source.display());
        }
    }
    Ok(())
}

/// The newest file below `path`, with the time of its last change.
fn newest_below(path: &Path) -> Result<Option<(SystemTime, PathBuf)>> {
    let facts = path.metadata().with_context(|| format!("looking at {}", path.display()))?;
    if !facts.is_dir() {
        return Ok(Some((facts.modified()?, path.to_path_buf())));
    }
    let mut newest = None;
    for entry in path.read_dir()? {
        newest = newest.max(newest_below(&entry?.path())?);
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::Duration;

    use super::*;

    #[test]
    fn missing_and_old_modules_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("src");
        fs::create_dir_all(source.join("deep")).unwrap();
        let file = source.join("deep/lib.rs");
        fs::write(&file, "").unwrap();
        let sources = [source];
        let fails = |expected: &str| {
            let error = check(directory.path(), &NAMES, &sources, BUILD).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        fails("router.wasm is missing");
        for name in NAMES {
            fs::write(directory.path().join(name), "").unwrap();
        }
        check(directory.path(), &NAMES, &sources, BUILD).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        fails("is older than");
        fails("deep/lib.rs");
    }
}
