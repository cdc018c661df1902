"""docs/deploy.md: its commands, run in its order, print what it shows; what it points to is there.

UPDATE_DOCS=yes pytest --numprocesses=0 test_docs.py    writes the outputs into the page anew
"""

from __future__ import annotations

import os
import re

from support.account import ACCOUNT, Account
from support.agents import Agent
from support.envoy import Envoy
from support.names import DEPLOY, ROOT
from support.stages import Stages
from support.tool import Result, Tool

PAGE = ROOT / "docs/deploy.md"
BLOCK = re.compile(r"^```console\n\$ deploy/pixell-envoy (.+)\n((?:.*\n)*?)```$", re.M)


def run(tool: Tool, command: str, envoy: Envoy) -> Result:
    """The command as the page has it, with what it cannot show: a planted failure, the test's own addresses."""
    words, _, remark = command.partition(" # ")
    arguments = words.split()
    environment = {}
    if "makes the listener is refused" in remark:
        environment["TEST_AWS_FAIL"] = "elbv2 create-listener"
        environment["TEST_AWS_ERROR"] = (
            "AccessDenied: you are not authorized to perform: elasticloadbalancing:CreateListener"
        )
    if arguments[0] in ("apply", "rollback") and "--yes" not in arguments:
        arguments.append("--yes")
    if arguments[0] == "verify":
        arguments += ["--endpoint", envoy.endpoint, "--ready-url", f"{envoy.url}/ready"]
    return tool.run(*arguments, **environment)


def shown(result: Result, tool: Tool, envoy: Envoy) -> str:
    """What it printed, with what is different every time replaced."""
    text = result.out + result.err
    for pattern, replacement in (
        (re.escape(f"{DEPLOY}/"), "deploy/"),
        (re.escape(f" --settings {tool.directory}/settings.env"), ""),
        (re.escape(f"{envoy.url}/ready"), "http://10.0.1.17:9901/ready"),
        (re.escape(envoy.endpoint), "pixell-runtime-nlb-0.elb.us-east-2.amazonaws.com:50051"),
        (r"pixell-runtime-nlb-1\.us-east-2\.elb\.amazonaws\.com", "pixell-runtime-nlb-0.elb.us-east-2.amazonaws.com"),
        (ACCOUNT, "<account>"),
        (r"\b(sg|vpc)-[0-9a-f]{17}\b", r"\1-0"),
        (r"(secret:pixell-envoy/admin-token)-\w{6}", r"\1-Ab12Cd"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-01-01T00:00:00Z"),
        (r"^ +\d+s  ", "     0s  "),
        (r"user/moto", "user/you"),
    ):
        text = re.sub(pattern, replacement, text, flags=re.M)
    # The page shows the plan once.
    text = re.sub(r"\n\nrepository:\n  create.*\n\nrecord:", "\n\n(the plan, as above)\n\nrecord:", text, flags=re.S)
    return text.strip("\n") + "\n"


def test_every_command_prints_what_the_page_shows(account: Account, stages: Stages, tool: Tool, envoy: Envoy) -> None:
    agents = {
        "8f2c1d3e-0000-4000-8000-00000000000a": Agent("alpha is up"),
        "8f2c1d3e-0000-4000-8000-00000000000b": Agent("beta is up"),
    }
    envoy.push({id: agent.port for id, agent in agents.items()})
    tool.settings["IMAGE_TAG"] = "0.1.0-4f2a9c1d7e30"
    page = PAGE.read_text()
    commands = BLOCK.findall(page)
    outputs: dict[str, str] = {}
    try:
        # The apply that stops half way is tried in an account of its own.
        for command, _ in sorted(commands, key=lambda command: "refused" not in command[0]):
            result = run(tool, command, envoy)
            assert result.status == ("refused" in command), str(result)
            outputs[command] = shown(result, tool, envoy)
            if "refused" in command:
                stages.before()
    finally:
        for agent in agents.values():
            agent.stop()
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(
            BLOCK.sub(lambda match: f"```console\n$ deploy/pixell-envoy {match[1]}\n{outputs[match[1]]}```", page)
        )
    for command, text in commands:
        assert outputs[command] == text, command


def test_every_link_inside_the_page_leads_somewhere() -> None:
    page = PAGE.read_text()
    titles = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", page, re.M)
    }
    for target in re.findall(r"\]\(#([\w-]+)\)", page):
        assert target in titles, target


def test_every_command_and_setting_that_is_named_exists() -> None:
    page = PAGE.read_text()
    usage = (DEPLOY / "pixell-envoy").read_text()
    settings = (DEPLOY / "settings.example.env").read_text()
    for command in re.findall(r"`deploy/pixell-envoy (\w+)", page):
        assert f"\n  {command} " in usage, command
    for option in re.findall(r"`(--(?:image|alarms|yes|revision|endpoint|ready-url|settings))\b", page):
        assert option in usage, option
    for key in re.findall(r"`([A-Z]+(?:_[A-Z0-9]+)+)`", page):
        known = f"\n{key}=" in settings or key in ("NOT_FOUND", "AWS_PROFILE", "PIXELL_ADMIN_TOKEN", "ENVOY_ADMIN_URL")
        assert known, key


def test_every_symptom_that_the_script_points_to_is_on_the_page() -> None:
    titles = {title.lower() for title in re.findall(r"^### (.+)$", PAGE.read_text(), re.M)}
    for path in [*(DEPLOY / "lib").glob("*.sh"), DEPLOY / "alarms.json"]:
        for symptom in re.findall(r"Troubleshooting: ([\w ]+)", path.read_text()):
            assert symptom.strip().lower() in titles, f"{path.name}: {symptom}"
