"""Prepares nodes for tasks that are about to be written: every way to bring a task to a node goes through here."""

from __future__ import annotations

from collections.abc import Sequence, Set

from agent.contract.network import Network
from agent.contract.task import Task
from orchestrator.server.cluster import Cluster
from orchestrator.server.events import Emit, Failure
from orchestrator.server.images import Images
from orchestrator.tracing.spans import span


async def prepare_nodes(
    cluster: Cluster,
    images: Images,
    tasks: Sequence[Task],
    networks: Sequence[Network],
    emit: Emit,
    *,
    unchanged: Set[str] = frozenset(),
) -> list[Failure]:
    """Give the nodes of *tasks* what they need before the tasks and *networks* are written: a key pair where a task has a
    secret or a network is encrypted, and the images. Tasks whose names are in *unchanged* run already and need no image.

    Must be called before the write: a manifest leaves out a secret or a tunnel whose node has no key. Returns a failure for
    each image that cannot be brought to its node."""
    with span("prepare nodes"):
        await cluster.ask_keys_for(tasks, networks)
        return await images.ship([t for t in tasks if t.name not in unchanged], emit)
