"""As many agents as PAR runs in one task: each can be reached, and each is a different one."""

from __future__ import annotations

import uuid

from . import route_api
from .clients import GrpcClient
from .engine import Project
from .load import Load
from .par_client import Par

MAX_AGENTS = 20


def test_twenty_agents(project: Project, par: Par, grpc_client: GrpcClient) -> None:
    names = [str(uuid.uuid4()) for _ in range(MAX_AGENTS)]
    agents = par.deploy_all(names)
    assert all(agent["routed"] for agent in agents)
    ports = route_api.ports(project.par)
    assert ports == {agent["deployment_id"]: agent["port"] for agent in agents}
    assert len(set(ports.values())) == MAX_AGENTS
    assert [grpc_client.health(name) for name in names] == names

    with Load(names) as load:
        load.wait_for_all()
        assert par.try_deploy("one-too-many").status_code == 503
        par.deploy(names[0])
        load.wait_for_all()
    assert not load.wrong, load.wrong
    assert load.failed.keys() <= {names[0]}, load.failed
