"""The keys in the store of what belongs to a stack."""

from __future__ import annotations

from agent.contract.network import Network
from agent.contract.task import Task


def of_task(task: Task) -> str:
    """`tasks/<node>/<task>`: one prefix has all tasks of a node."""
    return f"tasks/{task.node}/{task.name}"


def of_network(network: Network | str) -> str:
    """`networks/<network>`, for a network or its name."""
    return f"networks/{network if isinstance(network, str) else network.name}"


def of_volume(name: str) -> str:
    """`volumes/<volume>`."""
    return f"volumes/{name}"


def of_volume_move(name: str) -> str:
    """`moves/<volume>`, as long as the volume moves."""
    return f"moves/{name}"


HELD = "held/"
"""The prefix of strict tasks that were deleted while their nodes may still run them."""


def of_held(task: str) -> str:
    """`held/<task>`, until its node surely runs it no more."""
    return f"{HELD}{task}"


LEFTOVERS = "leftovers/"
"""The prefix of old copies of volumes that are to be deleted."""


def of_leftover(node: str, volume: str) -> str:
    """`leftovers/<node>/<volume>`, until the node has deleted its old copy."""
    return f"{LEFTOVERS}{node}/{volume}"


DRAINS = "drains/"
"""The prefix of nodes that are being emptied."""


def of_drain(node: str) -> str:
    """`drains/<node>`, as long as tasks are moved off the node."""
    return f"{DRAINS}{node}"


REMOVED_NODES = "removed/"
"""The prefix of nodes that do not know yet that they were removed."""


def of_removed_node(ident: str) -> str:
    """`removed/<id>`; a node that is added again has another ID."""
    return f"{REMOVED_NODES}{ident}"


NODE_TOKENS = "node-tokens/"
"""The prefix of the tokens by which machines join."""


def of_node_token(name: str) -> str:
    """`node-tokens/<name>`."""
    return f"{NODE_TOKENS}{name}"


UPLINKS = "uplinks/"
"""The prefix of the servers that nodes dial."""


def of_uplink(server: str) -> str:
    """`uplinks/<server>`: where nodes dial it."""
    return f"{UPLINKS}{server}"


UPLINK_SEALS = "uplink-seals/"
"""The prefix of the authority for nodes, sealed to each server."""


def of_uplink_seal(server: str) -> str:
    """`uplink-seals/<server>`."""
    return f"{UPLINK_SEALS}{server}"


def of_preempted(stack: str, task: str) -> str:
    """`preempted/<stack>/<task>`, as long as the task waits for room."""
    return f"preempted/{stack}/{task}"


def of_stack(name: str) -> str:
    """`stacks/<stack>`, the present revision."""
    return f"stacks/{name}"


def of_revision(name: str, revision: int) -> str:
    """`history/<stack>/<revision>`; the number has eight digits, so that the order of the keys is that of the revisions."""
    return f"history/{name}/{revision:08d}"
