"""As many agents as PAR runs in a task: all reachable, all distinct."""

from __future__ import annotations

import uuid

from . import route_api
from .callers import GrpcCaller
from .engine import Project
from .load import Load
from .par_client import Par

MAX_AGENTS = 20


def test_twenty_agents(project: Project, par: Par, grpc_caller: GrpcCaller) -> None:
    names = [str(uuid.uuid4()) for _ in range(MAX_AGENTS)]
    answers = par.deploy_all(names)
    assert all(answer["routed"] for answer in answers)
    ports = route_api.ports(project.par)
    assert ports == {answer["deployment_id"]: answer["port"] for answer in answers}
    assert len(set(ports.values())) == MAX_AGENTS
    assert [grpc_caller.health(name) for name in names] == names

    with Load(names) as load:
        load.wait_for_all()
        refused = par.try_deploy("one-too-many")
        assert refused.status_code == 503
        par.deploy(names[0])
        load.wait_for_all()
    assert not load.wrong, load.wrong
    assert load.refused.keys() <= {names[0]}, load.refused
