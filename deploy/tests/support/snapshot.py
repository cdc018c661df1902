"""What moto holds at one moment, kept to be brought back. To do anew what leads there takes far longer."""

from __future__ import annotations

import io
import pickle
import threading
from collections import defaultdict
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from moto.core.base_backend import BackendDict, BaseBackend

# The name of a backend's service, its account and its region.
Place = tuple[str, str, str]
# What holds nothing of its own, and cannot be written down: it is kept as it is.
KEPT = (FunctionType, type(threading.Lock()), type(threading.RLock()))


def services() -> list[BackendDict[Any]]:
    """The services in use."""
    return list(BackendDict._instances)  # type: ignore[misc]


def backends() -> Iterator[tuple[Place, BaseBackend]]:
    """All that there are by now."""
    for each in services():
        for account, region, backend in each.iter_backends():
            yield (each.service_name, account, region), backend


class Snapshot:
    """Taken when it is made."""

    def __init__(self) -> None:
        self.services = {each.service_name: each for each in services()}
        self.kept: list[Any] = []
        file = io.BytesIO()
        Saver(file, self.kept).dump({place: backend.__dict__ for place, backend in backends()})
        self.held = file.getvalue()

    def bring_back(self) -> None:
        """Makes moto hold what it held then, and nothing else."""
        holds = Loader(io.BytesIO(self.held), self).load()
        for place, backend in backends():
            if place not in holds:
                backend.reset()
        for place, held in holds.items():
            self.backend(place).__dict__ = held

    def backend(self, place: Place) -> BaseBackend:
        name, account, region = place
        backend: BaseBackend = self.services[name][account][region]
        return backend


class Saver(pickle.Pickler):
    """Of the backends that things in a backend name, and of what is kept as it is, it notes only which they are."""

    def __init__(self, file: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(file)
        self.places = {id(backend): place for place, backend in backends()}
        self.kept = kept

    def persistent_id(self, thing: Any) -> Place | int | None:
        if isinstance(thing, BaseBackend):
            return self.places[id(thing)]
        if isinstance(thing, KEPT):
            self.kept.append(thing)
            return len(self.kept) - 1
        return None

    def reducer_override(self, thing: Any) -> Any:
        # A kind of defaultdict is else made again by its constructor, which may want other arguments.
        if isinstance(thing, defaultdict) and type(thing) is not defaultdict:
            return defaultdict_again, (type(thing), thing.default_factory), thing.__dict__, None, iter(thing.items())
        return NotImplemented


def defaultdict_again(kind: type[defaultdict[Any, Any]], factory: Any) -> defaultdict[Any, Any]:
    made = kind.__new__(kind)
    made.default_factory = factory
    return made


class Loader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, snapshot: Snapshot) -> None:
        super().__init__(file)
        self.snapshot = snapshot

    def persistent_load(self, which: Place | int) -> Any:
        return self.snapshot.kept[which] if isinstance(which, int) else self.snapshot.backend(which)
