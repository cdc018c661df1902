"""The command line: `python3 -m pixell_envoy_deploy`."""

import argparse
import json
import sys
from pathlib import Path

from . import aws, check_ecs, check_fleet, check_network, checks, commands, settings, stacks  # noqa: F401 (checks register themselves)
from .facts import Facts
from .rollout import Rollout
from .say import Stop, say

STATUS = "exit status: 0 success; 1 an error or a failed step; 2 wrong usage or settings"
COMMANDS = {
    "check": "check everything that the rollout relies on; changes nothing",
    "plan": "show what apply would change, what it would keep, and what it does to running agents; changes nothing",
    "apply": "build and push the image, start a task with Envoy before PAR, wait until it is healthy",
    "verify": "check tasks and targets, and call agents over new connections",
    "shift": "verify the agents of the new task, then lead clients to it",
    "rollback": "go back to what the record says, or to a revision",
    "alarms": "create or change the CloudWatch alarms",
    "directory": "create or change the fleet's table, and the right of the task role to use it",
    "render": "print the task definition that apply would register",
}
ROLLOUT, CHANGE, CALL = {"check", "plan", "apply", "render"}, {"apply", "shift", "rollback", "alarms", "directory"}, {"verify", "shift"}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pixell_envoy_deploy", description="Rolls pixell-envoy out on AWS.", epilog=STATUS, allow_abbrev=False)
    parser.add_argument("--settings", type=Path, default=settings.DEPLOY / "settings.toml", help="default: deploy/settings.toml")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, about in COMMANDS.items():
        add = subparsers.add_parser(name, help=about, description=about, allow_abbrev=False).add_argument
        if name in ROLLOUT:
            add("--in-place", action="store_true", help="replace the live tasks; their agents stop")
            add("--drop", action="append", default=[], choices=["proxyConfiguration"], help="remove this from the present revision")
            add("--accept", action="append", default=[], choices=checks.ACCEPTABLE, help="report this check's errors as notes")
        if name in CALL:
            add("ids", nargs="*" if name == "shift" else "+", metavar="ID", help="deployment ids; without any, shift takes the recorded ones")
            add("--connections", type=int, choices=range(1, 1001), metavar="1..1000", help="new ones for each agent; default 20, or 10 for each task")
            add("--endpoint", default="", metavar="HOST:PORT", help="instead of the load balancer's own name and port")
        if name in CHANGE:
            add("--yes", action="store_true", help="do not ask; for scripts")
        if name == "apply":
            add("--plan", default="", metavar="NUMBER", help="apply only if this is still the number of the plan")
        elif name == "verify":
            add("--test", action="store_true", help="call the task that clients do not reach, through the test listener")
        elif name == "rollback":
            add("--revision", type=int, metavar="N", help="a revision of the task family, instead of the record")
    return parser.parse_args(arguments)


def perform(given: argparse.Namespace) -> None:
    facts = Facts(settings.read(given.settings))
    if given.command in ROLLOUT:
        rollout = Rollout(facts, given.in_place, given.drop, given.accept)
    match given.command:
        case "check":
            checks.run(rollout)
        case "plan":
            commands.plan(rollout)
        case "render":
            say(json.dumps(rollout.definition, indent=2))
        case "apply":
            commands.apply(rollout, given.yes, given.plan)
        case "verify":
            slot, port = (facts.idle, facts.settings.test_port) if given.test else (facts.live, settings.A2A_PORT)
            commands.verify(facts, slot, given.ids, given.connections, given.endpoint, port)
        case "shift":
            commands.shift(facts, given.ids, given.connections, given.endpoint, given.yes)
        case "rollback":
            commands.rollback(facts, str(given.revision or ""), given.yes)
        case "alarms":
            stacks.alarms(facts, given.yes)
        case "directory":
            stacks.directory(facts, given.yes)


def main(arguments: list[str]) -> int:
    given = parse(arguments)
    try:
        perform(given)
    except (Stop, *aws.FAILURES) as error:
        fix = getattr(error, "fix", "log in (aws sts get-caller-identity), or ask for that permission")
        print(f"pixell_envoy_deploy: {error}" + (f"\n  fix: {fix}" if fix else ""), file=sys.stderr)
        return getattr(error, "status", 1)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
