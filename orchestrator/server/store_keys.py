"""The keys of tasks and networks in the store."""

from __future__ import annotations

from agent.manifest import Network, Task


def of_task(task: Task) -> str:
    """`tasks/<node>/<task>`: one prefix has all tasks of a node."""
    return f"tasks/{task.node}/{task.name}"


def of_network(network: Network | str) -> str:
    """`networks/<network>`, for a network or its name."""
    return f"networks/{network if isinstance(network, str) else network.name}"
