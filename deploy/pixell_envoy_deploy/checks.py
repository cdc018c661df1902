"""Checks of what the rollout relies on. A check that raises, or finds nothing, has failed: nothing is `ok` by default."""

from collections.abc import Callable, Iterator

from . import aws
from .aws import Doc
from .rollout import Rollout
from .say import Stop, say

# Level, text, and for an ERROR its fix. Level `note`: worth knowing, but no error as far as AWS says.
Finding = tuple[str, str, str]
Found = Iterator[Finding | None]
CHECKS: dict[str, Callable[[Rollout], Found]] = {}
# Checks that can be wrong because AWS's API does not show everything: `--accept NAME` turns their errors into notes.
ACCEPTABLE = ["directory", "images", "permissions", "quotas", "tasks", "zones"]


class Checks:
    """Each public method of a subclass is a check with that name."""

    def __init__(self, r: Rollout) -> None:
        self.r, self.f, self.s = r, r.facts, r.settings

    def _rules(self, groups: list[str], port: int, direction: str = "ingress") -> list[Doc]:
        """Rules of the security groups for that port."""
        key, api = {"ingress": "IpPermissions", "egress": "IpPermissionsEgress"}[direction], ("ec2", "describe_security_groups", "SecurityGroups")
        found = [rule for group in groups for rule in self.f.all(*api, GroupIds=[group])[0][key]]
        return [each for each in found if each["IpProtocol"] == "-1" or (each["IpProtocol"] == "tcp" and each["FromPort"] <= port <= each["ToPort"])]

    def __init_subclass__(cls) -> None:
        for name in [name for name in vars(cls) if not name.startswith("_")]:
            CHECKS[name.replace("_", " ")] = lambda r, name=name: getattr(cls(r), name)()  # type: ignore[misc]


def ok(text: str) -> Finding:
    return "ok", text, ""


def note(text: str) -> Finding:
    return "note", text, ""


def bad(wrong: object, text: str, fix: str) -> Finding | None:
    return ("ERROR", text, fix) if wrong else None


def findings(name: str, r: Rollout) -> list[Finding]:
    try:
        found = [each for each in CHECKS[name](r) if each is not None]
    except Stop as error:
        found = [("ERROR", str(error), error.fix)]
    except aws.FAILURES as error:
        found = [("ERROR", f"AWS does not tell: {error}", "ask for the permission to make this call, or use an account that has it")]
    except Exception as error:  # an error of the check itself must not look like `ok`
        found = [("ERROR", f"the check failed: {type(error).__name__}: {error}", "report it; what it checks is unknown")]
    failed = not found or any(level == "ERROR" for level, _, _ in found)
    found = [each for each in found if not (failed and each[0] == "ok")] or [("ERROR", "nothing was checked", "report it")]
    accepted = name in r.accept
    return [("note", f"accepted: {text}", "") if accepted and level == "ERROR" else (level, text, fix) for level, text, fix in found]


def check(r: Rollout, quiet: bool = False) -> None:
    """Check everything that the rollout relies on; changes nothing."""
    s, who, errors = r.settings, r.facts.identity, 0
    say(f"account {who['Account']}, region {s.region}, as {who['Arn']}, {'in place' if r.in_place else 'beside the live service'}")
    for name, level, text, fix in [(each, *finding) for each in CHECKS for finding in findings(each, r)]:
        errors += level == "ERROR"
        if not quiet or level == "ERROR":
            say(f"{level:<6} {name:<17} {text}", *([f"{'':<24} fix: {fix}"] if fix else []))
    if errors:
        raise Stop(f"{errors} to fix by hand (ERROR above). Nothing was changed")
