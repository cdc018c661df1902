"""The package works without the stores' libraries, and says which extra is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("redis", "boto3", "botocore"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import pixell_envoy.fleet as fleet
fleet.MemoryDirectory(fleet="prod")
try:
    fleet.CALL
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("RedisDirectory('redis://h/0', fleet='prod')", "pip install 'pixell-envoy[redis]'"),
        ("DynamoDbDirectory('table', fleet='prod')", "pip install 'pixell-envoy[dynamodb]'"),
    ],
)
def test_a_missing_extra_is_named(call: str, message: str) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM.replace("CALL", call)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stderr) == (0, "") and message in finished.stdout


def test_importing_the_package_imports_no_store() -> None:
    program = "import sys, pixell_envoy, pixell_envoy.fleet; print({'redis', 'boto3', 'botocore'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "set()\n"
