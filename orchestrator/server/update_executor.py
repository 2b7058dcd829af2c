"""What the update of a service does to the cluster: tasks exchanged in place, and spare ones for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agent.manifest import Task
from orchestrator.errors import PystackError
from orchestrator.planning.state import Plan
from orchestrator.server import store_keys
from orchestrator.stackfile.model import Stack
from orchestrator.store.interface import Put

if TYPE_CHECKING:
    from orchestrator.server.controller import Controller
    from orchestrator.server.records import UpOptions


class UpdateExecutor:
    """The `UpdateActions` of the updates of one plan."""

    def __init__(self, controller: Controller, stack: Stack, options: UpOptions, plan: Plan, tell: Any) -> None:
        self.controller, self._stack, self._options, self._plan, self._tell = controller, stack, options, plan, tell

    async def exchange(self, tasks: Sequence[Task]) -> None:
        c = self.controller
        await c.rest(t.name for t in tasks)
        if moved := [t.name for t in tasks if c.tasks[t.name].node != t.node]:
            await c.remove_tasks(moved)
            await c.gone(moved)
            c.resting |= set(moved)
        await c.write_tasks(tasks)

    async def mark_ready(self, tasks: Sequence[Task]) -> None:
        self.controller.resting -= {t.name for t in tasks}
        await self.controller.cluster.deliver()

    async def surge(self, service: str, count: int) -> list[Task]:
        c, there = self.controller, [t for t in self._plan.desired.tasks if t.service == service and t.desired != "guest"]
        one = next(s for s in self._stack.services if s.name == service)
        if not one.mode.startswith("replicated"):
            raise PystackError("it has a task on each node")
        scale = dict(self._options.scale) | {service: len(there) + count}
        desired = await c.desired(self._stack, msgspec.structs.replace(self._options, scale=scale))
        surge = [t for t in desired.tasks if t.service == service and t.index > max(o.index for o in there)]
        if failures := await c.images.ship(surge, self._tell):
            raise PystackError(failures[0].reason)
        # nodes that carry a network for the surge' sake; who has an address of its own on it stays as it is
        carried = [
            msgspec.structs.replace(c.networks[n.name], hosts=n.hosts) for n in desired.networks
            if n.name in c.networks and c.networks[n.name].hosts != n.hosts
        ]
        await c.cluster.ask_keys_for(surge, carried)
        await c.transact([Put(store_keys.of_network(n), msgspec.json.encode(n)) for n in carried])
        c.networks.update({n.name: n for n in carried})
        for task in surge:
            self._tell({"event": "step", "action": "create", "kind": "task", "name": task.name, "node": task.node,
                        "reason": "start-first: a spare while the others are exchanged"})
        await c.write_tasks(surge)
        return surge

    async def remove_surge(self, tasks: Sequence[Task]) -> None:
        names = [t.name for t in tasks]
        await self.controller.rest(names)
        await self.controller.remove_tasks(names)
        await self.controller.gone(names)
        wide = {n.name: n for n in self._plan.desired.networks}
        back = [n for n in self.controller.networks.values() if n.name in wide and wide[n.name].hosts != n.hosts]
        await self.controller.transact([Put(store_keys.of_network(n), msgspec.json.encode(wide[n.name])) for n in back])
        self.controller.networks.update({n.name: wide[n.name] for n in back})
        await self.controller.cluster.deliver()

    def warn(self, sentence: str) -> None:
        self._tell({"event": "warning", "message": sentence})
