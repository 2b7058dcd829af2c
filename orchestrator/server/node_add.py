"""The SSH half of `node add`: checks a host, installs and starts its agent, and describes it as a node."""

from __future__ import annotations

import os
from typing import Literal

from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError, RefusedError
from orchestrator.placement.node import Node


class NodeAddRequest(WireStruct, frozen=True, kw_only=True):
    """`node add`. *host_key* is the fingerprint that the user accepts; *underlay* is the address that the other nodes use,
    "" for the one that SSH reaches. *transport* is how the node gets its manifest."""

    target: str
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    host_key: str = ""
    underlay: str = ""
    transport: Literal["ssh", "etcd"] = "ssh"


async def install_node(request: NodeAddRequest) -> tuple[Node, str]:
    """Install and start the agent of a host. Returns the node, and the address of this host that reaches it.

    Raises RefusedError if the host cannot be a node or shows another key, UnreachableError."""
    from orchestrator.transport import bootstrap, ssh

    host_key = ""
    if request.host_key:
        host_key = await ssh.host_key_of(request.target)
        shown = ssh.fingerprint(host_key)
        if shown != request.host_key:
            raise RefusedError(f"{request.target} shows the host key {shown}, not {request.host_key}: nothing was done", 409)
    # somebody waits, and can end it: no reason to give up on a machine that is slow, or has just begun to boot
    async with await ssh.connect(request.target, host_key, accept_s=ssh.LOGIN_S) as connection:
        found = await bootstrap.install_agent(connection, request.target)
        accepted = connection.get_server_host_key()
        assert accepted is not None
        node = Node(
            name=request.name or found.hostname,
            id=os.urandom(8).hex(),
            target=request.target,
            labels=request.labels,
            underlay=request.underlay or found.underlay,
            root=found.run,
            host_key=accepted.export_public_key().decode().strip(),
        )
        own_address = str(connection.get_extra_info("sockname")[0])
    return node, own_address


async def own_host_key(address: str) -> str:
    """The key of this host's own SSH server, by which other nodes know it; "" if it has none."""
    from orchestrator.transport import ssh

    try:
        return await ssh.host_key_of(f"root@{address}")
    except PystackError:
        return ""
