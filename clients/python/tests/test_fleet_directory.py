"""What every directory does, in this process's memory, in a real Redis and in moto's DynamoDB."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from stores import DynamoDb, Memory, RedisServer, Store, aws_keys, closed, in_thread
from tcp_proxy import TcpProxy
from watching import eventually

from pixell_envoy import InvalidArgument, RouteState
from pixell_envoy.fleet import Directory, DirectoryUnavailable, DynamoDbDirectory, Record, Superseded, read_record
from pixell_envoy.fleet.directory import MAX_RECORDS, Watchable
from pixell_envoy.fleet.waiting import within

RECORD = Record("task-a", "10.0.0.1", "e1", 1, 1, {"id-1": "active"})


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        yield Memory()
        return
    store = RedisServer() if request.param == "redis" else DynamoDb()
    with aws_keys():
        store.start()
        try:
            yield store
        finally:
            store.stop()


@pytest.fixture
def store(started: Store) -> Store:
    started.clear()
    return started


@pytest.fixture
async def directories(store: Store) -> AsyncIterator[list[Directory]]:
    """Three tasks' views of the fleet `prod`."""
    made = [store.directory("prod") for _ in range(3)]
    yield made
    for each in made:
        await closed(each)


every_store = pytest.mark.parametrize(
    "started", ["memory", pytest.param("redis", marks=pytest.mark.redis), "dynamodb"], indirect=True
)
every_server = pytest.mark.parametrize(
    "started", [pytest.param("redis", marks=pytest.mark.redis), "dynamodb"], indirect=True
)


async def records_in(directory: Directory) -> dict[str, Record]:
    return {task: read_record(task, document) for task, document in (await directory.snapshot()).items()}


@every_store
async def test_what_one_publishes_all_read(directories: list[Directory]) -> None:
    assert await records_in(directories[0]) == {}
    other = Record("task-b", "10.0.0.2", "e2", 1, 1)
    await directories[0].publish(RECORD)
    await directories[1].publish(other)
    for directory in directories:
        assert await records_in(directory) == {"task-a": RECORD, "task-b": other}
    newer = replace(RECORD, generation=2, beat=2, ids={"id-2": "draining"})
    await directories[0].publish(newer)
    assert await records_in(directories[2]) == {"task-a": newer, "task-b": other}


@every_store
async def test_withdraws_its_own_record_alone(directories: list[Directory]) -> None:
    await directories[0].publish(RECORD)
    await directories[1].publish(Record("task-b", "10.0.0.2", "e2", 1, 1))
    # It has not published for that task.
    await directories[2].withdraw("task-a")
    await directories[1].withdraw("task-a")
    assert set(await records_in(directories[2])) == {"task-a", "task-b"}
    await directories[0].withdraw("task-a")
    await directories[0].withdraw("task-a")
    assert set(await records_in(directories[2])) == {"task-b"}


@every_store
async def test_a_process_that_was_replaced_cannot_undo_its_successor(directories: list[Directory]) -> None:
    old, new, _ = directories
    await old.publish(RECORD)
    successor = replace(RECORD, epoch="e9", beat=1, ids={"id-9": "active"})
    await new.publish(successor)
    with pytest.raises(Superseded):
        await old.publish(replace(RECORD, beat=2))
    await old.withdraw("task-a")
    assert await records_in(old) == {"task-a": successor}
    # With a new epoch it takes the place back.
    again = replace(RECORD, epoch="e10")
    await old.publish(again)
    assert await records_in(new) == {"task-a": again}
    with pytest.raises(Superseded):
        await new.publish(replace(successor, beat=2))


@every_store
async def test_a_record_that_vanished_or_was_damaged(store: Store, directories: list[Directory]) -> None:
    await directories[0].publish(RECORD)
    await in_thread(store.clear)
    await directories[0].publish(replace(RECORD, beat=2))
    assert await records_in(directories[1]) == {"task-a": replace(RECORD, beat=2)}
    await in_thread(lambda: store.put("prod", "task-a", b"not JSON"))
    # Whose it is cannot be told, so it is another's.
    with pytest.raises(Superseded):
        await directories[0].publish(replace(RECORD, beat=3))
    await directories[0].publish(replace(RECORD, epoch="e2"))
    assert set(await records_in(directories[1])) == {"task-a"}


@every_store
async def test_fleets_do_not_see_each_other(store: Store, directories: list[Directory]) -> None:
    others = [store.directory(fleet) for fleet in ("test", "prod.", "pro", "prod-task")]
    await directories[0].publish(RECORD)
    for number, other in enumerate(others):
        assert await records_in(other) == {}
        await other.publish(replace(RECORD, epoch=f"x{number}"))
    assert await records_in(directories[0]) == {"task-a": RECORD}
    await others[0].withdraw("task-a")
    assert await records_in(directories[0]) == {"task-a": RECORD}
    for other in others:
        await closed(other)


@every_store
async def test_hostile_documents_are_passed_on_and_hide_no_other(store: Store, directories: list[Directory]) -> None:
    await directories[0].publish(RECORD)
    hostile = {"h1": b"{", "h2": b"[" * 90_000, "h3": b'{"version":1,"task":"task-a"}', "h4": b"x" * 360_000}
    for task, document in hostile.items():
        await in_thread(lambda task=task, document=document: store.put("prod", task, document))
    snapshot = await directories[1].snapshot()
    assert set(snapshot) == {"task-a", *hostile}
    assert read_record("task-a", snapshot["task-a"]) == RECORD
    assert all(len(document) <= 360_000 for document in snapshot.values())


@every_store
async def test_a_large_fleet_is_read_whole(store: Store, directories: list[Directory]) -> None:
    # 60 records of 50 KB are 3 MB: DynamoDB returns at most one per call.
    ids = {f"{n:0>40}": "active" for n in range(900)}
    large = [Record(f"task-{n}", "10.0.0.1", "e", 1, 1, ids) for n in range(60)]  # type: ignore[arg-type]
    for record in large:
        await in_thread(lambda record=record: store.put("prod", record.task, record.to_json()))
    assert await records_in(directories[0]) == {record.task: record for record in large}


@every_store
async def test_a_reader_sees_every_change_of_a_record(store: Store, directories: list[Directory]) -> None:
    ids: dict[str, RouteState] = {f"{n:0>40}": "active" for n in range(20)}
    now = replace(RECORD, ids=ids)
    versions = [
        now,
        replace(now, beat=2),
        replace(now, beat=10**12),
        replace(now, beat=9, ids={**ids, "id-2": "draining"}),
        replace(now, beat=10, generation=2, ids={**ids, "id-3": "active"}),
        replace(now, beat=11, generation=2),
        replace(now, beat=11, generation=2, host="10.0.0.2", epoch="e2"),
        replace(now, beat=11, generation=2, host="10.0.0.2", epoch="e3" * 30),
        Record("task-a", "10.0.0.1", "e", 0, 0),
    ]
    for version in versions:
        await in_thread(lambda version=version: store.put("prod", "task-a", version.to_json()))
        for directory in directories[:2]:
            assert await records_in(directory) == {"task-a": version}
    # Not written by this package: white space, and another order.
    spaced = json.dumps({**json.loads(now.to_json()), "ids": {"x": "active"}}, indent=1).encode()
    for document in (spaced, now.to_json()[:-1], b"{}", b"", now.to_json()):
        await in_thread(lambda document=document: store.put("prod", "task-a", document))
        assert (await directories[0].snapshot()).get("task-a", b"") == document


@every_store
async def test_names_are_checked(store: Store) -> None:
    for fleet in ("", "a b", "a:b", "a/b", "*", "x" * 129):
        with pytest.raises(InvalidArgument):
            store.directory(fleet)


@pytest.mark.parametrize("started", ["memory", pytest.param("redis", marks=pytest.mark.redis)], indirect=True)
async def test_tells_of_changes_and_not_of_beats(directories: list[Directory]) -> None:
    told = 0

    def notify() -> None:
        nonlocal told
        told += 1

    watched = directories[1]
    assert isinstance(watched, Watchable)
    task = asyncio.get_running_loop().create_task(watched.watch(notify))

    async def told_once() -> bool:
        await directories[0].publish(replace(RECORD, epoch=f"e{time.monotonic_ns()}"))
        return told > 0

    await eventually(told_once, 5, "a hint")
    await directories[0].publish(replace(RECORD, epoch="x", beat=1))
    await asyncio.sleep(0.3)
    told = 0
    for beat in range(2, 6):
        await directories[0].publish(replace(RECORD, epoch="x", beat=beat))
    await asyncio.sleep(0.3)
    assert told == 0
    await directories[0].publish(replace(RECORD, epoch="x", beat=7, generation=2))
    await directories[0].withdraw("task-a")

    async def told_twice() -> bool:
        return told == 2

    await eventually(told_twice, 5, "two hints")
    task.cancel()
    await asyncio.wait({task})


@every_server
@pytest.mark.parametrize("mode", ["refuse", "silent"])
async def test_a_store_that_cannot_be_reached_is_an_error_in_time(store: Store, mode: str) -> None:
    assert store.port is not None
    async with TcpProxy(store.port) as proxy:
        directory = store.directory("prod", proxy.port)
        await directory.publish(RECORD)
        proxy.set(mode)  # type: ignore[arg-type]
        start = time.monotonic()
        for call in (directory.publish(replace(RECORD, beat=2)), directory.snapshot(), directory.withdraw("task-a")):
            with pytest.raises(DirectoryUnavailable):
                await within(6.0, call)
        assert time.monotonic() - start < 18.5
        proxy.set("pass")

        async def works() -> bool:
            with contextlib.suppress(DirectoryUnavailable):
                await directory.publish(replace(RECORD, beat=3))
            return True

        await eventually(works, 5, "the directory works again")
        assert await records_in(directory) == {"task-a": replace(RECORD, beat=3)}
        await closed(directory)


@every_server
async def test_a_first_publication_that_failed_is_made_up_for(store: Store) -> None:
    assert store.port is not None
    before = store.directory("prod")
    await before.publish(RECORD)
    async with TcpProxy(store.port) as proxy:
        directory = store.directory("prod", proxy.port)
        mine = replace(RECORD, epoch="e2")
        proxy.set("refuse")
        with pytest.raises(DirectoryUnavailable):
            await directory.publish(mine)
        proxy.set("pass")
        # It has not been written, and removes nothing.
        await directory.withdraw("task-a")
        assert await records_in(before) == {"task-a": RECORD}
        await directory.publish(replace(mine, beat=2))
        assert await records_in(before) == {"task-a": replace(mine, beat=2)}
        # One that may have been written is removed.
        proxy.set("refuse")
        with pytest.raises(DirectoryUnavailable):
            await directory.publish(replace(mine, epoch="e3"))
        await in_thread(lambda: store.put("prod", "task-a", replace(mine, epoch="e3").to_json()))
        proxy.set("pass")
        if not isinstance(store, DynamoDb):  # `put` writes no epoch there.
            await directory.withdraw("task-a")
            assert await records_in(before) == {}
        await closed(directory)
    await closed(before)


async def test_a_write_to_dynamodb_that_was_cancelled_does_not_overtake_the_next_one() -> None:
    done: list[str] = []

    class Slow:
        def put_item(self, **arguments: object) -> dict[str, object]:
            time.sleep(0.3)
            done.append("put")
            return {}

        def delete_item(self, **arguments: object) -> dict[str, object]:
            done.append("delete")
            return {}

        def close(self) -> None: ...

    directory = DynamoDbDirectory("table", fleet="prod", region="us-east-2")
    directory._client = Slow()  # type: ignore[assignment]
    with pytest.raises(DirectoryUnavailable):
        await within(0.05, directory.publish(RECORD))
    await directory.withdraw("task-a")
    assert done == ["put", "delete"]
    await directory.close()


@every_server
async def test_two_processes_that_publish_at_once_leave_one_record(store: Store) -> None:
    """The one that was superseded knows it; the other's record stands, whatever the order of their requests."""
    both = [store.directory("prod") for _ in range(2)]
    for directory, epoch in zip(both, ("e1", "e2")):
        await directory.publish(replace(RECORD, epoch=epoch))

    async def many(directory: Directory, epoch: str) -> int:
        superseded = 0
        for beat in range(2, 22):
            try:
                await directory.publish(replace(RECORD, epoch=epoch, beat=beat))
            except Superseded:
                superseded += 1
        return superseded

    assert list(await asyncio.gather(many(both[0], "e1"), many(both[1], "e2"))) == [20, 0]
    assert await records_in(both[0]) == {"task-a": replace(RECORD, epoch="e2", beat=21)}
    for directory in both:
        await closed(directory)


@pytest.mark.redis
async def test_redis_forgets_tasks_that_have_vanished() -> None:
    server = RedisServer()
    await in_thread(server.start)
    try:
        one, two = server.directory("prod"), server.directory("prod")
        await one.publish(RECORD)
        await two.publish(Record("task-b", "10.0.0.2", "e2", 1, 1))
        with contextlib.closing(server.client()) as client:
            assert 3500 < client.ttl("pixell:fleet:prod:task:task-a") <= 3600
            client.delete("pixell:fleet:prod:task:task-a")
            client.set("pixell:fleet:prod:task:stray", b"not in the index")
            client.lpush("pixell:fleet:prod:task:list", "not a string")
            client.sadd("pixell:fleet:prod:tasks", "list", *[f"junk-{n}" for n in range(3 * MAX_RECORDS)])
            # A flood of names does not hide a task that was there before.
            first = await two.snapshot()
            for _ in range(3):
                await two.snapshot()
            assert set(await two.snapshot()) == {"task-b", "list"}
            assert client.smembers("pixell:fleet:prod:tasks") == {b"task-b", b"list"}
            # Even what was written by hand, and tells of no change, is seen after a minute.
            forged = Record("task-b", "10.0.0.9", "e2", 1, 2).to_json()
            client.set("pixell:fleet:prod:task:task-b", forged)
            two._read_whole_at = 0.0
            assert (await two.snapshot())["task-b"] == forged
        assert len(first) <= MAX_RECORDS
        await one.close()
        await two.close()
    finally:
        await in_thread(server.remove)
