"""Moments of the account that many tests start from. Each is reached once, by real commands, and then brought back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import ecs_scheduler
from .account import Account
from .snapshot import Snapshot
from .tool import Result, Tool


@dataclass
class Stage:
    """The account after a command, and what the command said and did."""

    result: Result
    snapshot: Snapshot


class Stages:
    def __init__(self, account: Account, new_tool: Callable[[], Tool]) -> None:
        self.account = account
        self.new_tool = new_tool
        self.start: Snapshot | None = None
        # What a rollback has to bring back.
        self.state: dict[str, Any] = {}
        self.reached: dict[tuple[str, ...], Stage] = {}

    def before(self) -> None:
        """Before the rollout."""
        if self.start is None:
            self.account.build()
            self.state = self.account.state()
            self.start = Snapshot()
        ecs_scheduler.reset()
        self.start.bring_back()

    def after(self, *command: str, deployment: str = "works", **environment: str) -> Result:
        """After one command of the tool in the account before the rollout; `deployment` is how ECS then acts."""
        key = (*command, deployment, *(f"{name}={value}" for name, value in sorted(environment.items())))
        if key not in self.reached:
            self.before()
            ecs_scheduler.behaviour.deployment = deployment
            tool = self.new_tool()
            if deployment == "sticks":
                tool.settings["STABLE_TIMEOUT_SECONDS"] = "2"
            self.reached[key] = Stage(tool.run(*command, **environment), Snapshot())
        ecs_scheduler.reset()
        self.reached[key].snapshot.bring_back()
        return self.reached[key].result

    def applied(self, *options: str) -> Result:
        """After a rollout that went well."""
        result = self.after("apply", "--yes", *options)
        assert result.status == 0, str(result)
        return result
