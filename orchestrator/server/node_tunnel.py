"""The tunnel to a node's agent: over SSH, or over the link that the node keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.placement.node import Node

if TYPE_CHECKING:
    from orchestrator.transport.ssh import SshTunnel
    from orchestrator.transport.uplink import Links, UplinkTunnel


def make_tunnel(node: Node, run: Path, links: Links) -> SshTunnel | UplinkTunnel:
    """A tunnel from a socket in the folder `nodes` of *run* to the agent of *node*; it is not started yet."""
    from orchestrator.transport.ssh import SshTunnel
    from orchestrator.transport.uplink import UplinkTunnel

    folder = run / "nodes"
    folder.mkdir(mode=0o700, exist_ok=True)
    if node.transport == "uplink":
        return UplinkTunnel(node.id, links, folder / f"{node.id}.sock")
    return SshTunnel(node.target, node.host_key, f"{node.root}/docker.sock", folder / f"{node.id}.sock")
