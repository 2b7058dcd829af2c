"""Tasks of a node that fell silent go to others, as far as they can.

Only where they are changes: they keep their definition, names and addresses, so nothing else of a stack is touched, and an
update that waits for somebody goes on waiting. What is bound to the node (a volume, a port, a constraint) stays its own. A
server that hears nothing from more than half of the nodes takes itself for the one that is cut off, and leaves all as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set
from typing import TYPE_CHECKING

import msgspec

from agent.manifest import Task
from orchestrator.errors import PystackError
from orchestrator.placement.assign import reassign
from orchestrator.planning.expand import networks_after_move
from orchestrator.server import keys
from orchestrator.server.statuses import serves
from orchestrator.store.interface import Delete, Op, Put

if TYPE_CHECKING:
    from orchestrator.server.controller import Controller

LOOK_S = 0.5
log = logging.getLogger(__name__)


async def watch(controller: Controller, after_s: float) -> None:
    """For ever: rescue the tasks of nodes that are silent for *after_s* seconds."""
    tried: object = None
    while True:
        await asyncio.sleep(LOOK_S)
        silent = _silent(controller, after_s)
        stacks = sorted({t.stack for t in controller.tasks.values() if t.node in silent})
        # what could not go anywhere is tried again when something is different
        ground = (silent, frozenset(controller.cluster.ready), frozenset(controller.tasks))
        if not stacks or ground == tried:
            continue
        tried = ground
        # also those that fell silent only now: the ends of a cut are not noticed all at once
        away = set(controller.cluster.members) - controller.cluster.ready
        if len(away) * 2 > len(controller.cluster.members):
            log.warning("more than half of all nodes are silent, so nothing is moved: %s", ", ".join(sorted(away)))
            continue
        for stack in stacks:
            try:
                await _rescue(controller, stack, silent)
            except PystackError as error:
                log.warning("tasks of stack %s stay on nodes that are silent: %s", stack, error)


def _silent(controller: Controller, after_s: float) -> frozenset[str]:
    now = asyncio.get_running_loop().time()
    return frozenset(
        name for name, m in controller.cluster.members.items() if m.silent_since is not None and now - m.silent_since >= after_s
    )


async def _rescue(controller: Controller, name: str, silent: Set[str]) -> None:
    async with controller.lock(name):
        if name not in controller.stacks:
            return
        stack, state, ground = controller.stacks[name].stack, controller.state(name), controller.ground(name)
        mobile = {s.name for s in stack.services if s.mode.startswith("replicated")}
        lost = {
            t.name for t in state.tasks
            if t.node in silent - controller.cluster.ready and t.service in mobile and t.desired == "running"
            and not _is_done(controller, t)
        }
        nodes = reassign(stack, [t for t in state.tasks if t.desired != "guest"], ground, lost)
        moved = [msgspec.structs.replace(t, node=nodes[t.name]) for t in state.tasks if t.name in nodes]
        failures = await controller.images.ship(moved, lambda _: None)
        stuck = {f.task for f in failures}
        moved = [t for t in moved if t.name not in stuck]
        if not moved:
            return
        networks = networks_after_move(moved, state, list(controller.networks.values()), ground)
        await controller.cluster.ask_keys_for(moved, networks)
        # the two of one task stay in one transaction, however many there are: their number is even
        operations: list[Op] = [
            op for t in moved
            for op in (Delete(keys.of_task(controller.tasks[t.name])), Put(keys.of_task(t), msgspec.json.encode(t)))
        ]
        operations += [Put(keys.of_network(n), msgspec.json.encode(n)) for n in networks]
        await controller.transact(operations)
        controller.statuses.forget({t.name for t in moved})
        controller.networks.update({n.name: n for n in networks})
        controller.tasks.update({t.name: t for t in moved})
        for task in moved:
            log.warning("%s goes to %s: its node is silent", task.name, task.node)
        await controller.cluster.deliver()


def _is_done(controller: Controller, task: Task) -> bool:
    """It had ended by itself, for good, when it was last heard of."""
    status = controller.statuses.by_task.get(task.name)
    return status is not None and not serves(status) and status.state == "exited" and status.exit_code == 0
