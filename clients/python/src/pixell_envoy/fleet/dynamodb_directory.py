"""A directory in a table of DynamoDB."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional, Protocol, TypeVar

from ..errors import InvalidArgument
from .directory import MAX_RECORDS, RECORD_SECONDS
from .errors import DirectoryUnavailable, MissingExtra, Superseded
from .names import checked_name
from .record import Record
from .secret_file import read_secret

T = TypeVar("T")

# Seconds for a connection, and for a response. A request is sent twice at most.
_CONNECT, _RESPOND, _ATTEMPTS = 1.0, 2.0, 2

# Snapshot and publication at the same time. There is one thread for writes: a call that was cancelled still ends in its
# thread, and must not overtake the next one.
_THREADS = 2


class _Client(Protocol):
    """What is used of boto3's client for DynamoDB."""

    def put_item(self, **arguments: Any) -> Mapping[str, Any]: ...
    def delete_item(self, **arguments: Any) -> Mapping[str, Any]: ...
    def scan(self, **arguments: Any) -> Mapping[str, Any]: ...
    def close(self) -> None: ...


class DynamoDbDirectory:
    """See Directory. `table` has the partition key `key` (a string), no sort key, and `expires` as its time to live.

    Several fleets may use one table, but each snapshot reads all of it. An item's key is `<fleet>/<task>`, or
    `<fleet>/<role_id>:<task>` if `role_id` is given: then it ends with the `aws:userid` of a task on ECS, by which a
    policy can limit each task to its own item.

    The credentials come from AWS's default chain (on ECS the task's role), or from `credentials_file`, a file in AWS's
    format with the mode 0600, which may be removed once the constructor has read it. The calls run in threads.
    """

    def __init__(
        self,
        table: str,
        *,
        fleet: str,
        role_id: Optional[str] = None,
        region: Optional[str] = None,
        credentials_file: Optional[str] = None,
        endpoint_url: Optional[str] = None,
    ) -> None:
        self._table = table
        self._prefix = checked_name(fleet, "the name of a fleet") + "/"
        self._owner = "" if role_id is None else checked_name(role_id, "the id of a role") + ":"
        self._make_client = _client_maker(region, credentials_file, endpoint_url)
        self._client: Optional[_Client] = None
        self._making = threading.Lock()
        self._reads, self._writes = (
            ThreadPoolExecutor(1, thread_name_prefix=f"pixell-fleet-dynamodb-{what}") for what in ("reads", "writes")
        )
        # The last record whose write has succeeded, and the last one that may have been written.
        self._published: Optional[Record] = None
        self._attempted: Optional[Record] = None

    async def publish(self, record: Record) -> None:
        last, self._attempted = self._published, record
        arguments: dict[str, Any] = {
            "Item": {
                "key": {"S": self._key(record.task)},
                "record": {"S": record.to_json().decode("ascii")},
                "epoch": {"S": record.epoch},
                # The clock decides only when garbage is removed.
                "expires": {"N": str(int(time.time()) + RECORD_SECONDS)},
            }
        }
        if last is not None and last.epoch == record.epoch:
            arguments.update(self._if_epoch(record.epoch))
        if not await self._call(
            self._writes, lambda client: _conditionally(client.put_item, TableName=self._table, **arguments)
        ):
            raise Superseded(f"another process publishes as task {record.task!r}")
        self._published = record

    async def snapshot(self) -> Mapping[str, bytes]:
        return await self._call(self._reads, self._scan)

    async def withdraw(self, task_id: str) -> None:
        attempted = self._attempted
        if attempted is not None and attempted.task == task_id:
            key = {"key": {"S": self._key(task_id)}}
            condition = self._if_epoch(attempted.epoch)
            await self._call(
                self._writes,
                lambda client: _conditionally(client.delete_item, TableName=self._table, Key=key, **condition),
            )

    async def close(self) -> None:
        self._reads.shutdown(wait=False)
        self._writes.shutdown(wait=False)
        if self._client is not None:
            self._client.close()

    def _key(self, task: str) -> str:
        return f"{self._prefix}{self._owner}{task}"

    def _scan(self, client: _Client) -> dict[str, bytes]:
        arguments: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "FilterExpression": "begins_with(#key, :prefix)",
            "ProjectionExpression": "#key, #record",
            "ExpressionAttributeNames": {"#key": "key", "#record": "record"},
            "ExpressionAttributeValues": {":prefix": {"S": self._prefix}},
        }
        documents: dict[str, bytes] = {}
        while True:
            page = client.scan(**arguments)
            for item in page["Items"]:
                task = item["key"]["S"][len(self._prefix) :].rpartition(":")[2]
                # Anything else than a string is damage.
                documents[task] = item.get("record", {}).get("S", "").encode("utf-8", "replace")
            if len(documents) >= MAX_RECORDS or "LastEvaluatedKey" not in page:
                return dict(list(documents.items())[:MAX_RECORDS])
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _if_epoch(self, epoch: str) -> dict[str, Any]:
        return {
            "ConditionExpression": "attribute_not_exists(#key) OR #epoch = :epoch",
            "ExpressionAttributeNames": {"#key": "key", "#epoch": "epoch"},
            "ExpressionAttributeValues": {":epoch": {"S": epoch}},
        }

    async def _call(self, thread: ThreadPoolExecutor, call: Callable[[_Client], T]) -> T:
        """Runs `call` in a thread."""
        from botocore.exceptions import BotoCoreError, ClientError

        def run() -> T:
            with self._making:
                if self._client is None:
                    # Here, because it takes a tenth of a second, in which the event loop must not stop.
                    self._client = self._make_client()
            return call(self._client)

        try:
            return await asyncio.get_running_loop().run_in_executor(thread, run)
        except (BotoCoreError, ClientError, OSError) as error:
            raise DirectoryUnavailable(f"the directory in DynamoDB does not work: {error}") from error


def _conditionally(write: Callable[..., object], **arguments: Any) -> bool:
    """False if the condition of the write does not hold."""
    from botocore.exceptions import ClientError

    try:
        write(**arguments)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
            return False
        raise
    return True


def _client_maker(region: Optional[str], file: Optional[str], endpoint: Optional[str]) -> Callable[[], _Client]:
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as error:
        raise MissingExtra.named("dynamodb", "DynamoDbDirectory") from error
    keys = {} if file is None else _keys_in(file)
    config = Config(
        connect_timeout=_CONNECT,
        read_timeout=_RESPOND,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        max_pool_connections=_THREADS,
    )

    def make() -> _Client:
        # A session of its own: boto3's default session belongs to the program.
        client: _Client = boto3.session.Session(region_name=region, **keys).client(
            "dynamodb", endpoint_url=endpoint, config=config
        )
        return client

    return make


def _keys_in(file: str) -> dict[str, str]:
    """The keys of the profile `default`, as arguments of a session."""
    from botocore.credentials import SharedCredentialProvider
    from botocore.exceptions import BotoCoreError

    # It checks who can read the file, which botocore does not.
    read_secret(file, "the credentials file of the directory")
    try:
        found = SharedCredentialProvider(creds_filename=str(Path(file).absolute()), profile_name="default").load()
    except BotoCoreError as error:
        raise InvalidArgument(f"cannot use the credentials file of the directory: {error}") from error
    if found is None:
        raise InvalidArgument(f"the credentials file {file} has no aws_access_key_id in a section [default]")
    keys = {
        "aws_access_key_id": found.access_key,
        "aws_secret_access_key": found.secret_key,
        "aws_session_token": found.token,
    }
    return {name: value for name, value in keys.items() if value}
