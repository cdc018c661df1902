"""The command line: `python3 -m pixell_envoy_deploy`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from . import ask, aws, check_ecs, check_fleet, check_network, checks, commands, settings, stacks  # noqa: F401 (checks register themselves)
from .facts import Facts
from .rollout import Rollout
from .say import Stop

STATUS = "exit status: 0 success; 1 an error or a failed step; 2 wrong usage or settings"
# Each gets the rollout and its own options. The first line of its description is its help.
RUN: list[Callable[..., object]] = [checks.check, commands.plan, commands.apply, commands.verify, commands.shift, commands.rollback]
RUN += [stacks.alarms, stacks.directory, commands.render]
COMMANDS = {each.__name__: each for each in RUN}
ROLLOUT, CHANGE, CALL = {"check", "plan", "apply", "render"}, {"apply", "shift", "rollback", "alarms", "directory"}, {"verify", "shift"}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pixell_envoy_deploy", description="Rolls pixell-envoy out on AWS.", epilog=STATUS, allow_abbrev=False)
    parser.add_argument("--settings", type=Path, default=settings.DEPLOY / "settings.toml", help="default: deploy/settings.toml")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, run in COMMANDS.items():
        about = str(run.__doc__).partition("\n")[0]
        add = subparsers.add_parser(name, help=about, description=about, allow_abbrev=False).add_argument
        if name in ROLLOUT:
            add("--in-place", action="store_true", help="replace the live tasks; their agents stop")
            add("--drop", action="append", default=[], choices=["proxyConfiguration"], help="remove this from the present revision")
            add("--accept", action="append", default=[], choices=checks.ACCEPTABLE, help="report this check's errors as notes")
        if name in CALL:
            add("ids", nargs="*" if name == "shift" else "+", metavar="ID", help="deployment ids; without any, shift takes the recorded ones")
            add("--connections", type=int, choices=range(1, 1001), metavar="1..1000", help="new ones for each agent; default 20, or 10 for each task")
            add("--endpoint", default="", metavar="HOST:PORT", help="instead of the load balancer's own name and port")
            add("--token-file", dest="token", type=ask.read_token, metavar="PATH", help="send the token in this file with each call")
        if name in CHANGE:
            add("--yes", action="store_true", help="do not ask; for scripts")
        if name == "apply":
            add("--plan", dest="number", default="", help="apply only if this is still the number of the plan")
        elif name == "verify":
            add("--test", action="store_true", help="call the task that clients do not reach, through the test listener")
        elif name == "rollback":
            add("--revision", type=int, metavar="N", help="a revision of the task family, instead of the record")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    given = vars(parse(arguments))
    run, path = COMMANDS[given.pop("command")], given.pop("settings")
    options = {name: given.pop(name) for name in ("in_place", "drop", "accept") if name in given}
    try:
        run(Rollout(Facts(settings.read(path)), **options), **given)
    except (Stop, *aws.FAILURES) as error:
        fix = getattr(error, "fix", "log in (aws sts get-caller-identity), or ask for that permission")
        print(f"pixell_envoy_deploy: {error}" + (f"\n  fix: {fix}" if fix else ""), file=sys.stderr)
        return getattr(error, "status", 1)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
