"""Any task serves any id, in every protocol, and so does the load balancer. An id that nobody has is unknown to all."""

from __future__ import annotations

import httpx

from scenarios.clients import ID, GrpcClient, HttpClient, over_websocket

from .fleet import BALANCER, Fleet, deploy


def test_any_id_through_any_task_and_the_load_balancer(fleet: Fleet) -> None:
    for task in fleet.tasks:
        kinds = {f"{kind}-of-{task.name}": kind for kind in ("grpc", "jsonrpc")}
        deploy(task, kinds)
        fleet.wait_served(kinds)

    for address in [*fleet.addresses, BALANCER]:
        grpc_client, http_client = GrpcClient(address), HttpClient(address)
        for owner in fleet.tasks:
            name = f"grpc-of-{owner.name}"
            assert grpc_client.health(name) == name
            assert grpc_client.invoke(name, "echo", words="a b")["words"] == "a b"
            name = f"jsonrpc-of-{owner.name}"
            sent = http_client.send(name, "hello")
            assert (sent.status_code, sent.json()["result"]["metadata"]["deployment_id"]) == (200, name), sent.text
            events = list(http_client.stream(name, "tick", events=3, interval=0.01))
            assert [event["result"]["parts"][0]["text"] for event in events] == ["tick 0", "tick 1", "tick 2"]
            assert over_websocket(address, name, ["one", "two"]) == [f"{name}: one", f"{name}: two"]
        unknown = httpx.get(f"http://{address}/", headers={ID: "nobody"})
        assert (unknown.status_code, unknown.headers["x-pixell-error"]) == (404, "unknown_deployment")
        grpc_client.close()
        http_client.close()
