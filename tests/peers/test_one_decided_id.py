"""Claim, route, rate, log and agent go by the one id that is decided, whatever else a request says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from conftest import push
from recorder import Recorder, ask
from served import Served, until
from tokens import Issuer, settings

Lie = Sequence[tuple[str, str]]
Way = tuple[str, dict[str, str]]

# What says nothing where `PIXELL_ID_HEADERS` does not name it.
LIES: list[Lie] = [
    [("x-deployment-id", "b")],
    [("x-deployment-id", "b"), ("x-deployment-id", "b")],
    [("x-deployment-id", "b"), ("x-deployment-id", "a")],
    [("x-deployment-id", "a,b")],
    [("x-deployment-id", "")],
    [("deployment-id", "b"), ("deployment_id", "b")],
    [("x-pixell-claims", "e30"), ("x-pixell-addressed", "b"), ("x-deployment-id", "b")],
]
# How a request names its agent.
BY_PATH: Way = ("/agents/{}/x", {})
BY_HOST: Way = ("/x", {"host": "{}.agents.test"})
BY_HEADER: Way = ("/x", {"x-agent": "{}"})
LIMITED, FORBIDDEN, WELCOME = (429, "rate_limited"), (403, "not_allowed"), (204, "")


class Place:
    """An Envoy with a claim and a rate, where these headers name agents; and the agents `a` and `b`."""

    def __init__(self, form: str, id_headers: str, home: Path) -> None:
        self.ways = [BY_PATH, BY_HOST] + ([BY_HEADER] if id_headers == "x-agent" else [])
        self.issuer = Issuer()
        self.envoy = Served(
            form,
            settings(
                PIXELL_JWKS_FILE=str(self.issuer.write(home / "jwks.json")),
                PIXELL_JWT_DEPLOYMENTS_CLAIM="deployments",
                PIXELL_RATE_LIMIT="1/m",
                PIXELL_ID_HEADERS=id_headers,
                PIXELL_HOST_SUFFIX=".agents.test",
            ),
        )
        self.agents = {"a": Recorder(), "b": Recorder()}
        for name, recorder in self.agents.items():
            push(self.envoy, name, recorder.port)
        until(lambda: self.ask("probe", "nobody", "nobody", BY_PATH) == (404, "unknown_deployment"), "keys")

    def remove(self) -> None:
        self.envoy.stop()
        for recorder in self.agents.values():
            recorder.stop()

    def ask(self, subject: str, allowed: str, name: str, way: Way, lie: Lie = ()) -> tuple[int, str]:
        """Asks the agent `name`, with a token that allows this one."""
        target, headers = way
        fields = [(header, value.format(name)) for header, value in headers.items()]
        token = self.issuer.token(sub=subject, deployments=[allowed])
        fields += [*lie, ("authorization", f"Bearer {token}")]
        return ask(self.envoy.port, "GET", target.format(name), fields)

    def taken(self) -> tuple[list[str], list[str]]:
        """What came to the agents `a` and `b`."""
        return self.agents["a"].taken(), self.agents["b"].taken()


@pytest.fixture(scope="module", params=[(form, names) for form in ("wasm", "native") for names in ("none", "x-agent")])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    form, id_headers = request.param
    place = Place(form, id_headers, tmp_path_factory.mktemp("decided"))
    yield place
    place.remove()


@pytest.mark.parametrize("lie", LIES)
def test_what_decides_nothing_changes_nothing(place: Place, lie: Lie) -> None:
    for way in place.ways:
        # Each has its own buckets.
        subject = f"{way[0]} {sorted(way[1])} {lie}"
        assert place.ask(subject, "a", "b", way, lie) == FORBIDDEN
        assert place.taken() == ([], [])
        assert place.ask(subject, "a", "a", way, lie) == WELCOME
        (head,), others = place.taken()
        assert head.count("\r\nx-deployment-id: a\r\n") == head.count("\r\nx-deployment-id: ") == 1 and others == []
        # The bucket of `a` is empty now, and that of `b` is full.
        assert place.ask(subject, "a", "a", way, lie) == place.ask(subject, "a", "a", BY_PATH) == LIMITED
        assert place.ask(subject, "b", "b", BY_PATH) == WELCOME
        assert [len(heads) for heads in place.taken()] == [0, 1]
        expected = {("b", 403): 1, ("a", 204): 1, ("a", 429): 2, ("b", 204): 1}
        until(partial(is_logged, place.envoy, subject, expected), f"{expected} in the log")


def is_logged(envoy: Served, subject: str, expected: dict[tuple[str, int], int]) -> bool:
    lines = [line for line in envoy.log() if line.get("subject") == subject]
    return Counter((line.get("deployment_id"), line["status"]) for line in lines) == expected
