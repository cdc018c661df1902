"""The task definition's container `par-token`: PAR gets the token in a file, and removes it before an agent starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .engine import Project
from .wait import wait_until

DEFINITION = json.loads(Path("deploy/task-definition.json").read_text())
PLACE, USER = "/run/pixell-par", "1000:1000"
URL = "http://127.0.0.1:9901"


def container(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in DEFINITION["containerDefinitions"] if each["name"] == name)
    return found


def test_par_reads_the_token_once_and_agents_never_see_it(project: Project) -> None:
    writer = container("par-token")
    drop = writer["linuxParameters"]["capabilities"]["drop"]
    command = [each.replace("${PAR_USER}", USER) for each in writer["command"]]
    volume = project.engine.volumes.create()
    mounts = {volume.name: {"bind": PLACE, "mode": "rw"}}
    options: dict[str, Any] = {
        "user": writer["user"],
        "cap_drop": drop,
        "read_only": True,
        "volumes": mounts,
        "entrypoint": writer["entryPoint"],
    }
    try:
        with project.extra(project.par, {"PIXELL_ADMIN_TOKEN": "secret-token"}, command=command, **options) as token:
            token.start()
            assert token.wait_ended() == 0, token.logs()
        code = "import os; from par.__main__ import make_manager; from pixell_envoy.admin_token import find_token"
        code += f"; mode = os.stat('{PLACE}/admin-token').st_mode; make_manager()"
        # The token that later clients in the process get.
        code += f"; print(mode & 0o777, find_token(None, hide=True), os.listdir('{PLACE}'))"
        code += "; print('secret-token' in str(os.environ))"
        settings = {"PIXELL_ADMIN_TOKEN_FILE": f"{PLACE}/admin-token", "HOME": "/tmp", "ENVOY_ADMIN_URL": URL}
        with project.extra(
            project.par, settings, command=["python3", "-c", code], user=USER, cap_drop=["ALL"], volumes=mounts
        ) as par:
            par.start()
            assert par.wait_ended() == 0, par.logs()
            wait_until("the output arrives", lambda: "False" in par.logs())
            assert par.logs().split() == [str(0o600), "secret-token", "[]", "False"]
    finally:
        volume.remove(force=True)
