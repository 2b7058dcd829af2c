"""What placement and planning look at besides the stack: nodes, other stacks, foreign networks and volumes. Reads only."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.contract.network import VXLAN_PORT, Network, Subnet
from agent.contract.task import Task
from orchestrator.placement.context import PlacementContext, service_requests
from orchestrator.placement.request import PlacementRequest
from orchestrator.planning.jobs import end_of
from orchestrator.server.cluster import Cluster
from orchestrator.server.quotas import QuotaCheck
from orchestrator.server.state import ClusterState
from orchestrator.server.statuses import Statuses
from orchestrator.stackfile.model import Stack
from orchestrator.transport.agent_client import AgentClient


class Inputs:
    """Collects the inputs of a plan from the state and from the nodes."""

    def __init__(self, state: ClusterState, cluster: Cluster, statuses: Statuses) -> None:
        self._state = state
        self._statuses = statuses
        self._cluster = cluster
        self.quotas = QuotaCheck(state)
        self.vxlan_port = VXLAN_PORT
        """What new overlays get, by this server's settings."""

    @property
    def _local(self) -> AgentClient:
        return self._cluster.members[self._cluster.local].client

    def placement(self, stack: str) -> PlacementContext:
        """The nodes, and the tasks and demands of all stacks but *stack*, with those that changes under way have places for.
        Tasks of stacks that are being changed make no room for others."""
        members, state = self._cluster.members, self._state
        nodes = tuple(m.node for _, m in sorted(members.items()))
        empty = PlacementContext(nodes=nodes, ready=self._cluster.ready, local=self._cluster.local)
        known: dict[str, PlacementRequest] = {}
        for name, record in state.stacks.items():
            if name != stack:
                known |= service_requests(record.stack, empty)
        coming: dict[str, Task] = {}
        for one in state.coming:
            if one.stack.name != stack:
                known = service_requests(one.stack, empty) | known
                coming |= {t.name: t for t in one.tasks if t.name not in state.tasks or state.tasks[t.name].node != t.node}
        return msgspec.structs.replace(
            empty,
            others=(*(t for t in state.tasks.values() if t.stack != stack), *coming.values()),
            stacks={n: r.stack for n, r in state.stacks.items() if n != stack and not state.lock(f"stack {n}").busy},
            preempted=state.waiting_for_room(stack),
            requests=known,
            ended=self._ended(),
            homes={v.name: v.node for v in state.volumes.values() if v.node in members and not v.shared},
        )

    def _ended(self) -> dict[str, str]:
        """The tasks that have ended for good, of jobs and of runs, with their definitions."""
        jobs = {(n, s.name) for n, r in self._state.stacks.items() for s in r.stack.services if s.is_job}
        of_jobs = (t for t in self._state.tasks.values() if t.run or (t.stack, t.service) in jobs)
        return {t.name: t.definition for t in of_jobs if end_of(t, self._statuses.by_task.get(t.name)) is not None}

    def reserved(self, tasks: Sequence[Task]) -> tuple[float, int]:
        """The cores and bytes of memory that *tasks* reserve together."""
        services = {(n, s.name): s.reserves for n, r in self._state.stacks.items() for s in r.stack.services}
        ended = self._ended()
        asked = [r for t in tasks if t.name not in ended and (r := services.get((t.stack, t.service)))]
        return sum(r.cpus for r in asked), sum(r.memory for r in asked)

    async def networks_by_hand(self) -> list[Network]:
        """Those that were made on the server's node by hand."""
        out = []
        for found in await self._local.call("GET", "/networks"):
            if found["Name"] not in self._state.networks and found.get("IPAM", {}).get("Config"):
                pools = found["IPAM"]["Config"]
                subnets = tuple(Subnet(cidr=p["Subnet"], gateway=p.get("Gateway", "")) for p in pools)
                out.append(Network(name=found["Name"], subnets=subnets))
        return out

    async def volume_names(self, stack: Stack) -> list[str]:
        """The volumes of the server's node. Empty, without a request, if *stack* has no external volume."""
        if not any(v.external for v in stack.volumes):
            return []
        return [v["Name"] for v in (await self._local.call("GET", "/volumes"))["Volumes"]]
