"""`watch`: what changes in Envoy's maps, line by line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Callable, Optional

from ..client import RouteApiClient
from ..errors import FleetDisabled, RouteApiError, RouteNotFound, Unreachable
from ..fleet_map import peer_to_json
from ..models import MapVersion, to_json
from .commands import version
from .output import Output

# Maps, each as JSON by what it is called: `route` or `peer`.
_Content = Mapping[str, Mapping[str, Any]]


class _Map:
    """One of Envoy's maps. `read` returns its version and content, or None if it still has the version given."""

    def __init__(
        self, name: str, read: Callable[[Optional[MapVersion]], Awaitable[Optional[tuple[MapVersion, _Content]]]]
    ) -> None:
        self.name = name
        self._read = read
        self.is_off = False
        self._version: Optional[MapVersion] = None
        self._content: _Content = {}

    async def events(self) -> list[dict[str, Any]]:
        """What has changed since the last call."""
        found = await self._read(self._version)
        if found is None:
            return []
        (now, content), before = found, self._version
        events: list[dict[str, Any]] = []
        if before is None or before.epoch != now.epoch:
            event = "found" if before is None else "restarted" if before.loaded else "pushed"
            events.append({"event": event, **version(now), **{f"{kind}s": len(all_) for kind, all_ in content.items()}})
        if before is not None:
            events += _differences(self._content, content)
        self._version, self._content = now, content
        return events


async def watch(client: RouteApiClient, output: Output, interval: float) -> None:
    """Writes what changes in both maps, until it is cancelled. While Envoy is away it waits."""
    maps = [_Map("routes", lambda since: _routes(client, since)), _Map("fleet", lambda since: _fleet(client, since))]
    is_away = has_read = False
    while True:
        try:
            for each in maps:
                try:
                    events = await each.events()
                except (FleetDisabled, RouteNotFound):
                    if not each.is_off:
                        _write(output, {"map": each.name, "event": "off"})
                    each.is_off = True
                else:
                    each.is_off = False
                    for event in events:
                        _write(output, {"map": each.name, **event})
            is_away = False
            has_read = True
        except RouteApiError as error:
            # A wrong token or URL shows at once; what comes later may pass.
            if not has_read and not isinstance(error, Unreachable):
                raise
            if not is_away:
                _write(output, {"event": "unreachable", "error": str(error)})
            is_away = True
        await asyncio.sleep(interval)


async def _routes(client: RouteApiClient, since: Optional[MapVersion]) -> Optional[tuple[MapVersion, _Content]]:
    found = await (client.get_routes() if since is None else client.get_routes_if_changed(since))
    return (
        None
        if found is None
        else (found.version, {"route": {key: to_json(route) for key, route in found.routes.items()}})
    )


async def _fleet(client: RouteApiClient, since: Optional[MapVersion]) -> Optional[tuple[MapVersion, _Content]]:
    found = await (client.get_fleet() if since is None else client.get_fleet_if_changed(since))
    if found is None:
        return None
    peers = {name: peer_to_json(peer) for name, peer in found.peers.items()}
    return found.version, {"peer": peers, "route": {key: {"peers": list(names)} for key, names in found.routes.items()}}


def _differences(before: _Content, now: _Content) -> Iterator[dict[str, Any]]:
    for kind, entries in now.items():
        old = before[kind]
        for key in sorted({*old, *entries}):
            if key not in entries:
                yield {"event": "removed", kind: key}
            elif old.get(key) != entries[key]:
                yield {"event": "changed" if key in old else "added", kind: key, **entries[key]}


def _write(output: Output, event: dict[str, Any]) -> None:
    now = datetime.now(timezone.utc)
    if output.as_json:
        output.record({"time": now.isoformat(timespec="milliseconds"), **event})
        return
    details = {key: value for key, value in event.items() if key not in ("map", "event")}
    words = [event.get("map", ""), event["event"], *(f"{key}={_text(value)}" for key, value in details.items())]
    output.line(f"{now:%H:%M:%SZ} {' '.join(word for word in words if word)}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}:{_text(each)}" for key, each in value.items())
    return ",".join(value) if isinstance(value, list) else str(value)
