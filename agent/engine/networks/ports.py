"""The published ports of a node, and their containers."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence, Set

from agent.contract.cluster import ServiceAddress
from agent.contract.container import Port
from agent.contract.status import PublishedPort
from agent.engine.records import Record
from agent.errors import AgentError, BadRequestError, ConflictError


def assign(record: Record, others: Sequence[Record]) -> None:
    """Fix the published ports of *record*. Raises ConflictError if one of *others* holds one, unless both are of one
    service: that has the port as a whole, or the one that stays has it."""
    rivals = [r for r in others if not (record.task and (r.stack, r.service) == (record.stack, record.service))]
    taken = {(p.protocol, p.published): r.name for r in rivals for p in r.ports}
    held = {(p.target, p.protocol, p.host_ip): p.published for p in record.ports}
    ports = []
    for port in record.container.ports:
        published = port.published or held.get((port.target, port.protocol, port.host_ip), 0)
        if not published:
            published = _free_port(port, taken)
        owner = taken.get((port.protocol, published))
        clash = owner and any(
            p.published == published and p.protocol == port.protocol and _overlap(p.host_ip, port.host_ip)
            for r in rivals
            for p in r.ports
        )
        if clash:
            raise ConflictError(
                f"driver failed programming external connectivity on endpoint {record.name}: Bind for "
                f"{port.host_ip or '0.0.0.0'}:{published} failed: port is already allocated: port {published}/{port.protocol} "
                f"is already published by {owner}"
            )
        taken[port.protocol, published] = record.name
        ports.append(PublishedPort(target=port.target, published=published, protocol=port.protocol, host_ip=port.host_ip))
    record.ports = ports


def _overlap(one: str, other: str) -> bool:
    wild = ("", "0.0.0.0", "::")
    return one in wild or other in wild or one == other


def _free_port(port: Port, taken: dict[tuple[str, int], str]) -> int:
    """A port that is free now; the data path binds it at once, so the window is small, and it reports a loss."""
    kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    for _ in range(64):
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((port.host_ip, 0))
            except OSError as error:
                raise BadRequestError(f"address {port.host_ip} cannot be published on: {error.strerror}") from error
            number = int(probe.getsockname()[1])
        if (port.protocol, number) not in taken:
            return number
    raise AgentError("no free port was found on the host")


def of_services(services: Iterable[ServiceAddress]) -> set[tuple[int, str]]:
    """The ports (published, protocol) of whole services, which every node answers."""
    return {(p.published, p.protocol) for service in services for p in service.ports}


def own(record: Record, services: Set[tuple[int, str]]) -> list[PublishedPort]:
    """The ports that lead to *record* alone. Those of its *services* (`of_services`) are load-balanced, and a running task
    may get or lose them as replicas come and go."""
    return [p for p in record.ports if not (record.task and (p.published, p.protocol) in services)]
