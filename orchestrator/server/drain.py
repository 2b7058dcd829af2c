"""Moves tasks off a node that is drained or tainted."""

from __future__ import annotations

from orchestrator.errors import RefusedError
from orchestrator.server.events import Emit, Failure
from orchestrator.server.membership import Membership, NodeUpdateRequest
from orchestrator.server.rollouts.manager import RolloutManager
from orchestrator.server.state import ClusterState
from orchestrator.server.volume_migration import VolumeMigrator


async def drain(
    state: ClusterState, membership: Membership, rollouts: RolloutManager, migrator: VolumeMigrator, name: str, emit: Emit
) -> list[Failure]:
    """Take node *name* out of use: move the volumes that follow their users, then redeploy each stack that has tasks there."""
    node = await membership.change(name, NodeUpdateRequest(availability="drain"))
    failures = await migrator.evacuate(node.name, emit)
    return [*failures, *await _redeploy(state, rollouts, node.name, emit)]


async def taint(
    state: ClusterState, membership: Membership, rollouts: RolloutManager, name: str, request: NodeUpdateRequest, emit: Emit
) -> list[Failure]:
    """Change the taints of node *name*, and move the tasks that do not tolerate a new `NoExecute` taint."""
    node = await membership.change(name, request)
    if any(t.endswith(":NoExecute") for t in request.taints):
        return await _redeploy(state, rollouts, node.name, emit)
    return []


async def _redeploy(state: ClusterState, rollouts: RolloutManager, node: str, emit: Emit) -> list[Failure]:
    """Redeploy each stack that has tasks on *node*; placement decides which of them may stay."""
    failures: list[Failure] = []
    for stack in sorted({t.stack for t in state.tasks.values() if t.node == node}):
        try:
            failures += await rollouts.redeploy(stack, emit)
        except RefusedError as error:
            if error.status != 404:  # it was taken down meanwhile
                raise
    return failures
