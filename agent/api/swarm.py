"""Engine API: Swarm. A node is never part of one: the control plane takes its place here.

Source: Docker Engine API v1.48, sections Swarm, Node, Service, Task, Secret, Config.
"""

from __future__ import annotations

from aiohttp import web

from agent.errors import NoSwarmError


async def none(request: web.Request) -> web.StreamResponse:
    """Raises NoSwarmError."""
    if request.path.endswith("/swarm/leave"):
        raise NoSwarmError("This node is not part of a swarm")
    raise NoSwarmError(
        "This node is not a swarm manager. pystack's control plane has services, nodes, secrets and configs: "
        "`pystack node ls`, `pystack secret ls`; for Docker's clients, at swarm.sock beside the server's own socket"
    )
