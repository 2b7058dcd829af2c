"""Which tasks have metrics of their own: Prometheus' HTTP service discovery. Pure.

Source: Prometheus, "Writing HTTP service discovery".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.contract.network import Network
from agent.contract.task import Task
from agent.contract.wire import WireStruct
from orchestrator.planning.manifests import ingress_network
from orchestrator.stackfile.model import Stack


class TargetGroup(WireStruct, frozen=True, kw_only=True, omit_defaults=False):
    """One task: where it answers (*targets*, `10.0.0.5:9090`), and what is known of it."""

    targets: tuple[str, ...]
    labels: dict[str, str]


def targets(
    stacks: Iterable[Stack], tasks: Iterable[Task], networks: Mapping[str, Network], underlays: Mapping[str, str]
) -> list[TargetGroup]:
    """A group for each task of a service with `x-metrics`, by name. *underlays* are the addresses of the nodes."""
    endpoints = {(stack.name, s.name): s.metrics for stack in stacks for s in stack.services if s.metrics}
    groups = []
    for task in sorted(tasks, key=lambda t: t.name):
        endpoint = endpoints.get((task.stack, task.service))
        address = _address(task, networks, underlays)
        if endpoint is None or task.desired != "running" or not address:
            continue
        host = f"[{address}]" if ":" in address else address
        labels = {"task": task.name, "stack": task.stack, "service": task.service, "node": task.node}
        labels["__metrics_path__"] = endpoint.path
        groups.append(TargetGroup(targets=(f"{host}:{endpoint.port}",), labels=labels))
    return groups


def nodes(names: Iterable[str], server: str) -> list[TargetGroup]:
    """A group for each node: *server* (`10.0.0.1:2376`) has the metrics of its containers."""
    return [
        TargetGroup(
            targets=(server,),
            labels={"node": name, "instance": name, "__metrics_path__": f"/v1/nodes/{name}/engine/metrics"},
        )
        for name in sorted(names)
    ]


def _address(task: Task, networks: Mapping[str, Network], underlays: Mapping[str, str]) -> str:
    if task.container.network_mode == "host":
        return underlays.get(task.node, "") or "127.0.0.1"
    name = ingress_network(task, networks)
    return next((a.ipv4 or a.ipv6 for a in task.container.attachments if a.network == name), "")
