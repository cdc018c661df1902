"""DynamoDB that responds with errors, in the middle of a snapshot too: no partial snapshot, and no peer is dropped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Optional

import pytest
from botocore.awsrequest import AWSResponse
from stand_in_api import StandInManager
from stores import DynamoDb, aws_keys, closed, in_thread
from watching import eventually

from pixell_envoy.fleet import DirectoryUnavailable, DynamoDbDirectory, Fleet, Record, read_record

TTL = 2.0
RECORDS = [Record(f"task-{n}", f"10.0.1.{n + 1}", "e", 1, 1, {f"id-{n}": "active"}) for n in range(5)]

ERRORS = [
    pytest.param(400, "ThrottlingException", id="throttled"),
    pytest.param(400, "ProvisionedThroughputExceededException", id="too-much"),
    pytest.param(500, "InternalServerError", id="500"),
    pytest.param(503, None, id="503-not-json"),
    pytest.param(400, "AccessDeniedException", id="access-denied"),
    pytest.param(400, "ExpiredTokenException", id="expired-token"),
    pytest.param(400, "ResourceNotFoundException", id="no-table"),
]


class Raw:
    """The body of a response, as urllib3 gives it to botocore."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self._body


class Faults:
    """Between a directory's client and moto: responds in moto's place, and divides each Scan into pages."""

    def __init__(self, directory: DynamoDbDirectory) -> None:
        self.error: Optional[tuple[int, Optional[str]]] = None
        self.after_pages = 0
        """So many pages of each Scan are passed on before the error."""
        self.times = 1_000_000
        """How many requests get the error."""
        self.responded = 0
        self._page = 0
        make = directory._make_client

        def made() -> Any:
            client: Any = make()
            client.meta.events.register("before-send.dynamodb", self._respond)
            client.meta.events.register("before-parameter-build.dynamodb.Scan", self._begin_page)
            return client

        directory._make_client = made

    def _begin_page(self, params: dict[str, Any], **_: object) -> None:
        self._page = self._page + 1 if "ExclusiveStartKey" in params else 0
        params["Limit"] = 2

    def _respond(self, request: Any, **_: object) -> Optional[AWSResponse]:
        is_scan = request.headers["X-Amz-Target"].endswith(b".Scan")
        if self.error is None or self.responded >= self.times or (is_scan and self._page < self.after_pages):
            return None
        self.responded += 1
        status, code = self.error
        body = (
            b"<html>unavailable</html>"
            if code is None
            else json.dumps({"__type": f"a#{code}", "message": "m"}).encode()
        )
        return AWSResponse(request.url, status, {"content-type": "application/x-amz-json-1.0"}, Raw(body))


@pytest.fixture(scope="module")
def started() -> Iterator[DynamoDb]:
    store = DynamoDb()
    with aws_keys():
        store.start()
        try:
            yield store
        finally:
            store.stop()


@pytest.fixture
def store(started: DynamoDb) -> DynamoDb:
    started.clear()
    return started


async def records_in(directory: DynamoDbDirectory) -> list[Record]:
    found = [read_record(task, document) for task, document in (await directory.snapshot()).items()]
    return sorted(found, key=lambda record: record.task)


async def put_all(store: DynamoDb) -> None:
    for record in RECORDS:
        await in_thread(lambda record=record: store.put("prod", record.task, record.to_json()))


@pytest.mark.parametrize(("status", "code"), ERRORS)
async def test_an_error_response_is_an_unavailable_directory(store: DynamoDb, status: int, code: Optional[str]) -> None:
    directory = store.directory("prod")
    faults = Faults(directory)
    own = Record("own", "10.0.0.1", "e", 1, 1)
    await directory.publish(own)
    faults.error = status, code
    for call in (directory.publish(own), directory.snapshot(), directory.withdraw("own")):
        with pytest.raises(DirectoryUnavailable):
            await call
    faults.error = None
    # Nothing was written or removed, and the directory works again.
    assert await records_in(directory) == [own]
    await directory.withdraw("own")
    assert await records_in(directory) == []
    await closed(directory)


@pytest.mark.parametrize(("status", "code"), ERRORS[:4])
async def test_one_error_that_passes_is_retried(store: DynamoDb, status: int, code: Optional[str]) -> None:
    directory = store.directory("prod")
    faults = Faults(directory)
    await put_all(store)
    faults.error, faults.after_pages, faults.times = (status, code), 1, 1
    assert await records_in(directory) == RECORDS
    assert faults.responded == 1
    await closed(directory)


@pytest.mark.parametrize(("status", "code"), ERRORS)
async def test_an_error_between_two_pages_gives_no_partial_snapshot(
    store: DynamoDb, status: int, code: Optional[str]
) -> None:
    directory = store.directory("prod")
    faults = Faults(directory)
    await put_all(store)
    assert await records_in(directory) == RECORDS
    for pages in (1, 2):
        faults.error, faults.after_pages, faults.responded = (status, code), pages, 0
        with pytest.raises(DirectoryUnavailable):
            await directory.snapshot()
        assert faults.responded > 0
    faults.error = None
    assert await records_in(directory) == RECORDS
    await closed(directory)


@asynccontextmanager
async def reader(store: DynamoDb) -> AsyncIterator[tuple[Faults, StandInManager]]:
    """A task that reads the fleet, and the faults between it and the store."""
    directory, manager = store.directory("prod"), StandInManager()
    faults = Faults(directory)
    async with Fleet(manager, directory, task_id="reader", host="10.0.0.1", ttl=TTL):
        yield faults, manager
        faults.error = None
    await manager.client().close()


async def beat(store: DynamoDb) -> None:
    """All others live: they publish as tasks do."""
    number = 1
    while True:
        number += 1
        for each in RECORDS:
            record = Record(each.task, each.host, each.epoch, each.generation, number, each.ids)
            await in_thread(lambda record=record: store.put("prod", record.task, record.to_json()))
        await asyncio.sleep(TTL / 4)


@pytest.mark.parametrize(
    ("status", "code", "pages"),
    [
        pytest.param(400, "ThrottlingException", 1, id="throttled-after-a-page"),
        pytest.param(500, "InternalServerError", 1, id="500-after-a-page"),
        pytest.param(400, "AccessDeniedException", 0, id="access-denied"),
    ],
)
async def test_no_peer_is_dropped_while_the_store_responds_with_errors(
    store: DynamoDb, status: int, code: str, pages: int, caplog: pytest.LogCaptureFixture
) -> None:
    routes = {f"id-{n}": [f"task-{n}"] for n in range(5)}
    await put_all(store)
    beats = asyncio.ensure_future(beat(store))
    try:
        async with reader(store) as (faults, manager):

            async def known() -> bool:
                return manager.api.routes == routes

            await eventually(known, 10, "all five tasks")
            faults.error, faults.after_pages = (status, code), pages
            writes = manager.api.puts + manager.api.patches
            await asyncio.sleep(2 * TTL)

            async def is_told() -> bool:
                return any("cannot read the directory" in message for message in caplog.messages)

            # On a busy machine a read and its attempts may take longer than that.
            await eventually(is_told, 10, "the warning")
            assert faults.responded > 2
            # Not even for a moment.
            assert manager.api.routes == routes and manager.api.puts + manager.api.patches == writes
            assert sum("cannot read the directory" in message for message in caplog.messages) == 1
            assert any(code in message for message in caplog.messages)
            assert not [message for message in caplog.messages if "dropping" in message]
            faults.error = None
            # It reads again, and still nobody was gone.
            await in_thread(
                lambda: store.put("prod", "new", Record("new", "10.0.1.9", "e", 1, 1, {"n": "active"}).to_json())
            )

            async def new_is_known() -> bool:
                return manager.api.routes == {**routes, "n": ["new"]}

            await eventually(new_is_known, 10, "the new task")
    finally:
        beats.cancel()
        await asyncio.wait({beats})
