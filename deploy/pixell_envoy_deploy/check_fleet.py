"""Checks of the fleet: that tasks reach each other and nobody else does, and the directory in which they find each other."""

from .aws import Doc
from .checks import Checks, Found, bad, note, ok
from .rollout import FLEET_HEALTH_CHECK, health_check
from .say import need
from .settings import PEER_PORT

# The key of the table in directory.yaml.
KEY = [{"AttributeName": "key", "KeyType": "HASH"}]
WRITES = ("PutItem", "DeleteItem")


class Fleet(Checks):
    def fleet(self) -> Found:
        f, mine = self.f, self.f.network.get("securityGroups", [])
        if not self.s.fleet_directory:
            yield ok(f"no fleet_directory: one task, and port {PEER_PORT} is closed")
            return
        present = health_check(f.revision) == FLEET_HEALTH_CHECK
        text = "the tasks that run are in no fleet: they fail its health check, so ECS would replace them, and their agents stop"
        yield bad(self.r.in_place and not present, text, "apply without --in-place, which stops no agent")
        group = mine[0] if mine else "(the tasks' group)"
        add = f"aws ec2 authorize-security-group-{{}} --region {f.name} --group-id {group} --protocol tcp --port {PEER_PORT} --source-group {group}"
        sources = {source for rule in self._rules(mine, PEER_PORT) for source in _sources(rule)}
        text = f"{', '.join(mine) or group} does not let {PEER_PORT} in from itself: tasks do not reach each other"
        yield bad(not sources & {*mine}, text, add.format("ingress"))
        outside = ", ".join(sorted(sources - {*mine}))
        text = f"{', '.join(mine)} lets {PEER_PORT} in from {outside}: who reaches it reaches every agent, past tokens and rates"
        fix = f"aws ec2 revoke-security-group-ingress --region {f.name} --group-id {group}; of a rule for many ports, add again those that are needed"
        yield bad(outside, text, fix)
        shared = ", ".join({*mine} & {*f.load_balancer.get("SecurityGroups", [])})
        yield bad(shared, f"the load balancer has the tasks' group {shared}, so it reaches {PEER_PORT}", "aws elbv2 set-security-groups")
        text = f"{', '.join(mine)} lets nothing out to {PEER_PORT}: tasks do not reach each other"
        yield bad(mine and not self._rules(mine, PEER_PORT, "egress"), text, add.format("egress"))
        if not self.s.peer_certificate_secret:
            yield note("no peer_certificate_secret: tasks judge each other by address, which an agent shares with its task")
        yield ok(f"{PEER_PORT} comes in from the tasks' own security group and from nowhere else")

    def directory(self) -> Found:
        f, s = self.f, self.s
        if s.fleet_directory != "dynamodb":
            yield (
                note("whether tasks reach Redis cannot be read; they are not healthy until they do")
                if s.fleet_directory
                else ok("no fleet, so no directory")
            )
            return
        make = "python3 -m pixell_envoy_deploy directory"
        found = f.one("dynamodb", "describe_table", "Table", "ResourceNotFoundException", TableName=s.fleet_table)
        table = need(found, f"table {s.fleet_table} does not exist", make)
        yield bad(table["TableStatus"] != "ACTIVE", f"table {s.fleet_table} is {table['TableStatus']}", "wait until it is ACTIVE")
        yield bad(table["KeySchema"] != KEY, f"table {s.fleet_table} has another key than in directory.yaml", "name another fleet_table")
        role = f.task_role
        for key in ("own", "other"):
            for action in ("Scan", *WRITES) if key == "own" else WRITES:
                decision = self._decision(role, f"dynamodb:{action}", table["TableArn"], key)
                text = f"{role['RoleName']} may not dynamodb:{action} on {s.fleet_table} ({decision})"
                fix = f"{make}; an explicitDeny must be taken out of its policies by hand; or --accept directory"
                yield bad(key == "own" and decision != "allowed", text, fix)
                text = f"{role['RoleName']} may dynamodb:{action} the records of other tasks, and so take their agents' requests"
                yield bad(key == "other" and decision == "allowed", text, "take out of its policies what allows it; or --accept directory")
        yield ok(f"{s.fleet_table} is ACTIVE; a task reads every record, and writes its own")

    def _decision(self, role: Doc, action: str, arn: str, key: str) -> str:
        """Whether a task may do that with its own record, or with another one's."""
        user = f"{role['RoleId']}:own"
        names = {"aws:userid": (user, "string"), "dynamodb:LeadingKeys": (f"{self.r.slot.service}/{role['RoleId']}:{key}", "stringList")}
        context = [{"ContextKeyName": name, "ContextKeyValues": [value], "ContextKeyType": kind} for name, (value, kind) in names.items()]
        call = {"PolicySourceArn": role["Arn"], "ActionNames": [action], "ResourceArns": [arn], "ContextEntries": context}
        return str(self.f.all("iam", "simulate_principal_policy", "EvaluationResults", **call)[0]["EvalDecision"])


def _sources(rule: Doc) -> set[str]:
    """Whom a rule of a security group lets in."""
    kinds = {"UserIdGroupPairs": "GroupId", "IpRanges": "CidrIp", "Ipv6Ranges": "CidrIpv6", "PrefixListIds": "PrefixListId"}
    return {each[name] for kind, name in kinds.items() for each in rule.get(kind, [])}
