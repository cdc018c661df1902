"""Agents of hostile tenants: each has a user of its own, and gets neither the token nor another agent's traffic."""

from __future__ import annotations

import json
from typing import Any

from . import route_api
from .clients import GrpcClient
from .engine import Project
from .par_client import Par

# What a hostile agent tries. Prints a JSON object: the result of each attempt, or the name of the error.
ATTEMPTS = """
import json, os, signal, socket, sys, urllib.error, urllib.request
ports, pids = json.loads(sys.argv[1]), json.loads(sys.argv[2])

def bind(port):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        return "bound"

def put(_):
    request = urllib.request.Request("http://127.0.0.1:9901/v1/routes", b'{"routes": {}}', {}, method="PUT")
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code

def attempt(what, *arguments):
    try:
        return what(*arguments)
    except OSError as error:
        return type(error).__name__ + " " + str(error.errno)

def read(place):
    with open(place, "rb") as file:
        return file.read().decode(errors="replace")

done = {f"bind {port}": attempt(bind, port) for port in ports}
for pid in pids:
    done |= {f"{name} {pid}": attempt(read, f"/proc/{pid}/{name}") for name in ("environ", "mem", "maps")}
    done[f"fd {pid}"] = attempt(lambda: len(os.listdir(f"/proc/{pid}/fd")))
    done[f"kill {pid}"] = attempt(os.kill, pid, signal.SIGKILL)
for place in ("/var/lib/par/agents.json", "/var/lib/par/next-user"):
    done[place] = attempt(read, place)
done["sniff"] = attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3) and "open")
done["put"] = attempt(put, None)
done["own environment"] = attempt(read, f"/proc/{sys.argv[3]}/environ")
print(json.dumps(done))
"""
EACCES, EPERM, EADDRINUSE = 13, 1, 98


def attempts(project: Project, agent: dict[str, Any], ports: list[int], pids: list[int]) -> dict[str, Any]:
    """The results of ATTEMPTS, run by this agent's user without the container's environment."""
    command = [
        "env",
        "-i",
        "/opt/venv/bin/python3",
        "-c",
        ATTEMPTS,
        json.dumps(ports),
        json.dumps(pids),
        str(agent["pid"]),
    ]
    code, output = project.par.raw.exec_run(command, user=f"{agent['uid']}:{agent['uid']}")
    assert code == 0 and isinstance(output, bytes), output
    done: dict[str, Any] = json.loads(output)
    return done


def test_an_agent_gets_neither_the_token_nor_anothers_traffic(
    project: Project, par: Par, grpc_client: GrpcClient
) -> None:
    victim, hostile = par.deploy("victim"), par.deploy("hostile")
    assert victim["uid"] != hostile["uid"] and 0 not in (victim["uid"], hostile["uid"])
    top = project.par.run("sh", "-c", "cat /proc/1/task/1/children").split()
    pids = [1, victim["pid"], *(int(pid) for pid in top if int(pid) not in (victim["pid"], hostile["pid"]))]
    done = attempts(project, hostile, [victim["port"], 50051, 9901], pids)

    own = done.pop("own environment")
    assert "PATH=" in own and "TOKEN" not in own and route_api.TOKEN not in own, own
    assert done.pop("put") == 401
    for what, got in done.items():
        if what.startswith("bind"):
            assert got == f"OSError {EADDRINUSE}", f"{what}: {got}"
        else:
            assert got in (f"PermissionError {EACCES}", f"PermissionError {EPERM}"), f"{what}: {got}"
    # No process was killed, and the victim gets every call.
    assert [grpc_client.health("victim") for _ in range(20)] == ["victim"] * 20


def test_the_agents_own_user_cannot_share_its_port(project: Project, par: Par) -> None:
    """Sharing is off in the agent (grpc.so_reuseport=0): a process that it has started gets none of its calls."""
    agent = par.deploy("agent-a")
    assert attempts(project, agent, [agent["port"]], [])[f"bind {agent['port']}"] == f"OSError {EADDRINUSE}"


def test_an_agents_processes_end_with_it_and_its_user_is_not_reused(project: Project, par: Par) -> None:
    agent = par.deploy("agent-a")
    user = f"{agent['uid']}:{agent['uid']}"
    project.par.raw.exec_run(["sleep", "600"], user=user, detach=True)
    running = ["sh", "-c", f"grep -lE '^Uid:[[:space:]]+{agent['uid']}' /proc/[0-9]*/status | wc -l"]
    assert int(project.par.run(*running)) == 2
    again = par.deploy("agent-a")
    assert again["uid"] != agent["uid"]
    assert int(project.par.run(*running)) == 0
