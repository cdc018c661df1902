"""The wheel and the sdist, every way to install them, and the guarded import without them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import pixell_envoy

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text()
WHEEL = f"pixell_envoy-{pixell_envoy.__version__}-py3-none-any.whl"
SDIST = f"pixell_envoy-{pixell_envoy.__version__}.tar.gz"


def run(*command: object, cwd: Path, **environment: str) -> str:
    """The output of a program. If the program fails, the test fails and shows the output."""
    words = [str(word) for word in command]
    finished = subprocess.run(words, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert finished.returncode == 0, f"{words}:\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


def build(project: Path, into: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-d", into, cwd=project)
    return into


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist."""
    return build(PROJECT, tmp_path_factory.mktemp("dist"))


def test_the_wheel_has_every_module_and_its_types(dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (wheel.read(name).decode() for name in names if name.endswith("/METADATA"))
    source = PROJECT / "src"
    modules = {str(path.relative_to(source)) for path in source.rglob("*") if path.suffix == ".py"}
    assert modules | {"pixell_envoy/py.typed"} == {name for name in names if name.startswith("pixell_envoy/")}
    assert "Requires-Dist: httpx<1,>=0.25" in metadata
    assert "Requires-Python: >=3.9" in metadata
    assert README.splitlines()[0] in metadata


def test_the_sdist_makes_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    with tarfile.open(dist / SDIST) as sdist:
        sdist.extractall(tmp_path, filter="data")
    again = build(tmp_path / SDIST.removesuffix(".tar.gz"), tmp_path / "dist")
    assert (again / WHEEL).read_bytes() == (dist / WHEEL).read_bytes()


@pytest.fixture
def index(dist: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a package index with this package alone (PEP 503)."""
    pages = tmp_path / "index"
    (pages / "simple").mkdir(parents=True)
    (pages / "simple/pixell-envoy").symlink_to(dist)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(pages)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple/"
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def installs(way: str) -> list[str]:
    """The arguments of the README's `pip install` whose options contain `way`."""
    found: str
    (found,) = (line for line in re.findall(r"^    pip install (.*)$", README, re.MULTILINE) if way in line)
    return found.partition("#")[0].split()


def imported_from(place: Path, cwd: Path) -> str:
    program = "import pixell_envoy; print(pixell_envoy.__file__)"
    return run(sys.executable, "-c", program, cwd=cwd, PYTHONPATH=str(place)).strip()


@pytest.mark.parametrize("way", ["--index-url", "--find-links", "vendor/pixell_envoy"])
def test_the_readmes_ways_to_install_it(dist: Path, tmp_path: Path, index: str, way: str) -> None:
    (tmp_path / "vendor").symlink_to(dist)
    arguments = [
        index if word.startswith("https://") else word.replace("VERSION", pixell_envoy.__version__)
        for word in installs(way)
    ]
    place = tmp_path / "site"
    # httpx is installed already, and no test depends on PyPI.
    settings = {"PIP_NO_DEPS": "1", "PIP_TARGET": str(place), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    run(sys.executable, "-m", "pip", "install", *arguments, cwd=tmp_path, **settings)
    assert imported_from(place, tmp_path) == str(place / "pixell_envoy/__init__.py")


ASK = """
import guarded_import
try:
    print("manager:", guarded_import.start_manager().admin_url)
except RuntimeError as error:
    print("error:", error)
"""


def test_a_module_of_par_can_be_imported_with_and_without_it(tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", "agent", cwd=tmp_path)
    settings = {"PYTHONPATH": str(PROJECT / "examples"), "ENVOY_ADMIN_URL": "http://127.0.0.1:9901"}
    said = run(tmp_path / "agent/bin/python", "-c", ASK, cwd=tmp_path, **settings)
    assert said == "error: PAR needs the package pixell-envoy in its own environment\n"
    assert run(sys.executable, "-c", ASK, cwd=tmp_path, **settings) == "manager: http://127.0.0.1:9901\n"
