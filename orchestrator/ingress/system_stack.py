"""The stack of the proxies. Pure."""

from __future__ import annotations

from agent.contract.container import Container, Mount
from orchestrator.ingress import caddy, haproxy
from orchestrator.ingress.model import GATE, SERVICE, STACK, IngressSettings
from orchestrator.stackfile.model import Placement, Service, Stack, StackVolume, UpdateConfig

PROGRAM = "/usr/bin/caddy"
START = "/etc/caddy/start.json"
"""The configuration that a proxy begins with; it is part of the image."""
GATE_PROGRAM = "/usr/sbin/haproxy"
GATE_START = "/etc/haproxy/start.cfg"
WHERE = "pystack ingress up"
MEMORY = 16 << 20
"""Bytes of files at most: a page for each host whose certificate is being obtained."""
BETWEEN = StackVolume(key="gate", name=f"{STACK}_gate", where=WHERE)
"""On each node, the socket at which its Caddy asks its HAProxy."""


def system_stack(settings: IngressSettings) -> Stack:
    """One proxy a node, on the host's own network: it sees who its clients are. It keeps nothing, may bind low ports and
    nothing else that root may, and cannot write to its disk. Where there is an image for it, one HAProxy a node beside it."""
    entrypoint = (PROGRAM, "run", "--config", START)
    container = _container(settings.image, entrypoint, caddy.FOLDER, gate=bool(settings.gate))
    services: tuple[Service, ...] = (_service(SERVICE, container, settings),)
    if settings.gate:
        command = (GATE_PROGRAM, "-W", "-db", "-f", GATE_START, "-f", haproxy.FOLDER)
        services = (*services, _service(GATE, _container(settings.gate, command, haproxy.FOLDER, gate=True), settings))
    return Stack(name=STACK, services=services, volumes=(BETWEEN,) if settings.gate else ())


def _container(image: str, entrypoint: tuple[str, ...], memory: str, *, gate: bool) -> Container:
    between = (Mount(kind="volume", target="/run/gate", source=BETWEEN.name),) if gate else ()
    return Container(
        image=image,
        entrypoint=entrypoint,
        network_mode="host",
        read_only=True,
        cap_drop=("ALL",),
        cap_add=("NET_BIND_SERVICE",),
        security_opt=("no-new-privileges",),
        mounts=(Mount(kind="tmpfs", target=memory, mode=0o700, size=MEMORY), *between),
        environment=(("HOME", memory),),
        sysctls=(("net.ipv4.tcp_migrate_req", "1"),),  # both open their sockets again at each change of their configuration
        restart="always",
        pull_policy="never",
        stop_grace_s=30.0,
    )


def _service(name: str, container: Container, settings: IngressSettings) -> Service:
    return Service(
        name=name,
        container=container,
        where=WHERE,
        mode="global",
        placement=Placement(constraints=settings.constraints),
        update=UpdateConfig(parallelism=1, failure_action="rollback", monitor_s=2.0),
    )
