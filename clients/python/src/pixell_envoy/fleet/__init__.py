"""Fleets: any task serves any deployment id.

| name | what it is |
| --- | --- |
| Fleet | publishes this task's agents, and gives its Envoy the agents of the other tasks |
| RedisDirectory, DynamoDbDirectory | where tasks publish; each needs an extra of this package |
| MemoryDirectory | the same within one process, for tests and trials |
| Directory | the protocol, for a store of your own |
"""

from .directory import Directory
from .dynamodb_directory import DynamoDbDirectory
from .errors import BadRecord, DirectoryUnavailable, MetadataError, MissingExtra, Superseded
from .fleet import Fleet
from .memory import MemoryDirectory, MemoryStore
from .reading import read_record
from .record import MAX_RECORD_BYTES, Record
from .redis_directory import RedisDirectory

__all__ = [
    "MAX_RECORD_BYTES",
    "BadRecord",
    "Directory",
    "DirectoryUnavailable",
    "DynamoDbDirectory",
    "Fleet",
    "MemoryDirectory",
    "MemoryStore",
    "MetadataError",
    "MissingExtra",
    "Record",
    "RedisDirectory",
    "Superseded",
    "read_record",
]
