//! Python virtual environments below `target/`. Each is installed from a lock file that names the version and hashes of every package, so
//! that a new release of a package cannot change a test run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{self, program, say};

/// The oldest Python that the client and its tools support.
const OLDEST: (u32, u32) = (3, 9);

/// A virtual environment and the lock file that it is installed from. Paths are relative to the top of the repository.
pub(crate) struct Environment {
    /// Its directory below `target/`.
    pub(crate) name: &'static str,
    /// The lock file that it is installed from, with hashes.
    pub(crate) lock: Lock,
    /// Whether the Python client is installed on top, as an editable package.
    pub(crate) client: bool,
}

/// A lock file and its sources.
pub(crate) struct Lock {
    /// The path of the lock file.
    pub(crate) path: &'static str,
    /// Its sources. `cargo xtask lock` resolves the first file, which includes the others.
    pub(crate) sources: &'static [&'static str],
    /// The oldest Python that the packages must support.
    pub(crate) python: &'static str,
}

/// For the client's tests, and for ruff on all Python files here except those of the rollout.
pub(crate) const CLIENT: Environment = Environment {
    name: "venv-python",
    lock: Lock { path: "clients/python/requirements.txt", sources: &["clients/python/requirements.in"], python: "3.9" },
    client: true,
};

/// For the type check of the stand-in PAR and the scenarios.
pub(crate) const INTEGRATION: Environment = Environment {
    name: "venv-integration",
    lock: Lock {
        path: "integration/requirements-check.txt",
        sources: &["integration/requirements-check.in", "integration/requirements.in"],
        python: "3.11",
    },
    client: true,
};

/// For the tests of the route API against its formal description.
pub(crate) const API: Environment = Environment {
    name: "venv-api",
    lock: Lock { path: "tests/api/requirements.txt", sources: &["tests/api/requirements.in"], python: "3.11" },
    client: true,
};

/// For agents and clients made from other people's libraries.
pub(crate) const PEERS: Environment = Environment {
    name: "venv-peers",
    lock: Lock { path: "tests/peers/requirements.txt", sources: &["tests/peers/requirements.in"], python: "3.11" },
    client: false,
};

/// The A2A SDK 0.3, which does not fit into one environment with 1.x.
pub(crate) const A2A_0_3: Environment = Environment {
    name: "venv-a2a-0.3",
    lock: Lock {
        path: "tests/peers/a2a_0_3/requirements.txt",
        sources: &["tests/peers/a2a_0_3/requirements.in"],
        python: "3.11",
    },
    client: false,
};

/// For the rollout's tests.
pub(crate) const DEPLOY: Environment = Environment {
    name: "venv-deploy",
    lock: Lock {
        path: "deploy/tests/requirements.txt",
        sources: &["deploy/tests/requirements.in", "deploy/requirements.in"],
        python: "3.11",
    },
    client: false,
};

/// The rollout's packages, which its operator installs.
const ROLLOUT: Lock = Lock { path: "deploy/requirements.txt", sources: &["deploy/requirements.in"], python: "3.11" };

/// For the resolver that `cargo xtask lock` runs.
pub(crate) const RESOLVER: Environment = Environment {
    name: "venv-lock",
    lock: Lock { path: "xtask/requirements.txt", sources: &["xtask/requirements.in"], python: "3.9" },
    client: false,
};

/// The packages of the stand-in PAR's image, which its Dockerfile installs.
const STAND_IN_PAR: Lock =
    Lock { path: "integration/requirements.txt", sources: &["integration/requirements.in"], python: "3.11" };

/// The Python router and Caddy, which the bench measures; the bench installs them.
const BENCH: Lock = Lock { path: "crates/bench/requirements.txt", sources: &["crates/bench/requirements.in"], python: "3.10" };

/// Every lock file that `cargo xtask lock` writes.
pub(crate) const LOCKS: [&Lock; 10] = [
    &CLIENT.lock,
    &STAND_IN_PAR,
    &INTEGRATION.lock,
    &API.lock,
    &PEERS.lock,
    &A2A_0_3.lock,
    &ROLLOUT,
    &DEPLOY.lock,
    &BENCH,
    &RESOLVER.lock,
];

impl Environment {
    /// The directory of the environment's programs. The environment is made if it is missing, or if its lock file, the client's
    /// manifest or Python itself has changed.
    ///
    /// # Errors
    /// If Python, its venv module or a package is missing; the error says what to do.
    pub(crate) fn programs(&self) -> Result<PathBuf> {
        const MANIFEST: &str = "clients/python/pyproject.toml";
        let read = |path: &str| fs::read_to_string(workspace::root().join(path)).with_context(|| format!("reading {path}"));
        let mut recipe = format!("{}\n{}", version()?, read(self.lock.path)?);
        if self.client {
            recipe += &read(MANIFEST)?;
        }
        let home = workspace::target().join(self.name);
        // Another suite may make the same one at this time.
        let _lock = workspace::lock(self.name)?;
        // The stamp is written last, so that an unfinished environment is not used.
        let stamp = home.join("recipe");
        let programs = home.join("bin");
        if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
            return Ok(programs);
        }
        say(&format!("making the Python environment {}", home.display()));
        command::run(program("python3").args(["-m", "venv", "--clear"]).arg(&home)).context(
            "python3 cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)",
        )?;
        // uv takes a tenth of the time that pip takes; it is itself installed by pip.
        let run = |arguments: &[&str]| {
            let mut installer = if self.name == RESOLVER.name { pip(&programs) } else { uv(&programs)? };
            command::run(installer.args(arguments))
        };
        // Python compiles what it imports. Compiling every file of every package would double the time.
        run(&["install", "--no-compile", "--require-hashes", "--requirement", self.lock.path])
            .context("the packages cannot be installed: check that PyPI can be reached")?;
        if self.client {
            // The client's build backend is in the lock file, too.
            run(&["install", "--no-index", "--no-deps", "--no-build-isolation", "--editable", "clients/python"])?;
        }
        run(&["check"]).with_context(|| format!("{} lacks a package that another one needs", self.lock.path))?;
        fs::write(&stamp, recipe).with_context(|| format!("writing {}", stamp.display()))?;
        Ok(programs)
    }
}

/// pip of the environment with these programs.
fn pip(programs: &Path) -> Command {
    let mut pip = program(&programs.join("python").to_string_lossy());
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    pip
}

/// uv for the environment with these programs, with the certificates of the system and the index that pip is told to use.
fn uv(programs: &Path) -> Result<Command> {
    let resolver = RESOLVER.programs()?;
    let mut uv = program(&resolver.join("uv").to_string_lossy());
    uv.args(["pip", "--quiet"]).env("VIRTUAL_ENV", programs.parent().unwrap_or(programs));
    uv.env("UV_NO_CONFIG", "1").env("UV_PYTHON_DOWNLOADS", "never").env("UV_NATIVE_TLS", "1");
    if let Some(index) = index(&command::read(pip(&resolver).args(["config", "list"]))?) {
        uv.env("UV_DEFAULT_INDEX", index);
    }
    Ok(uv)
}

/// The index in the output of `pip config list`. The environment counts before files.
fn index(configuration: &str) -> Option<&str> {
    let of = |name: &str| {
        let values = configuration.lines().filter_map(|line| line.split_once('='));
        values.filter(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('\'')).next_back()
    };
    [":env:.index-url", "install.index-url", "global.index-url"].into_iter().find_map(of)
}

/// The output of `python3 --version`, after a check that it is not too old.
fn version() -> Result<String> {
    let (major, minor) = OLDEST;
    let advice = format!("install Python {major}.{minor} or later (Debian: apt-get install python3 python3-venv)");
    let said = command::read(program("python3").arg("--version")).with_context(|| format!("python3 is missing: {advice}"))?;
    anyhow::ensure!(parse(&said).is_some_and(|found| found >= OLDEST), "python3 is {}: {advice}", said.trim());
    Ok(said.trim().to_owned())
}

/// Parses `Python 3.11.7`.
fn parse(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix("Python ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pips_index() {
        let file = "global.cert='/etc/ssl/x.pem'\nglobal.index-url='https://a.test/simple'\n";
        assert_eq!(index(file), Some("https://a.test/simple"));
        assert_eq!(index(&format!(":env:.index-url='https://b.test/s?x=1'\n{file}")), Some("https://b.test/s?x=1"));
        assert_eq!(index(":env:.cert='/x'\n"), None);
    }

    #[test]
    fn reads_pythons_version() {
        assert_eq!(parse("Python 3.11.7\n"), Some((3, 11)));
        assert_eq!(parse("Python 3.15.0rc1"), Some((3, 15)));
        assert_eq!(parse("3.11"), None);
    }
}
