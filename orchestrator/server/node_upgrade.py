"""`node upgrade`: the agent of a node is exchanged for the server's own, over SSH; its containers run on meanwhile."""

from __future__ import annotations

import asyncio

from orchestrator import __version__
from orchestrator.errors import RefusedError, UnreachableError
from orchestrator.server.members import NodeConnection

WITHIN_S = 60.0


async def upgrade_node(member: NodeConnection) -> None:
    """Return when the agent of *member* is this server's version and answers. Raises RefusedError, UnreachableError."""
    from orchestrator.transport import bootstrap, ssh

    node = member.node
    if node.transport == "uplink":
        raise RefusedError(f"{node.name} dials the server, and is not reached over SSH: upgrade its package there", 409)
    if not node.target:
        raise RefusedError(f"{node.name} is the server's own host: its agent is upgraded with the server", 409)
    async with await ssh.connect(node.target, node.host_key) as connection:
        await bootstrap.install_agent(connection, node.target, exactly=True)
    try:
        async with asyncio.timeout(WITHIN_S):
            while not (member.ready and member.node.info.version == __version__):
                await asyncio.sleep(0.1)
    except TimeoutError:
        why = member.problem or f"version {member.node.info.version} answers"
        raise UnreachableError(f"{node.name}: the new agent was started and does not answer: {why}") from None
