"""Where what is kept of a stack lies in the store."""

from __future__ import annotations

from agent.manifest import Network, Task


def of_task(task: Task) -> str:
    """By node, so that one prefix is all that a node has."""
    return f"tasks/{task.node}/{task.name}"


def of_network(network: Network | str) -> str:
    return f"networks/{network if isinstance(network, str) else network.name}"
