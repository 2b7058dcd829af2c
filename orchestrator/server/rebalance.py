"""Evens out the load of the nodes: proposes moves of tasks, and makes them."""

from __future__ import annotations

import msgspec

from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.rebalance import Move, moves, placed_groups
from orchestrator.server.events import Emit, Failure, MoveEvent
from orchestrator.server.inputs import Inputs
from orchestrator.server.rollouts.manager import RolloutManager
from orchestrator.server.state import ClusterState


def proposed_moves(state: ClusterState, inputs: Inputs, limit: int) -> list[Move]:
    """At most *limit* moves that would even out the cluster. Reads only."""
    placement = inputs.placement("")
    board = NodeTable(placement.nodes, placement.ready)
    board.commit_tasks([t for t in placement.reserving(state.tasks.values()) if t.desired != "oneoff"], placement.requests)
    units = [
        unit
        for name, record in sorted(state.stacks.items())
        for unit in placed_groups(record.stack, placement.reserving(state.of_stack(name).tasks), inputs.placement(name))
    ]
    return moves(board, units, limit=limit)


async def rebalance(state: ClusterState, inputs: Inputs, rollouts: RolloutManager, limit: int, emit: Emit) -> list[Failure]:
    """Make the proposed moves one after the other: each is up before the next begins. Stops at the first failure."""
    for move in proposed_moves(state, inputs, limit):
        emit(MoveEvent(**msgspec.structs.asdict(move)))
        if failures := await rollouts.redeploy(move.stack, emit, dict.fromkeys(move.tasks, move.target)):
            return failures
    return []
