//! The image's files in a directory that its entry point takes for the root of the file system: no container engine is needed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::envoy::modules;
use launcher::filter::Filter;
use launcher::settings::FILTER;
use tempfile::TempDir;
use workspace::envoy as binary;

/// Where the image has its entry point.
const ENTRY_POINT: &str = "usr/local/bin/pixell-envoy";

/// The image, without the rest of its base.
pub(crate) struct Image {
    root: TempDir,
}

impl Image {
    /// The image with this release of Envoy.
    pub(crate) fn with(version: &str) -> Self {
        // Beside the releases, so that a link is enough for a file of 100 MB.
        let image = Self { root: tempfile::tempdir_in(workspace::target()).unwrap() };
        let (envoy, shipped) = (binary::release(version).unwrap(), workspace::root().join("envoy"));
        fs::hard_link(&envoy, image.place("usr/local/bin/envoy")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_entry-point"), image.place(ENTRY_POINT)).unwrap();
        for name in ["envoy.yaml", "log-rate.yaml"] {
            fs::copy(shipped.join(name), image.place(&format!("etc/envoy/{name}"))).unwrap();
        }
        for name in modules::NAMES {
            fs::copy(modules::locate().unwrap().join(name), image.place(&format!("usr/local/lib/pixell-envoy/{name}")))
                .unwrap();
        }
        fs::create_dir_all(image.root.path().join("run/pixell-envoy")).unwrap();
        // Programs read nothing from it, as from the real one.
        fs::write(image.place("dev/null"), "").unwrap();
        for library in libraries(&envoy).into_iter().chain(libraries(Path::new(env!("CARGO_BIN_EXE_entry-point")))) {
            fs::copy(&library, image.place(library.to_str().unwrap().trim_start_matches('/'))).unwrap();
        }
        image
    }

    /// The path of a file of the image, in a directory that exists.
    fn place(&self, path: &str) -> PathBuf {
        let place = self.root.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    /// Runs the entry point with this form of the filter, and has Envoy validate its configuration instead of serving. Returns the exit code
    /// and what was written.
    pub(crate) fn validate(&self, filter: Filter) -> (Option<i32>, String) {
        let mut command = Command::new("unshare");
        // Root may change the root directory as it is.
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            command.arg("--map-root-user");
        }
        command.arg("--root").arg(self.root.path()).arg(format!("/{ENTRY_POINT}")).args(["--mode", "validate"]);
        let output = command.env_clear().env(FILTER, filter.name()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

/// The shared libraries that a program needs, and its loader.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    assert!(output.status.success(), "ldd {}: {output:?}", program.display());
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
