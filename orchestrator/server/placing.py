"""Tasks that go to other nodes: since a node is taken out of use, or to even out the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.rebalance import Move, moves, placed_groups
from orchestrator.server import lifecycle, moving
from orchestrator.server.cluster import NodeChange
from orchestrator.server.rollout import Failure

if TYPE_CHECKING:
    from orchestrator.server.controller import Controller


def proposed_moves(controller: Controller, limit: int) -> list[Move]:
    """Moves that would even out the cluster. Reads only."""
    ground = controller.ground("")
    table = NodeTable(ground.nodes, ground.ready)
    table.commit_tasks([t for t in controller.tasks.values() if t.desired != "guest"], ground.requests)
    placed = [
        one for name, record in sorted(controller.stacks.items())
        for one in placed_groups(record.stack, controller.state(name).tasks, controller.ground(name))
    ]
    return moves(table, placed, limit=limit)


async def rebalance(controller: Controller, limit: int, tell: Any) -> list[Failure]:
    """Make the proposed moves, one after the other, each up before the next begins."""
    for move in proposed_moves(controller, limit):
        tell({"event": "move", **msgspec.to_builtins(move)})
        if failures := await lifecycle.again(controller, move.stack, tell, dict.fromkeys(move.tasks, move.target)):
            return failures
    return []


async def drain(controller: Controller, name: str, tell: Any) -> list[Failure]:
    """Take a node out of use; each stack that has tasks there is brought up again without it."""
    node = await controller.cluster.change(name, NodeChange(availability="drain"))
    return [*await moving.follow(controller, node.name, tell), *await _leave(controller, node.name, tell)]


async def taint(controller: Controller, name: str, wish: NodeChange, tell: Any) -> list[Failure]:
    """Change a node's taints; what it may not keep any more is brought up elsewhere."""
    node = await controller.cluster.change(name, wish)
    return await _leave(controller, node.name, tell) if any(t.endswith(":NoExecute") for t in wish.taints) else []


async def _leave(controller: Controller, node: str, tell: Any) -> list[Failure]:
    """Bring each stack that has tasks on *node* up again: placement decides what may stay there."""
    failures: list[Failure] = []
    for stack in sorted({t.stack for t in controller.tasks.values() if t.node == node}):
        failures += await lifecycle.again(controller, stack, tell)
    return failures
