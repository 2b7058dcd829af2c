"""The images of the cluster: which node has which, what must be pulled, and what is copied from node to node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence, Set

import msgspec

from agent.contract.task import Task
from orchestrator.errors import PystackError, RefusedError, UnreachableError
from orchestrator.references import tagged
from orchestrator.server import registry_login
from orchestrator.server.cluster import Cluster
from orchestrator.server.events import Emit, Failure, PullEvent, ShipEvent
from orchestrator.stackfile.model import Stack
from orchestrator.stackfile.units import parse_duration
from orchestrator.tracing.spans import span
from orchestrator.transport.agent_client import AgentClient
from orchestrator.transport.shipping import ship


def max_age_s(policy: str) -> float:
    """The age in seconds after which *policy* pulls again: daily, weekly or every_DURATION; 0 for any other policy."""
    if policy.startswith("every_"):
        return parse_duration(policy[6:])
    return {"daily": 86_400.0, "weekly": 604_800.0}.get(policy, 0.0)


class Images:
    """Pulls happen on the server's node; the other nodes get images from a node that has them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @property
    def _local(self) -> AgentClient:
        return self.cluster.members[self.cluster.local].client

    async def _ages(self, images: Sequence[str]) -> dict[str, float | None]:
        """Seconds since the server's node last pulled each of *images*, None for one that it never pulled."""
        if not images:
            return {}
        data = msgspec.json.encode(images)
        found: dict[str, float | None] = await self._local.call("POST", "/pystack/images/ages", data=data)
        return found

    async def ids(self, stack: Stack) -> dict[str, str]:
        """The identities of the images of *stack* that a node has, by name. This host goes before the others."""
        names = sorted({name for s in stack.services for name in s.container.images})
        out: dict[str, str] = {}
        for node in [self.cluster.local, *sorted(self.cluster.ready - {self.cluster.local})]:
            if left := [n for n in names if n not in out]:
                with contextlib.suppress(UnreachableError):
                    out |= await self._on(node, left)
        return out

    async def places(self, names: Sequence[str]) -> dict[str, str]:
        """Image → a node that has it whole; this host goes before the others."""
        out: dict[str, str] = {}
        for node in [self.cluster.local, *sorted(self.cluster.ready - {self.cluster.local})]:
            if left := [n for n in names if n not in out]:
                with contextlib.suppress(UnreachableError):
                    out |= dict.fromkeys(await self._on(node, left), node)
        return out

    async def _on(self, node: str, images: Sequence[str]) -> dict[str, str]:
        """The identities of those of *images* (names or identities) that *node* has completely."""
        client = self.cluster.get(node).client
        found: dict[str, str] = await client.call("POST", "/pystack/images/ids", data=msgspec.json.encode(images))
        return found

    async def ship(self, tasks: Sequence[Task], emit: Emit) -> list[Failure]:
        """Copy the images of *tasks* to their nodes, from a node that has them. Returns a failure for each that fails."""
        if len(self.cluster.members) < 2:
            return []
        wanted: dict[str, dict[str, tuple[str, Task]]] = {}
        for task in tasks:
            for name, identity in task.container.images.items():
                if identity and not self.cluster.unreachable_reason(task.node):
                    wanted.setdefault(task.node, {})[identity] = (name, task)
        have = {node: await self._on(node, list(images)) for node, images in wanted.items()}
        failures: list[Failure] = []

        async def bring(node: str, image: str, name: str, task: Task) -> None:
            try:
                source = await self._source_node(image)
                emit(ShipEvent(image=name, source=source, target=node))
                with span("ship image", image=name, source=source, target=node):
                    await ship(image, self.cluster.get(source).client, self.cluster.get(node).client)
            except PystackError as error:
                reason = f"image {name} cannot be brought to {node}: {error}"
                failures.append(Failure(task=task.name, where=task.where, reason=reason))

        async with asyncio.TaskGroup() as group:
            for node, images in wanted.items():
                for image, (name, task) in images.items():
                    if image not in have[node]:
                        group.create_task(bring(node, image, name, task))
        return failures

    async def _source_node(self, image: str) -> str:
        """The name of a node that has *image*. Raises RefusedError if there is none."""
        for node in [self.cluster.local, *sorted(self.cluster.ready - {self.cluster.local})]:
            if await self._on(node, [image]):
                return node
        raise RefusedError("no node has it any more: pull or load it again")

    async def _to_pull(self, stack: Stack, wanted_for: Set[str] | None, policy: str) -> dict[str, str]:
        """The images that `pull` pulls, each with a service that has it."""
        have = await self.ids(stack)
        wanted: dict[str, str] = {}
        limits: dict[str, tuple[float, str]] = {}
        built = {s.container.image for s in stack.services if s.build}
        for service in stack.services:
            rule = policy or service.container.pull_policy
            if rule == "never" or (wanted_for is not None and service.name not in wanted_for):
                continue
            for image in service.container.images:
                if image in built:
                    continue
                if image not in have or rule == "always":
                    wanted.setdefault(image, service.name)
                elif oldest := max_age_s(rule):
                    limits.setdefault(image, (oldest, service.name))
        for image, age in (await self._ages(list(limits))).items():
            if age is None or age > limits[image][0]:
                wanted.setdefault(image, limits[image][1])
        return wanted

    async def pull(self, stack: Stack, wanted_for: Set[str] | None, policy: str, emit: Emit) -> list[Failure]:
        """Pull the images that no node has, or that *policy* (or their service's own) wants refreshed: for the services
        *wanted_for*, None for all. Returns a failure for each image that cannot be pulled."""
        wanted = await self._to_pull(stack, wanted_for, policy)
        failures: list[Failure] = []

        async def fetch(image: str, service: str) -> None:
            where = next(s.where for s in stack.services if s.name == service)
            try:
                with span("pull image", image=image):
                    options = {"params": {"fromImage": tagged(image)}, "headers": registry_login.given()}
                    async for line in self._local.stream("POST", "/images/create", **options):
                        emit(PullEvent.of(image, line))
            except RefusedError as error:
                failures.append(Failure(task=service, where=where, reason=f"image {image}: {error}"))

        async with asyncio.TaskGroup() as group:
            for image, user in wanted.items():
                group.create_task(fetch(image, user))
        return failures
