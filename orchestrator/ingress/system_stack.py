"""The stack of the proxies. Pure."""

from __future__ import annotations

from agent.contract.container import Container, Mount
from orchestrator.ingress.model import SERVICE, STACK, IngressSettings
from orchestrator.stackfile.model import Placement, Service, Stack, UpdateConfig

PROGRAM = "/usr/bin/caddy"
START = "/etc/caddy/start.json"
"""The configuration that a proxy begins with; it is part of the image."""


def system_stack(settings: IngressSettings) -> Stack:
    """One proxy a node, on the host's own network: it sees who its clients are. It keeps nothing, may bind low ports and
    nothing else that root may, and cannot write to its disk."""
    container = Container(
        image=settings.image,
        entrypoint=(PROGRAM, "run", "--config", START),
        network_mode="host",
        read_only=True,
        cap_drop=("ALL",),
        cap_add=("NET_BIND_SERVICE",),
        security_opt=("no-new-privileges",),
        mounts=(Mount(kind="tmpfs", target="/run/caddy", mode=0o700, size=1 << 20),),
        environment=(("HOME", "/run/caddy"),),
        sysctls=(("net.ipv4.tcp_migrate_req", "1"),),  # Caddy opens its sockets again at each change of its configuration
        restart="always",
        pull_policy="never",
        stop_grace_s=30.0,
    )
    service = Service(
        name=SERVICE,
        container=container,
        where="pystack ingress up",
        mode="global",
        placement=Placement(constraints=settings.constraints),
        update=UpdateConfig(parallelism=1, failure_action="rollback", monitor_s=2.0),
    )
    return Stack(name=STACK, services=(service,))
