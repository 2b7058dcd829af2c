"""The SSH tunnel to a node's agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.placement.node import Node

if TYPE_CHECKING:
    from orchestrator.transport.ssh import SshTunnel


def make_tunnel(node: Node, run: Path) -> SshTunnel:
    """A tunnel from a socket in the folder `nodes` of *run* to the agent of *node*; it is not started yet."""
    from orchestrator.transport.ssh import SshTunnel

    folder = run / "nodes"
    folder.mkdir(mode=0o700, exist_ok=True)
    return SshTunnel(node.target, node.host_key, f"{node.root}/docker.sock", folder / f"{node.id}.sock")
