"""schemathesis reads docs/openapi.yaml, generates calls that fit it and calls that do not, and checks each response."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import ROOT, TOKEN
from envoy_process import EnvoyProcess
from http_call import call

# Seconds: when schemathesis stops generating calls, and when the test takes it for hanging.
SECONDS = 25
LONGEST = 240


def run_schemathesis(url: str, directory: Path, headers: dict[str, str]) -> None:
    """Runs every phase and every check."""
    # Without a map no condition can hold.
    assert call(url, "PUT", "/v1/routes", b'{"routes":{}}', headers).status == 200
    assert call(url, "PUT", "/v1/fleet", b'{"peers":{},"routes":{}}', headers).status == 200
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "tests/api/schemathesis.toml")]
    command += ["run", str(ROOT / "docs/openapi.yaml"), "--url", url, "--checks", "all", "--max-time", str(SECONDS)]
    command += ["--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"]
    command += [argument for name, value in headers.items() for argument in ("--header", f"{name}: {value}")]
    done = subprocess.run(command, cwd=directory, timeout=LONGEST, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    # The output has the seed, and a curl command for each violation.
    assert done.returncode == 0, "schemathesis found violations, see above"
    assert "Tested: 11" in done.stdout, "not every operation was tested"


def reloads(envoy: EnvoyProcess) -> int:
    stats = call(envoy.url, "GET", "/stats?filter=vm_reload").body.decode()
    counts = [int(line.rsplit(": ", 1)[1]) for line in stats.splitlines()]
    assert counts, "Envoy has no vm_reload counters"
    return sum(counts)


def test_no_response_violates_the_document(envoy: EnvoyProcess, tmp_path: Path) -> None:
    run_schemathesis(envoy.url, tmp_path, {})
    assert reloads(envoy) == 0


def test_no_response_violates_the_document_with_a_token(guarded_envoy: EnvoyProcess, tmp_path: Path) -> None:
    run_schemathesis(guarded_envoy.url, tmp_path, {"Authorization": f"Bearer {TOKEN}"})
    assert reloads(guarded_envoy) == 0
