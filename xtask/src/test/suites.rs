//! The table of test suites: the one place where a suite is registered.

use std::process::Command;

use anyhow::Result;
use harness::workspace;

use super::count::Runner;
use super::need::Need;
use crate::command::{cargo, program, read, run};
use crate::{python, tools};

/// One run of one test runner.
pub(super) struct Suite {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it tests, in a line.
    pub about: &'static str,
    /// What must be there first. A need beyond rustup, python3 and node makes it a suite of `--all`.
    pub needs: &'static [Need],
    /// How the count is read.
    pub runner: Runner,
    /// The command, after what only this suite needs has been prepared.
    pub command: fn() -> Result<Command>,
}

impl Suite {
    /// Whether it runs without `--all`.
    #[must_use]
    pub(super) fn is_common(&self) -> bool {
        self.needs.iter().all(|need| need.is_common())
    }
}

/// All suites, in the order they run: what is quick to fail comes first.
pub(super) const SUITES: &[Suite] = &[
    Suite {
        name: "tidy",
        about: "formatting, lints, documentation, pinned versions, the border of the core",
        needs: &[],
        runner: Runner::Plain,
        // By way of cargo, so that its output is read like that of any other runner.
        command: || Ok(cargo(["run", "--quiet", "--package", "xtask", "--", "tidy"])),
    },
    Suite {
        name: "rust",
        about: "all Rust tests on this machine: the core, its properties, the tools, and the filter in a real Envoy",
        needs: &[Need::Modules, Need::TrapModules, Need::Envoy],
        runner: Runner::Cargo,
        command: || Ok(cargo(["test", "--workspace", "--exclude", "system-tests", "--no-fail-fast"])),
    },
    Suite {
        name: "netns",
        about: "a caller outside the task, in a network namespace of its own: who may do what",
        needs: &[Need::Modules, Need::Envoy, Need::Debian { program: "ip", package: "iproute2" }],
        runner: Runner::Cargo,
        command: || Ok(cargo(["test", "--test", "netns"])),
    },
    Suite {
        name: "versions",
        about: "the smoke set on the older Envoy releases that are supported",
        needs: &[Need::Modules, Need::OlderEnvoys],
        runner: Runner::Cargo,
        command: || Ok(cargo(["test", "--test", "versions"])),
    },
    Suite {
        name: "wasm",
        about: "the core's unit tests again as WebAssembly, under Node.js",
        needs: &[Need::Node],
        runner: Runner::Cargo,
        command: wasm,
    },
    Suite {
        name: "python",
        about: "the Python client: its form and types, and its tests against a real Envoy",
        needs: &[Need::Modules, Need::Envoy],
        runner: Runner::Pytest,
        command: python,
    },
    Suite {
        name: "api",
        about: "the route API against its formal description, by schemathesis too, and every snippet of its documentation",
        needs: &[Need::Modules, Need::Envoy],
        runner: Runner::Pytest,
        command: api,
    },
    Suite {
        name: "peers",
        about: "agents and callers made of other people's libraries: the A2A SDK and grpcio with health, reflection, rich errors",
        needs: &[Need::Modules, Need::Envoy],
        runner: Runner::Pytest,
        command: peers,
    },
    Suite {
        name: "deploy",
        about: "the rollout: its form and types, and the script with the real AWS CLI against a stand-in for AWS",
        needs: &[
            Need::Modules,
            Need::Envoy,
            Need::Debian { program: "curl", package: "curl" },
            Need::Debian { program: "git", package: "git" },
            Need::Debian { program: "jq", package: "jq" },
            Need::Debian { program: "shellcheck", package: "shellcheck" },
        ],
        runner: Runner::Pytest,
        command: deploy,
    },
    Suite {
        name: "demo",
        about: "the demo: two agents answer by id through Envoy",
        needs: &[Need::Modules, Need::Envoy],
        runner: Runner::Whole,
        command: || Ok(cargo(["run", "--quiet", "--package", "xtask", "--", "demo", "--check"])),
    },
    Suite {
        name: "browser",
        about: "the status page in a headless Chromium",
        needs: &[
            Need::Modules,
            Need::TrapModules,
            Need::Envoy,
            Need::Debian { program: "chromium", package: "chromium" },
            Need::Debian { program: "chromedriver", package: "chromium-driver" },
        ],
        runner: Runner::Cargo,
        // Two browsers at a time: each is some ten processes.
        command: || Ok(cargo(["test", "--package", "system-tests", "--test", "browser", "--", "--test-threads", "2"])),
    },
    Suite {
        name: "promtool",
        about: "alert rules, metrics and dashboard: by Prometheus' own checks, and by a Prometheus that looks at a live Envoy",
        needs: &[Need::Modules, Need::TrapModules, Need::Envoy, Need::Debian { program: "promtool", package: "prometheus" }],
        runner: Runner::Cargo,
        command: || Ok(cargo(["test", "--package", "system-tests", "--test", "promtool", "--test", "prometheus"])),
    },
    Suite {
        name: "bench",
        about: "the bench, two rounds of the filter and its floor, to show that it works; figures are not judged",
        needs: &[Need::Modules, Need::Envoy],
        runner: Runner::Whole,
        command: || {
            let bench = ["bench", "--rounds", "2", "--only", "none,ours,size,streaming"];
            Ok(cargo(["run", "--quiet", "--package", "xtask", "--"].into_iter().chain(bench)))
        },
    },
    Suite {
        name: "integration",
        about: "the image, composed with a stand-in PAR and agents: starts, redeploys, failures, stops",
        needs: &[
            Need::Debian { program: "docker", package: "docker.io" },
            Need::Debian { program: "docker-compose", package: "docker-compose" },
        ],
        runner: Runner::Pytest,
        command: || Ok(cargo(["run", "--quiet", "--package", "xtask", "--", "integration"])),
    },
    Suite {
        name: "scripts",
        about: "shellcheck on every shell script",
        needs: &[Need::Debian { program: "shellcheck", package: "shellcheck" }],
        runner: Runner::Whole,
        command: scripts,
    },
];

fn wasm() -> Result<Command> {
    const TARGET: &str = "wasm32-unknown-unknown";
    tools::wasm_target(TARGET)?;
    let runner = tools::wasm_bindgen_test_runner()?;
    let mut test = cargo(["test", "--package", "pixell-router", "--lib", "--target", TARGET]);
    test.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner).env("WASM_BINDGEN_TEST_ONLY_NODE", "1");
    Ok(test)
}

fn python() -> Result<Command> {
    const CLIENT: &str = "clients/python";
    let install = ["--editable", "clients/python[test]"];
    let programs = python::environment("venv-python", &install, &["clients/python/pyproject.toml"])?;
    let client = workspace::root().join(CLIENT);
    let tool = |name: &str| {
        let mut tool = program(&programs.join(name).to_string_lossy());
        tool.current_dir(&client);
        tool
    };
    // One set of tools for all Python here.
    let all = [".", "../../integration", "../../tests/peers"];
    run(tool("ruff").args(["format", "--check"]).args(all))?;
    run(tool("ruff").arg("check").args(all))?;
    scenarios_types()?;
    run(&mut tool("mypy"))?;
    Ok(tool("pytest"))
}

/// Checks the types of the stand-in PAR and the scenarios, which run in containers only.
fn scenarios_types() -> Result<()> {
    const REQUIREMENTS: &str = "integration/requirements-check.txt";
    let install = ["--requirement", REQUIREMENTS, "--editable", "clients/python"];
    let made_of = [REQUIREMENTS, "integration/requirements.txt", "clients/python/pyproject.toml"];
    let programs = python::environment("venv-integration", &install, &made_of)?;
    run(program(&programs.join("mypy").to_string_lossy()).current_dir(workspace::root().join("integration")))
}

fn api() -> Result<Command> {
    const REQUIREMENTS: &str = "tests/api/requirements.txt";
    let install = ["--requirement", REQUIREMENTS, "--editable", "clients/python"];
    let programs = python::environment("venv-api", &install, &[REQUIREMENTS, "clients/python/pyproject.toml"])?;
    let mut pytest = program(&programs.join("pytest").to_string_lossy());
    pytest.current_dir(workspace::root().join("tests/api"));
    Ok(pytest)
}

fn peers() -> Result<Command> {
    const REQUIREMENTS: &str = "tests/peers/requirements.txt";
    let programs = python::environment("venv-peers", &["--requirement", REQUIREMENTS], &[REQUIREMENTS])?;
    let tool = |name: &str| {
        let mut tool = program(&programs.join(name).to_string_lossy());
        tool.current_dir(workspace::root().join("tests/peers"));
        tool
    };
    run(&mut tool("mypy"))?;
    Ok(tool("pytest"))
}

fn deploy() -> Result<Command> {
    const REQUIREMENTS: &str = "deploy/tests/requirements.txt";
    let programs = python::environment("venv-deploy", &["--requirement", REQUIREMENTS], &[REQUIREMENTS])?;
    let tool = |name: &str| {
        let mut tool = program(&programs.join(name).to_string_lossy());
        tool.current_dir(workspace::root().join("deploy/tests"));
        tool
    };
    run(tool("ruff").args(["format", "--check", "."]))?;
    run(tool("ruff").args(["check", "."]))?;
    run(&mut tool("mypy"))?;
    Ok(tool("pytest"))
}

fn scripts() -> Result<Command> {
    // The files of deploy/lib are one program with deploy/pixell-envoy, and looked at with it.
    let listing = [
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "*.sh",
        ".ci/run",
        "deploy/pixell-envoy",
        ":!deploy/lib",
    ];
    let listed = read(program("git").args(listing))?;
    let mut shellcheck = program("shellcheck");
    // Without this, a file that another one sources is read but its faults are not told.
    shellcheck.arg("--check-sourced").args(listed.lines());
    Ok(shellcheck)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_words() {
        let mut seen = HashSet::new();
        for suite in SUITES {
            assert!(seen.insert(suite.name), "{} is there twice", suite.name);
            assert!(suite.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", suite.name);
        }
    }
}
