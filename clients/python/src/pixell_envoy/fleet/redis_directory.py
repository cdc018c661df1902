"""A directory in Redis or Valkey."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Callable, Optional, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import InvalidArgument
from .directory import MAX_RECORDS, RECORD_SECONDS
from .errors import DirectoryUnavailable, MissingExtra, Superseded
from .names import checked_name
from .record import MAX_RECORD_BYTES, Record
from .secret_file import read_secret

T = TypeVar("T")

_PASSWORD_FILE = "the password file of the directory"

# Seconds for a connection, and for a response.
_CONNECT, _RESPOND = 1.0, 2.0
# Seconds without a message after which a subscription is tested.
_QUIET = 5.0

# The most names of an index that is read whole. Any task may add some.
_MOST_NAMES = 10_000

# A snapshot reads the last bytes of each record, and the whole record only if they tell that it has changed. In case a
# record was written by hand, it reads all of them once in so many seconds.
_END_BYTES, _WHOLE = 160, 60.0
_END = re.compile(rb'(?P<state>,"epoch":"[A-Za-z0-9]{1,64}","generation":[0-9]{1,18},"beat":)(?P<beat>[0-9]{1,18})\}\Z')

# KEYS: the task's record, the index of all tasks. ARGV: record, task, epoch, 1 to take the place of another epoch,
# seconds until the record is forgotten, the channel, 1 to tell others.
_PUBLISH = """
if ARGV[4] == '0' then
  local there = redis.call('get', KEYS[1])
  if there then
    local read, found = pcall(cjson.decode, there)
    if not read or type(found) ~= 'table' or found.epoch ~= ARGV[3] then return 0 end
  end
end
redis.call('set', KEYS[1], ARGV[1], 'EX', ARGV[5])
redis.call('sadd', KEYS[2], ARGV[2])
if ARGV[7] == '1' then redis.call('publish', ARGV[6], ARGV[2]) end
return 1
"""

# KEYS as above. ARGV: task, epoch, the channel.
_WITHDRAW = """
local there = redis.call('get', KEYS[1])
if there then
  local read, found = pcall(cjson.decode, there)
  if not read or type(found) ~= 'table' or found.epoch ~= ARGV[2] then return 0 end
end
redis.call('del', KEYS[1])
redis.call('srem', KEYS[2], ARGV[1])
redis.call('publish', ARGV[3], ARGV[1])
return 1
"""


class RedisDirectory:
    """See Directory. `url` has the form `redis://user@host:6379/0`, or `rediss://` for TLS; several fleets may use it.

    The password comes from `password_file`, never from `url`, which is often a variable that agents inherit. The file
    must be readable for this process's user alone. It is read by the constructor and may be removed afterwards; if it
    is there at a new connection, it is read again, so that a password can be changed.

    Keys: `pixell:fleet:<fleet>:task:<task>` for each record, `pixell:fleet:<fleet>:tasks` for the set of their names,
    and a channel `pixell:fleet:<fleet>:changes`. Not for Redis in cluster mode.
    """

    def __init__(self, url: str, *, fleet: str, password_file: Optional[str] = None) -> None:
        self._redis = _redis_module()
        prefix = f"pixell:fleet:{checked_name(fleet, 'the name of a fleet')}"
        self._record_prefix, self._index, self._channel = f"{prefix}:task:", f"{prefix}:tasks", f"{prefix}:changes"
        self._client = self._connect(url, password_file)
        # The last record whose write has succeeded, and the last one that may have been written.
        self._published: Optional[Record] = None
        self._attempted: Optional[Record] = None
        # The last snapshot. Its tasks come first if the index names too many.
        self._known: Mapping[str, bytes] = {}
        self._read_whole_at = 0.0

    async def publish(self, record: Record) -> None:
        last, self._attempted = self._published, record
        is_claim = last is None or last.epoch != record.epoch
        is_news = last is None or (last.epoch, last.generation) != (record.epoch, record.generation)
        keys = [self._record_prefix + record.task, self._index]
        arguments = [record.to_json(), record.task, record.epoch, int(is_claim), RECORD_SECONDS, self._channel]
        written = await self._within(self._client.eval(_PUBLISH, 2, *keys, *arguments, int(is_news)))
        if not written:
            raise Superseded(f"another process publishes as task {record.task!r}")
        self._published = record

    async def snapshot(self) -> Mapping[str, bytes]:
        names = await self._names()
        chosen = sorted(names, key=lambda name: (name not in self._known, name))[:MAX_RECORDS]
        if time.monotonic() >= self._read_whole_at:
            self._read_whole_at = time.monotonic() + _WHOLE
            self._known = {}
        documents: dict[str, bytes] = {}
        gone, changed = [], []
        ends = await self._ranges([(name, -_END_BYTES) for name in chosen])
        for name, (end, size) in ends.items():
            if size == 0:
                gone.append(name)
            elif (document := _with_beat_of(end, self._known.get(name, b""))) is not None and len(document) == size:
                documents[name] = document
            else:
                changed.append(name)
        for name, (document, _) in (await self._ranges([(name, 0) for name in changed])).items():
            documents[name] = document
        self._known = documents
        await self._forget(gone)
        return dict(documents)

    async def withdraw(self, task_id: str) -> None:
        if self._attempted is not None and self._attempted.task == task_id:
            keys = [self._record_prefix + task_id, self._index]
            epoch = self._attempted.epoch
            await self._within(self._client.eval(_WITHDRAW, 2, *keys, task_id, epoch, self._channel))

    async def watch(self, notify: Callable[[], None]) -> None:
        async with self._client.pubsub() as subscription:
            await self._within(subscription.subscribe(self._channel))
            is_quiet = False
            while True:
                message = await self._within(subscription.get_message(timeout=_QUIET))
                if message is None:
                    if is_quiet:
                        raise DirectoryUnavailable("the subscription of the directory does not respond")
                    await self._within(subscription.ping())
                is_quiet = message is None
                # "subscribe" counts as well: what was told before is lost.
                if message is not None and message["type"] in ("subscribe", "message"):
                    notify()

    async def close(self) -> None:
        await self._client.aclose()

    async def _names(self) -> list[str]:
        """The names in the index; of a flood of names the known ones and a sample, so that each has its chance."""
        if await self._within(self._client.scard(self._index)) <= _MOST_NAMES:
            return [_text(name) for name in await self._within(self._client.smembers(self._index))]
        sample = await self._within(self._client.srandmember(self._index, MAX_RECORDS))
        return list({*self._known, *map(_text, sample)})

    async def _ranges(self, wanted: list[tuple[str, int]]) -> dict[str, tuple[bytes, int]]:
        """What each record has from a place on, and its whole size. Nothing, if something else is under the key."""
        if not wanted:
            return {}
        pipeline = self._client.pipeline(transaction=False)
        for name, start in wanted:
            # Not GET: a record that is too large is not worth reading.
            pipeline.getrange(self._record_prefix + name, start, MAX_RECORD_BYTES if start == 0 else -1)
            pipeline.strlen(self._record_prefix + name)
        found = await self._within(pipeline.execute(raise_on_error=False))
        for each in found:
            # Something else than a string is damage, and no reason to lose the other records.
            if isinstance(each, Exception) and not str(each).startswith("WRONGTYPE"):
                raise DirectoryUnavailable(f"the directory rejects reads: {each}") from each
        return {
            name: (b"", 1) if isinstance(text, Exception) or isinstance(size, Exception) else (text, size)
            for (name, _), text, size in zip(wanted, found[::2], found[1::2])
        }

    async def _forget(self, names: list[str]) -> None:
        """Removes tasks from the index whose records have been forgotten."""
        if names:
            try:
                await self._client.srem(self._index, *names)
            except (self._redis.RedisError, OSError):
                pass  # An access list may forbid it, and it does no harm.

    def _connect(self, url: str, password_file: Optional[str]) -> Any:
        place, user = _without_user(url)
        credentials = None
        if password_file is not None:
            credentials = _credentials(self._redis, user, password_file)
        elif user is not None:
            raise InvalidArgument("a user in the directory's URL needs `password_file`")
        # Older versions of redis-py check a certificate, but not whose it is.
        checks = {"ssl_check_hostname": True} if place.startswith("rediss:") else {}
        try:
            return self._redis.asyncio.Redis.from_url(
                place,
                **checks,
                credential_provider=credentials,
                socket_connect_timeout=_CONNECT,
                socket_timeout=_RESPOND,
                socket_keepalive=True,
                # Fleet repeats each call anyway.
                retry=self._redis.asyncio.retry.Retry(self._redis.backoff.NoBackoff(), 0),
            )
        except ValueError as error:
            raise InvalidArgument(f"the directory's URL cannot be used: {error}") from error

    async def _within(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except (self._redis.RedisError, OSError, asyncio.TimeoutError) as error:
            if isinstance(error, self._redis.exceptions.ReadOnlyError):
                # The connection leads to a server that has become a replica. The name leads to the new primary.
                await self._client.connection_pool.disconnect(inuse_connections=False)
            raise DirectoryUnavailable(f"the directory in Redis does not work: {error!r}") from error


def _redis_module() -> Any:
    try:
        import redis.asyncio.retry
        import redis.backoff
    except ModuleNotFoundError as error:
        raise MissingExtra.named("redis", "RedisDirectory") from error
    return redis


def _credentials(redis: Any, user: Optional[str], path: str) -> Any:
    read = read_secret(path, _PASSWORD_FILE)

    class FromFile(redis.CredentialProvider):  # type: ignore[misc]
        def get_credentials(self) -> tuple[str, ...]:
            nonlocal read
            try:
                read = read_secret(path, _PASSWORD_FILE)
            except InvalidArgument:
                pass  # It is gone, or just being written: the password is the one that was read.
            return (read,) if user is None else (user, read)

        async def get_credentials_async(self) -> tuple[str, ...]:
            return self.get_credentials()

    return FromFile()


def _without_user(url: str) -> tuple[str, Optional[str]]:
    """The URL without its user, and the user. Raises InvalidArgument if it holds a password."""
    parts = urlsplit(url)
    if parts.password is not None or "password=" in parts.query:
        # The URL is not shown: it holds the password.
        raise InvalidArgument(
            "the directory's URL holds a password, which every agent could read: write the password into a file "
            "with the mode 0600, and pass its path as `password_file`"
        )
    place = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return place, unquote(parts.username) if parts.username else None


def _with_beat_of(end: bytes, known: bytes) -> Optional[bytes]:
    """`known` with the beat in `end`, which is the end of a newer version; None if more than the beat has changed."""
    new, old = _END.search(end), _END.search(known[-_END_BYTES:])
    if new is None or old is None or new["state"] != old["state"]:
        return None
    return known[: len(known) - len(old["beat"]) - 1] + new["beat"] + b"}"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
