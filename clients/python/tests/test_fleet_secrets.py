"""An agent is a process of another user: it can neither read the directory's credentials nor use the directory."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from stores import TABLE, DynamoDb, RedisServer, in_thread

from pixell_envoy import InvalidArgument
from pixell_envoy.fleet import DirectoryUnavailable, DynamoDbDirectory, Record, RedisDirectory, read_record

PASSWORD = "correct-horse"
AGENT = 65534
"""The user nobody."""


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    # The directory itself hides nothing: the file's mode does.
    for place in (tmp_path, *list(tmp_path.parents)[:3]):
        if place != Path("/tmp"):
            place.chmod(0o755)
    return secret(tmp_path / "password", PASSWORD + "\n")


def secret(place: Path, text: str, mode: int = 0o600) -> Path:
    place.write_text(text)
    place.chmod(mode)
    return place


def user(name: str, task: str) -> str:
    """A user of Redis that may read the whole fleet, and write the record of one task. docs/fleet.md shows it."""
    text = (Path(__file__).resolve().parents[3] / "docs/fleet.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("user "))
    return line.replace("TASK", task).replace("NAME", name).replace("PASSWORD", PASSWORD)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    rules = secret(tmp_path / "users.acl", f"user default off\n{user('one', 'task-a')}\n{user('two', 'task-b')}\n")
    server = RedisServer("--aclfile", str(rules))
    server.start()
    yield server
    server.remove()


def only_root() -> None:
    if os.geteuid() != 0:
        raise AssertionError("only root can start a process of another user: run this test as root")


def as_agent(*command: str) -> str:
    """What a program of another user prints. Like PAR, it starts agents without its own environment."""
    only_root()
    environment = {"PATH": "/usr/bin:/bin"}
    started = subprocess.run(
        command,
        env=environment,
        cwd="/",
        user=AGENT,
        group=AGENT,
        extra_groups=[],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return started.stdout


BOTO3 = """
import os, sys
import boto3, encodings.idna
from botocore.exceptions import NoCredentialsError
# Interpreter and packages may be where only root can read them: what is imported late is imported now.
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
found = boto3.session.Session(region_name="us-east-2")
keys = found.get_credentials()
print(os.getuid(), "no keys" if keys is None else keys.access_key)
for secret in (sys.argv[2], sys.argv[5]):
    try:
        open(secret)
    except OSError as error:
        print(type(error).__name__)
table = found.client("dynamodb", endpoint_url=sys.argv[3])
record = {"key": {"S": "prod/task-b"}, "record": {"B": b"forged"}}
for call in (lambda: table.scan(TableName=sys.argv[4]), lambda: table.put_item(TableName=sys.argv[4], Item=record)):
    try:
        call()
        print("done")
    except NoCredentialsError as error:
        print(type(error).__name__)
"""


def boto3_as_agent(environment: dict[str, str], *arguments: str) -> list[str]:
    """What boto3 finds in a process of another user with this environment, line by line."""
    only_root()
    command = [sys.executable, "-c", BOTO3, str(AGENT), *arguments]
    # The machine that runs this test may have credentials of its own, where a task on Fargate has none.
    environment = {"PATH": "/usr/bin:/bin", "AWS_EC2_METADATA_DISABLED": "true", **environment}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class OfTheTask(http.server.BaseHTTPRequestHandler):
    """Gives out the role's keys, as ECS does at an address that is in PAR's environment alone."""

    def do_GET(self) -> None:
        keys = {
            "AccessKeyId": "of-the-task",
            "SecretAccessKey": "s",
            "Token": "t",
            "Expiration": "2999-01-01T00:00:00Z",
        }
        body = json.dumps(keys).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def role_of_the_task() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OfTheTask) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/keys"
        finally:
            server.shutdown()
            thread.join()


async def test_an_agent_has_no_keys_for_dynamodb(password_file: Path) -> None:
    keys = "[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = geheim\n"
    file = secret(password_file.with_name("aws"), keys)
    server = DynamoDb()
    await in_thread(server.start)
    try:
        directory = server.directory("prod", credentials_file=str(file))
        record = Record("task-a", "10.0.0.1", "e", 1, 1, {"x": "active"})
        await directory.publish(record)
        # The address of a role's credentials is in PAR's environment.
        arguments = (str(file), f"http://127.0.0.1:{server.port}", TABLE, f"/proc/{os.getpid()}/environ")
        # To know the file's name does not help either.
        for environment in ({}, {"AWS_SHARED_CREDENTIALS_FILE": str(file)}):
            said = await in_thread(partial(boto3_as_agent, environment, *arguments))
            assert said == [f"{AGENT} no keys", *["PermissionError"] * 2, *["NoCredentialsError"] * 2]
        assert set(await directory.snapshot()) == {"task-a"}
        # What PAR must keep from agents: with its address the same program has the task's role.
        with role_of_the_task() as url:
            environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}
            said = await in_thread(partial(boto3_as_agent, environment, *arguments))
        assert said == [f"{AGENT} of-the-task", *["PermissionError"] * 2, "done", "done"]
        await directory.close()
    finally:
        await in_thread(server.stop)


@pytest.mark.redis
async def test_an_agent_can_neither_read_nor_publish(redis_server: RedisServer, password_file: Path) -> None:
    url = f"redis://one@127.0.0.1:{redis_server.port}/0"
    directory = RedisDirectory(url, fleet="prod", password_file=str(password_file))
    record = Record("task-a", "10.0.0.1", "e", 1, 1, {"x": "active"})
    await directory.publish(record)
    assert await in_thread(partial(as_agent, "id", "-u")) == f"{AGENT}\n"
    for place in (str(password_file), f"/proc/{os.getpid()}/environ"):
        assert "Permission denied" in await in_thread(partial(as_agent, "cat", place))
    key = "pixell:fleet:prod:task:task-a"
    for asked in (["SET", key, "forged"], ["GET", key], ["PUBLISH", "pixell:fleet:prod:changes", "x"]):
        said = await in_thread(partial(as_agent, "redis-cli", "-p", str(redis_server.port), *asked))
        assert "NOAUTH" in said
    assert read_record("task-a", (await directory.snapshot())["task-a"]) == record
    await directory.close()


def of_users(server: RedisServer, password_file: Path) -> tuple[RedisDirectory, RedisDirectory]:
    """The directory as the user of each of two tasks."""
    one, two = (
        RedisDirectory(f"redis://{name}@127.0.0.1:{server.port}/0", fleet="prod", password_file=str(password_file))
        for name in ("one", "two")
    )
    return one, two


@pytest.mark.redis
async def test_a_tasks_user_writes_its_own_record_alone(redis_server: RedisServer, password_file: Path) -> None:
    one, two = of_users(redis_server, password_file)
    a, b = Record("task-a", "10.0.0.1", "e", 1, 1), Record("task-b", "10.0.0.2", "e", 1, 1)
    await one.publish(a)
    await two.publish(b)
    for forged in (Record("task-b", "10.0.0.9", "f", 1, 1), Record("task-c", "10.0.0.9", "f", 1, 1)):
        with pytest.raises(DirectoryUnavailable, match="permission"):
            await one.publish(forged)
        with pytest.raises(DirectoryUnavailable, match="permission"):
            await one.withdraw(forged.task)
    snapshot = await two.snapshot()
    assert {task: read_record(task, document) for task, document in snapshot.items()} == {"task-a": a, "task-b": b}
    one._attempted = a
    await one.withdraw("task-a")
    assert set(await two.snapshot()) == {"task-b"}
    login = ["redis-cli", "-p", str(redis_server.port), "--user", "one", "--pass", PASSWORD, "--no-auth-warning"]
    for command in ("KEYS *", "FLUSHALL", "CONFIG GET *", "SET pixell:fleet:prod:task:task-b x", "GET other"):
        said = await in_thread(partial(as_agent, *login, *command.split()))
        assert "NOPERM" in said, command
    await one.close()
    await two.close()


@pytest.mark.redis
async def test_a_tasks_user_cannot_take_down_the_directory(redis_server: RedisServer, password_file: Path) -> None:
    one, two = of_users(redis_server, password_file)
    index, own = "pixell:fleet:prod:tasks", "pixell:fleet:prod:task:task-a"
    await one.publish(Record("task-a", "10.0.0.1", "e", 1, 1))
    await two.publish(Record("task-b", "10.0.0.2", "e", 1, 1))
    assert set(await two.snapshot()) == {"task-a", "task-b"}
    hostile: Any = redis.Redis(port=redis_server.port, username="one", password=PASSWORD)
    with contextlib.closing(hostile):
        # With a string in its place, no task could read or write the index.
        for command in (["SET", index, "x"], ["DEL", index], ["GET", index], ["SADD", own, "x"], ["SREM", own, "x"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                hostile.execute_command(*command)
            script = f"return redis.call({', '.join(map(repr, command))})"
            with pytest.raises(redis.exceptions.ResponseError, match=r"can't|No permissions"):
                hostile.eval(script, 2, own, index)
        await in_thread(lambda: hostile.sadd(index, *[f"junk-{n}" for n in range(12_000)]))
        assert set(await two.snapshot()) == {"task-a", "task-b"}
        await one.publish(Record("task-a", "10.0.0.1", "e", 2, 2))
        size = hostile.scard(index)
        for _ in range(13):
            snapshot = await two.snapshot()
            assert set(snapshot) == {"task-a", "task-b"} and read_record("task-a", snapshot["task-a"]).beat == 2
        # Those who read it clean it up.
        assert size > 10_000 and hostile.scard(index) == 2
    await one.close()
    await two.close()


@pytest.mark.redis
async def test_the_password_may_change_and_its_file_may_be_gone(redis_server: RedisServer, password_file: Path) -> None:
    url = f"redis://one@127.0.0.1:{redis_server.port}/0"
    directory = RedisDirectory(url, fleet="prod", password_file=str(password_file))
    password_file.unlink()
    assert await directory.snapshot() == {}
    secret(password_file, "another")
    assert await directory.snapshot() == {}
    await in_thread(redis_server.stop)
    await in_thread(redis_server.start)
    # A new connection, and a file that is there again.
    with contextlib.suppress(DirectoryUnavailable):
        await directory.snapshot()
    with pytest.raises(DirectoryUnavailable, match=r"(?i)pass|auth"):
        await directory.snapshot()
    secret(password_file, PASSWORD)
    assert await directory.snapshot() == {}
    await directory.close()


@pytest.mark.redis
@pytest.mark.parametrize(
    "url",
    [f"redis://one:{PASSWORD}@h/0", f"redis://:{PASSWORD}@h/0", f"redis://h/0?password={PASSWORD}", "redis://one@h/0"],
)
def test_a_password_in_the_url_is_an_error_that_does_not_show_it(url: str) -> None:
    with pytest.raises(InvalidArgument, match="password_file") as raised:
        RedisDirectory(url, fleet="prod")
    assert PASSWORD not in str(raised.value)


async def test_with_tls_the_servers_name_is_checked(password_file: Path) -> None:
    directory = RedisDirectory("rediss://one@redis.internal:6380/0", fleet="prod", password_file=str(password_file))
    settings = directory._client.connection_pool.connection_kwargs
    assert (settings["host"], settings["port"], settings["ssl_check_hostname"]) == ("redis.internal", 6380, True)
    assert directory._client.connection_pool.make_connection().cert_reqs == ssl.CERT_REQUIRED
    await directory.close()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
@pytest.mark.parametrize("kind", ["redis", "dynamodb"])
def test_a_file_that_others_can_read_is_an_error(tmp_path: Path, mode: int, kind: str) -> None:
    place = str(secret(tmp_path / "secret", PASSWORD, mode))
    with pytest.raises(InvalidArgument, match="chmod 600") as raised:
        made(kind, place)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("kind", ["redis", "dynamodb"])
def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot read"):
        made(kind, str(tmp_path / "nothing"))
    with pytest.raises(InvalidArgument, match="not text"):
        place = tmp_path / "bytes"
        place.write_bytes(b"\xff")
        place.chmod(0o600)
        made(kind, str(place))


def test_a_credentials_file_in_awss_form(tmp_path: Path) -> None:
    place = secret(tmp_path / "aws", "[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = geheim\n")
    assert isinstance(made("dynamodb", str(place)), DynamoDbDirectory)
    for text in ("geheim", "[other]\naws_access_key_id = a\naws_secret_access_key = geheim\n"):
        secret(place, text)
        with pytest.raises(InvalidArgument) as raised:
            made("dynamodb", str(place))
        assert "geheim" not in str(raised.value)


def made(kind: str, place: str) -> object:
    if kind == "redis":
        return RedisDirectory("redis://127.0.0.1:1/0", fleet="prod", password_file=place)
    return DynamoDbDirectory("table", fleet="prod", region="us-east-2", credentials_file=place)
