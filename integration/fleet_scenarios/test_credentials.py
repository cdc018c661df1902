"""An agent is a process of another user: it cannot read the directory's credentials, and publishes nothing."""

from __future__ import annotations

import json
from typing import Any

from scenarios.clients import GrpcClient

from .fleet import Fleet, Task

SECRET = "/run/pixell-par/redis-password"
# What a hostile agent tries. Prints a JSON object: what each attempt printed, or its error.
ATTEMPTS = """
import json, subprocess, sys, urllib.error, urllib.request
from pathlib import Path

def read(place):
    try:
        return Path(place).read_bytes().decode(errors="replace")
    except OSError as error:
        return type(error).__name__

def redis(*words):
    command = ["redis-cli", "-h", "directory", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return done.stdout + done.stderr

def put_fleet():
    body = b'{"peers": {}, "routes": {}}'
    headers = {"content-type": "application/json"}
    request = urllib.request.Request("http://127.0.0.1:9901/v1/fleet", body, headers, method="PUT")
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code

secret, key, index, *pids = sys.argv[1:]
done = {"file": read(secret), "environment": [read(f"/proc/{pid}/environ") for pid in pids], "fleet map": put_fleet()}
channel = "pixell:fleet:prod:changes"
for words in (("GET", key), ("SET", key, "forged"), ("SADD", index, "forged"), ("PUBLISH", channel, "x")):
    done[words[0]] = redis(*words)
done["guess"] = redis("--user", "task-a", "--pass", "not-a-secret", "--no-auth-warning", "GET", key)
print(json.dumps(done))
"""


def pids_of_par(task: Task) -> list[str]:
    """The process 1, and PAR. Children of the first that are not PAR are agents that outlived an earlier one."""
    top = task.par.run("sh", "-c", "echo 1 $(cat /proc/1/task/1/children)").split()
    pids = [pid for pid in top if task.par.run("stat", "-c", "%u", f"/proc/{pid}").strip() == "0"]
    assert len(pids) == 2, pids
    return pids


def attempts(task: Task, uid: int) -> dict[str, Any]:
    """The results of ATTEMPTS, run by this user without the container's environment."""
    prefix = "pixell:fleet:prod"
    command = ["env", "-i", "PATH=/usr/bin:/bin", "/opt/venv/bin/python3", "-c", ATTEMPTS]
    arguments = [SECRET, f"{prefix}:task:{task.name}", f"{prefix}:tasks", *pids_of_par(task)]
    code, output = task.par.raw.exec_run([*command, *arguments], user=f"{uid}:{uid}")
    assert code == 0 and isinstance(output, bytes), output
    done: dict[str, Any] = json.loads(output)
    return done


def test_an_agent_can_neither_read_the_credentials_nor_publish(fleet: Fleet) -> None:
    task, other = fleet.tasks[0], fleet.tasks[1]
    hostile = task.rest.deploy("hostile")
    fleet.wait_served({"hostile": "grpc"})
    assert hostile["uid"] != 0
    done = attempts(task, hostile["uid"])
    assert done.pop("file") == "PermissionError"
    assert set(done.pop("environment")) == {"PermissionError"}
    assert done.pop("fleet map") == 401
    for what, said in done.items():
        assert "NOAUTH" in said or "WRONGPASS" in said, f"{what}: {said}"
    # The user of PAR can do both, so the attempts above were able to find out.
    assert task.par.run("cat", SECRET).endswith(f"-{task.name}")
    environments = "".join(task.par.run("cat", f"/proc/{pid}/environ") for pid in pids_of_par(task))
    assert "PAR_TASK=task-a" in environments and "DIRECTORY_PASSWORD" not in environments
    assert other.rest.peers()[task.name] == {"hostile": "active"}
    client = GrpcClient(other.address)
    assert client.health("hostile") == "hostile"
    client.close()
