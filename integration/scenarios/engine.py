"""The containers of the composed project, through the container engine."""

from __future__ import annotations

import io
import socket
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import docker
from docker.models.containers import Container as DockerContainer
from docker.models.images import Image

from .wait import wait_until

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
# A label of the containers that scenarios make; its value is the project.
EXTRA = "pixell.scenarios.of"


class Container:
    """A container. Its state is read at each use."""

    def __init__(self, raw: DockerContainer) -> None:
        self.raw = raw

    @property
    def image(self) -> Image:
        assert self.raw.image is not None
        return self.raw.image

    @property
    def state(self) -> dict[str, Any]:
        self.raw.reload()
        state: dict[str, Any] = self.raw.attrs["State"]
        return state

    @property
    def is_running(self) -> bool:
        return bool(self.state["Running"])

    @property
    def health(self) -> str:
        return str(self.state.get("Health", {}).get("Status", "none"))

    def start(self) -> None:
        if not self.is_running:
            self.raw.start()

    def wait_healthy(self, limit: float = 30.0) -> None:
        wait_until(f"{self.raw.name} is healthy", lambda: self.health == "healthy", limit)

    def wait_ended(self, limit: float = 30.0) -> int:
        """Waits for the end and returns the exit code."""
        wait_until(f"{self.raw.name} has ended", lambda: not self.is_running, limit)
        return int(self.state["ExitCode"])

    def kill(self) -> None:
        """Like `docker kill`: SIGKILL to its process 1."""
        self.raw.kill()
        self.wait_ended()

    def stop(self, grace: int = 40) -> int:
        """Like `docker stop`; returns the exit code. After `grace` seconds the engine kills the container."""
        if self.is_running:
            self.raw.stop(timeout=grace)
        return int(self.state["ExitCode"])

    def run(self, *command: str) -> str:
        """The output of `command`, run inside; it must succeed."""
        code, text = self.try_run(*command)
        assert code == 0, f"{command} in {self.raw.name} gave {code}: {text}"
        return text

    def try_run(self, *command: str) -> tuple[int, str]:
        """Exit code and output of `command`, run inside."""
        code, output = self.raw.exec_run(list(command))
        assert isinstance(code, int) and isinstance(output, bytes)
        return code, output.decode(errors="replace")

    def signal(self, pid: int, name: str) -> None:
        """Signals one process inside."""
        self.run("sh", "-c", f"kill -{name} {pid}")

    def logs(self, since: Optional[float] = None) -> str:
        text: bytes = self.raw.logs(since=since) if since is not None else self.raw.logs()
        return text.decode(errors="replace")

    def put(self, place: str, content: bytes) -> None:
        """Writes a file into the container, running or not."""
        directory, name = place.rsplit("/", 1)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
        assert self.raw.put_archive(directory, archive.getvalue())

    def get(self, place: str) -> bytes:
        """The content of a file in the container, running or not."""
        stream, _ = self.raw.get_archive(place)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            member = tar.extractfile(tar.getmembers()[0])
            assert member is not None
            return member.read()


class Composed:
    """The composed project that this process is part of."""

    def __init__(self) -> None:
        self.engine = docker.from_env(timeout=120)
        # A container's host name is its id, unless another one was chosen.
        self.name = str(self.engine.containers.get(socket.gethostname()).labels[PROJECT])
        # Logs of containers that the running scenario made and that were removed.
        self._removed: list[str] = []

    def service(self, name: str) -> Container:
        labels = [f"{PROJECT}={self.name}", f"{SERVICE}={name}"]
        found = self.engine.containers.list(all=True, filters={"label": labels})
        assert len(found) == 1, f"{len(found)} containers of {name} in {self.name}; start them with docker compose up"
        return Container(found[0])

    @contextmanager
    def extra(
        self, like: Container, environment: Optional[dict[str, str]] = None, **options: Any
    ) -> Iterator[Container]:
        """One more container with the image of `like`, not started yet; removed at the end."""
        raw = self.engine.containers.create(
            like.image, environment=environment or {}, labels={EXTRA: self.name}, **options
        )
        try:
            yield Container(raw)
        finally:
            self._removed.append(_log(Container(raw), None))
            raw.remove(force=True, v=True)

    def containers(self) -> list[Container]:
        """Every container of the project, including those made by scenarios."""
        found: dict[Optional[str], DockerContainer] = {}
        for label in (f"{PROJECT}={self.name}", f"{EXTRA}={self.name}"):
            for raw in self.engine.containers.list(all=True, filters={"label": label}):
                found[raw.id] = raw
        own = socket.gethostname()
        return [Container(raw) for raw in found.values() if not str(raw.id).startswith(own)]

    def all_logs(self, since: float) -> str:
        return "\n".join([*self._removed, *(_log(container, since) for container in self.containers())])


class Project(Composed):
    """The project of one task."""

    def __init__(self) -> None:
        super().__init__()
        self.task, self.envoy, self.par = self.service("task"), self.service("envoy"), self.service("par")

    def settle(self) -> None:
        """Starts everything that a scenario may have stopped."""
        self._removed.clear()
        self.task.start()
        self.envoy.start()
        self.envoy.wait_healthy()
        self.par.start()
        self.par.wait_healthy()


def _log(container: Container, since: Optional[float]) -> str:
    # Envoy lists its extensions in lines of a thousand characters.
    lines = (line[:300] for line in container.logs(since).splitlines())
    return "\n".join([f"---- {container.raw.name} ({container.raw.status})", *lines])


def now() -> float:
    """The time in the engine's form for logs."""
    return time.time()
