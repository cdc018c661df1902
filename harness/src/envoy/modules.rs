//! The two built modules, checked to be there and to be those of the source at hand.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The modules' file names: one for each role of the filter.
pub const NAMES: [&str; 2] = ["router.wasm", "admin.wasm"];

/// The variable that names a directory of modules built elsewhere.
pub const VARIABLE: &str = "PIXELL_MODULES";

/// What builds the modules that ship.
const BUILD: &str = "cargo xtask build";

/// The directory of the built modules: `$PIXELL_MODULES`, else `target/pixell`, where `cargo xtask build` writes.
///
/// # Errors
/// Where one is missing. Those in `target/pixell` must also be younger than the filter's source: a test of yesterday's
/// module proves nothing.
pub fn locate() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os(VARIABLE) {
        let directory = PathBuf::from(directory);
        check(&directory, &[], BUILD)?;
        return Ok(directory);
    }
    built("pixell", BUILD)
}

/// The directory of the modules with a trap, `target/pixell-trap`: a request with the header `x-test-trap` crashes their data path.
///
/// # Errors
/// Where one is missing or older than the filter's source.
pub fn locate_trap() -> Result<PathBuf> {
    built("pixell-trap", "cargo xtask build --test-trap")
}

/// The modules below `target/` that `command` builds from the source at hand.
fn built(directory: &str, command: &str) -> Result<PathBuf> {
    let (directory, root) = (workspace::target().join(directory), workspace::root());
    check(&directory, &["src", "modules", "Cargo.toml"].map(|source| root.join(source)), command)?;
    Ok(directory)
}

fn check(directory: &Path, sources: &[PathBuf], command: &str) -> Result<()> {
    let mut newest = None;
    for source in sources {
        newest = newest.max(newest_below(source)?);
    }
    for name in NAMES {
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

/// The file below `path` that was changed last.
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
    fn missing_stale_and_fresh_modules_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("src");
        fs::create_dir_all(source.join("deep")).unwrap();
        let file = source.join("deep/lib.rs");
        fs::write(&file, "").unwrap();
        let sources = [source];
        let fault = |expected: &str| {
            let error = check(directory.path(), &sources, BUILD).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        fault("router.wasm is missing");
        for name in NAMES {
            fs::write(directory.path().join(name), "").unwrap();
        }
        check(directory.path(), &sources, BUILD).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        fault("is older than");
        fault("deep/lib.rs");
    }
}
