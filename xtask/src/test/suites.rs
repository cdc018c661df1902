//! The table of test suites. A new suite is added here and nowhere else.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use launcher::filter::Filter;
use launcher::settings::FILTER;

use super::count::Runner;
use super::need::Need;
use super::suite::Suite;
use super::wasm_only;
use crate::command::{cargo, program, read, run};
use crate::{python, tools};

/// What tests in network namespaces need.
const NAMESPACES: &[Need] = &[
    Need::Modules,
    Need::TrapModules,
    Need::Envoy,
    Need::OpenSsl,
    Need::Debian { program: "ip", package: "iproute2" },
    Need::Debian { program: "haproxy", package: "haproxy" },
];

/// All suites. They run from both ends at once, those that compile and compute from the first, those that mostly wait from the last;
/// what fails quickly is near its end.
pub(super) const SUITES: &[Suite] = &[
    Suite {
        name: "tidy",
        seconds: 180,
        about: "formatting, lints, documentation, pinned versions, lock files",
        needs: &[],
        runner: Runner::Plain,
        // Run by cargo, so that its output is read like that of any other runner.
        command: || Ok(cargo(["run", "--quiet", "--package", "xtask", "--", "tidy"])),
    },
    Suite {
        name: "scripts",
        seconds: 1,
        about: "shellcheck on every shell script",
        needs: &[Need::Debian { program: "shellcheck", package: "shellcheck" }],
        runner: Runner::Whole,
        command: scripts,
    },
    Suite {
        name: "rust",
        seconds: 1370,
        about: "all Rust tests on this machine: the core, its properties, the tools, and the filter in a real Envoy",
        needs: &[Need::Modules, Need::TrapModules, Need::Envoy, Need::OpenSsl],
        runner: Runner::Cargo,
        command: || Ok(cargo(["test", "--workspace", "--no-fail-fast"])),
    },
    Suite {
        name: "native",
        seconds: 450,
        about: "the native filter: every test against Envoy that is not only about Wasm, and the tests that are only about the native filter",
        needs: &[Need::Modules, Need::TrapModules, Need::Envoy, Need::OpenSsl],
        runner: Runner::Cargo,
        command: native,
    },
    Suite {
        name: "netns",
        seconds: 370,
        about: "network namespaces: clients outside the task, near and far, and several tasks, also under load and with DynamoDB",
        needs: NAMESPACES,
        runner: Runner::Cargo,
        command: netns,
    },
    Suite {
        name: "native-netns",
        seconds: 160,
        about: "several tasks in network namespaces, with the native filter",
        needs: NAMESPACES,
        runner: Runner::Cargo,
        command: || {
            let mut test = tests(&["fleet"]);
            test.env(FILTER, Filter::Native.name());
            Ok(test)
        },
    },
    Suite {
        name: "versions",
        seconds: 30,
        about: "the smoke tests on the older supported Envoy releases, with both forms of the filter",
        needs: &[Need::Modules, Need::Envoy, Need::OlderEnvoys],
        runner: Runner::Cargo,
        command: || Ok(tests(&["versions"])),
    },
    Suite {
        name: "cost",
        seconds: 200,
        about: "what the native filter costs a request, in instructions",
        needs: &[Need::Debian { program: "valgrind", package: "valgrind" }],
        runner: Runner::Whole,
        command: || Ok(cargo(["test", "--package", "pixell-native", "--profile", "native", "--test", "cost"])),
    },
    Suite {
        name: "asan",
        seconds: 45,
        about: "hostile calls of the native module under AddressSanitizer, with a stand-in for Envoy",
        needs: &[],
        runner: Runner::Cargo,
        command: asan,
    },
    Suite {
        name: "arm",
        seconds: 80,
        about: "the image's files, built for arm64: the processor and the libraries that they need",
        needs: &[Need::Modules, Need::Debian { program: "aarch64-linux-gnu-gcc", package: "g++-aarch64-linux-gnu" }],
        runner: Runner::Whole,
        command: || Ok(cargo(["run", "--quiet", "--package", "xtask", "--", "arm64"])),
    },
    Suite {
        name: "wasm",
        seconds: 290,
        about: "the core's unit tests again as WebAssembly, under Node.js",
        needs: &[Need::Node],
        runner: Runner::Cargo,
        command: wasm,
    },
    Suite {
        name: "deny",
        seconds: 80,
        about: "licences and sources of all crates, and versions that are there twice, by cargo-deny",
        needs: &[Need::CargoDeny],
        runner: Runner::Whole,
        command: deny,
    },
    Suite {
        name: "nginx",
        seconds: 60,
        about: "nginx in front of the data path, with its defaults; and socat in front of an agent on a Unix socket",
        needs: &[
            Need::Modules,
            Need::Envoy,
            Need::Debian { program: "nginx", package: "nginx-light" },
            Need::Debian { program: "socat", package: "socat" },
        ],
        runner: Runner::Cargo,
        command: || Ok(tests(&["nginx", "unix_socket"])),
    },
    Suite {
        name: "promtool",
        seconds: 40,
        about: "alert rules, metrics and dashboard: with Prometheus' own checks, and with a Prometheus that scrapes a running Envoy",
        needs: &[Need::Modules, Need::TrapModules, Need::Envoy, Need::Debian { program: "promtool", package: "prometheus" }],
        runner: Runner::Cargo,
        command: || Ok(tests(&["promtool", "prometheus"])),
    },
    Suite {
        name: "bench",
        seconds: 170,
        about: "a round of the bench, to show that it works; the figures are not checked",
        needs: &[Need::Modules, Need::Envoy, Need::OpenSsl],
        runner: Runner::Whole,
        command: || {
            let contenders = "bare,none,ours-20,native-20,lua,caddy,with,without,h2";
            let sections = "size,streaming,native-writes,fleet,native-fleet,authentication,native-authentication";
            Ok(bench(&format!("{contenders},{sections}")))
        },
    },
    Suite {
        name: "bench-fleet",
        seconds: 100,
        about: "the same for what the bench measures between tasks, in network namespaces",
        needs: &[Need::Modules, Need::Envoy, Need::Debian { program: "ip", package: "iproute2" }],
        runner: Runner::Whole,
        command: || Ok(bench("hop,native-hop")),
    },
    Suite {
        name: "demo",
        seconds: 5,
        about: "the demo: two agents are called by id through Envoy",
        needs: &[Need::Modules, Need::Envoy],
        runner: Runner::Whole,
        command: || Ok(cargo(["run", "--quiet", "--package", "xtask", "--", "demo", "--check"])),
    },
    Suite {
        name: "demo-fleet",
        seconds: 20,
        about: "the demo of a fleet: two tasks with a directory, of which one vanishes",
        needs: &[
            Need::Modules,
            Need::Envoy,
            Need::Debian { program: "ip", package: "iproute2" },
            Need::Debian { program: "redis-server", package: "redis-server" },
        ],
        runner: Runner::Whole,
        command: || Ok(cargo(["run", "--quiet", "--package", "xtask", "--", "demo", "--fleet"])),
    },
    Suite {
        name: "rates",
        seconds: 40,
        about: "rates, counted by the agents, while h2load sends more than they allow",
        needs: &[Need::Modules, Need::Envoy, Need::Debian { program: "h2load", package: "nghttp2-client" }],
        runner: Runner::Pytest,
        command: rates,
    },
    Suite {
        name: "redis",
        seconds: 40,
        about: "the Python client's fleet with its directory in a real Redis",
        needs: &[Need::Debian { program: "redis-server", package: "redis-server" }],
        runner: Runner::Pytest,
        command: redis,
    },
    Suite {
        name: "deploy",
        seconds: 90,
        about: "the rollout: its form and types, and every command against AWS in this process",
        needs: &[Need::Debian { program: "git", package: "git" }, Need::OpenSsl],
        runner: Runner::Pytest,
        command: deploy,
    },
    Suite {
        name: "browser",
        seconds: 210,
        about: "the status page, and pages that call agents, in a headless Chromium; with both forms of the filter",
        needs: &[
            Need::OpenSsl,
            Need::Modules,
            Need::TrapModules,
            Need::Envoy,
            Need::Debian { program: "chromium", package: "chromium" },
            Need::Debian { program: "chromedriver", package: "chromium-driver" },
        ],
        runner: Runner::Cargo,
        // Two browsers at a time: each is some ten processes.
        command: || {
            let mut test = tests(&["browser"]);
            test.args(["--", "--test-threads", "2"]);
            Ok(test)
        },
    },
    Suite {
        name: "api",
        seconds: 120,
        about: "the route API against its formal description, by schemathesis too, and every snippet of its documentation",
        needs: &[Need::Modules, Need::Envoy],
        runner: Runner::Pytest,
        command: api,
    },
    Suite {
        name: "peers",
        seconds: 590,
        about: "agents and clients made with other people's libraries: the A2A SDK and grpcio with health, reflection, rich errors; TLS, tokens and rates",
        needs: &[Need::Modules, Need::Envoy, Need::OpenSsl],
        runner: Runner::Pytest,
        command: peers,
    },
    Suite {
        name: "python",
        seconds: 790,
        about: "the Python client: its form and types, and its tests against a real Envoy",
        needs: &[Need::Modules, Need::Envoy],
        runner: Runner::Pytest,
        command: python,
    },
    Suite {
        name: "fleet-integration",
        seconds: 250,
        about: "a fleet of three such tasks with Redis and a load balancer: rolling deployment, moves, a task or the directory lost",
        needs: &[
            Need::Debian { program: "docker", package: "docker.io" },
            Need::Debian { program: "docker-compose", package: "docker-compose" },
        ],
        runner: Runner::Pytest,
        command: || Ok(cargo(["run", "--quiet", "--package", "xtask", "--", "integration", "--fleet"])),
    },
    Suite {
        name: "integration",
        seconds: 670,
        about: "the image with a stand-in PAR and agents, in containers: starts, redeploys, failures, stops",
        needs: &[
            Need::Debian { program: "docker", package: "docker.io" },
            Need::Debian { program: "docker-compose", package: "docker-compose" },
        ],
        runner: Runner::Pytest,
        command: || Ok(cargo(["run", "--quiet", "--package", "xtask", "--", "integration"])),
    },
];

/// These tests of `tests/`. The whole workspace decides which features their dependencies have, so that nothing is compiled a second time
/// for a part of it.
fn tests(names: &[&str]) -> Command {
    cargo(["test", "--workspace"].into_iter().chain(names.iter().flat_map(|name| ["--test", name])))
}

fn native() -> Result<Command> {
    let mut test = tests(&["envoy", "native"]);
    test.arg("--no-fail-fast").args(wasm_only::skips()).env(FILTER, Filter::Native.name());
    Ok(test)
}

/// A round of these parts of the bench.
fn bench(only: &str) -> Command {
    let bench = ["run", "--quiet", "--package", "xtask", "--", "bench", "--rounds", "1", "--only", only];
    cargo(bench)
}

fn asan() -> Result<Command> {
    // With a target of its own, the flag does not apply to build scripts.
    let host = read(program("rustc").args(["--print", "host-tuple"]))?;
    let target = workspace::target().join("asan");
    let mut test = cargo(["test", "--package", "pixell-native", "--test", "hostile", "--target", host.trim()]);
    // The sanitizer's runtime comes with stable Rust, but its flag counts as unstable.
    test.arg("--target-dir").arg(target).env("RUSTFLAGS", "-Zsanitizer=address").env("RUSTC_BOOTSTRAP", "1");
    Ok(test)
}

fn wasm() -> Result<Command> {
    const TARGET: &str = "wasm32-unknown-unknown";
    tools::rust_target(TARGET)?;
    let runner = tools::wasm_bindgen_test_runner()?;
    let mut test = cargo(["test", "--package", "pixell-core", "--lib", "--target", TARGET]);
    test.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner).env("WASM_BINDGEN_TEST_ONLY_NODE", "1");
    Ok(test)
}

fn python() -> Result<Command> {
    let programs = python::CLIENT.programs()?;
    let tool = |name| tool(&programs, name, "clients/python");
    // All Python files here have the same rules, except those of the rollout.
    let all = [".", "../../integration", "../../tests/peers", "../../tests/directory"];
    run(tool("ruff").args(["format", "--check"]).args(all))?;
    run(tool("ruff").arg("check").args(all))?;
    // The stand-in PAR and the scenarios run only in containers; their types are checked here.
    run(&mut self::tool(&python::INTEGRATION.programs()?, "mypy", "integration"))?;
    run(&mut tool("mypy"))?;
    let mut pytest = tool("pytest");
    pytest.args(["-m", "not redis"]);
    Ok(pytest)
}

fn netns() -> Result<Command> {
    let mut test = tests(&["netns", "fleet", "directory", "slow_readers"]);
    test.env("PIXELL_CLIENT_PYTHON", python::CLIENT.programs()?.join("python"));
    Ok(test)
}

fn redis() -> Result<Command> {
    let mut pytest = tool(&python::CLIENT.programs()?, "pytest", "clients/python");
    pytest.args(["-m", "redis"]);
    Ok(pytest)
}

fn api() -> Result<Command> {
    Ok(tool(&python::API.programs()?, "pytest", "tests/api"))
}

fn peers() -> Result<Command> {
    let programs = python::PEERS.programs()?;
    run(&mut tool(&programs, "mypy", "tests/peers"))?;
    let old = python::A2A_0_3.programs()?.join("python");
    let mut pytest = tool(&programs, "pytest", "tests/peers");
    pytest.args(["-m", "not load"]).env("A2A_0_3_PYTHON", old);
    Ok(pytest)
}

fn rates() -> Result<Command> {
    let mut pytest = tool(&python::PEERS.programs()?, "pytest", "tests/peers");
    pytest.args(["-m", "load"]);
    Ok(pytest)
}

fn deploy() -> Result<Command> {
    let programs = python::DEPLOY.programs()?;
    let tool = |name| tool(&programs, name, "deploy");
    run(tool("ruff").args(["format", "--check", "."]))?;
    run(tool("ruff").args(["check", "."]))?;
    run(&mut tool("mypy"))?;
    Ok(tool("pytest"))
}

/// A command of the Python environment's program `name`, in `directory`.
fn tool(programs: &Path, name: &str, directory: &str) -> Command {
    let mut tool = program(&programs.join(name).to_string_lossy());
    tool.current_dir(workspace::root().join(directory));
    tool
}

fn deny() -> Result<Command> {
    let check = |manifest: &str, what: &[&str]| {
        let mut deny = program(&tools::cargo_deny()?.to_string_lossy());
        deny.args(["--manifest-path", manifest, "--config", "deny.toml", "check"]).args(what);
        anyhow::Ok(deny)
    };
    // These two never ship, and what they are made of decides which versions are there twice.
    for manifest in ["crates/fuzz/Cargo.toml", "crates/wasm-runner/Cargo.toml"] {
        run(&mut check(manifest, &["licenses", "sources"])?)?;
    }
    check("Cargo.toml", &["bans", "licenses", "sources"])
}

fn scripts() -> Result<Command> {
    let listing = ["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.sh", ".ci/run"];
    let listed = read(program("git").args(listing))?;
    let mut shellcheck = program("shellcheck");
    // Without this, a file that another one sources is read, but its errors are not shown.
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
            assert!(seen.insert(suite.name), "two suites are called {}", suite.name);
            assert!(suite.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", suite.name);
        }
    }
}
