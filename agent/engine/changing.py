"""Changes to an existing container: its name, its limits, its networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from agent.contract.bandwidth import Bandwidth
from agent.contract.container import Attachment, Container
from agent.engine import etcfiles, limits, prepare
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import AgentError, BadRequestError, ConflictError


def rename(context: EngineContext, record: Record, name: str) -> None:
    """Call the container *name*. Raises ConflictError if that is taken."""
    context.containers.require_free_name(name)
    before = record.name
    context.containers.transition(record, name=name)
    context.containers.tell(record, "rename", {"oldName": f"/{before}"})


async def update(context: EngineContext, record: Record, fields: dict[str, Any]) -> None:
    """Change limits and restart policy; *fields* are those of a Container. Raises AgentError if the kernel refuses."""
    async with context.containers.lock(record):
        changed = msgspec.structs.replace(record.container, **fields)
        if record.running:
            limits.change(context, record, changed)
        context.containers.transition(record, "update", container=changed)


async def connect(
    context: EngineContext, record: Record, attachment: Attachment, links: tuple[tuple[str, str], ...] = ()
) -> None:
    """Put a container on one network more, with *links* as a Container has them. Raises AgentError."""
    async with context.containers.lock(record):
        _require_movable(record)
        if links:
            own_links = (*record.container.links, *links)
            context.containers.transition(record, container=msgspec.structs.replace(record.container, links=own_links))
        attachments = _attachments(record)
        await context.networks.connect(record, attachment)
        name = context.networks.table.get(attachment.network).name
        _set_attachments(context, record, (*attachments, msgspec.structs.replace(attachment, network=name)))
        context.tell_network(record, "connect", name)


async def disconnect(context: EngineContext, record: Record, name: str) -> None:
    """Take a container off a network. Raises AgentError."""
    networks = context.networks
    async with context.containers.lock(record):
        _require_movable(record)
        network = networks.table.get(name)
        attachments = _attachments(record)
        await networks.disconnect(record, network)
        rest = tuple(a for a in attachments if networks.table.get(a.network).name != network.name)
        _set_attachments(context, record, rest)
        context.tell_network(record, "disconnect", network.name)


async def limit(context: EngineContext, record: Record, bandwidth: Mapping[str, Bandwidth | None]) -> None:
    """Give a container, running or not, another *bandwidth* on these networks. Raises AgentError, and all is as it was."""
    async with context.containers.lock(record):
        before = record.endpoints
        after = [msgspec.structs.replace(e, bandwidth=bandwidth.get(e.network, e.bandwidth)) for e in before]
        try:
            await context.networks.replace_endpoints(record, after)
        except AgentError:
            await context.networks.replace_endpoints(record, before)
            raise
        kept = tuple(msgspec.structs.replace(a, bandwidth=bandwidth.get(a.network, a.bandwidth)) for a in _attachments(record))
        context.containers.transition(record, "update", container=msgspec.structs.replace(record.container, attachments=kept))


def adjust(context: EngineContext, record: Record, container: Container, digest: str) -> None:
    """Give a running container the addresses and limits of *container*, whose *digest* it then has; the next `sync` of the
    networks applies the addresses. Raises AgentError."""
    limits.change(context, record, container)
    if record.container.attachments != container.attachments:
        context.networks.readdress(record, container)
        etcfiles.write(
            prepare.etc(context.paths.bundle(record.id)),
            record,
            prepare.hostname(record),
            gateway=context.gateway_of(record),
            shared_host_network=False,
        )
    context.containers.transition(record, container=container, digest=digest)


def _attachments(record: Record) -> tuple[Attachment, ...]:
    """The attachments that the container asked for, or else those that it has."""
    return record.container.attachments or tuple(Attachment(network=e.network) for e in record.endpoints)


def _set_attachments(context: EngineContext, record: Record, attachments: tuple[Attachment, ...]) -> None:
    # off all networks it stays off all when started again, until it is put on one
    mode = "none" if not attachments else "" if record.container.network_mode == "none" else record.container.network_mode
    container = msgspec.structs.replace(record.container, attachments=attachments, network_mode=mode)
    context.containers.transition(record, container=container)


def _require_movable(record: Record) -> None:
    """Raises ConflictError or BadRequestError if the container cannot be put on other networks."""
    mode = record.container.network_mode
    if record.task:
        raise ConflictError(f"container {record.name} is a task of stack {record.stack}: its file says which networks it is on")
    left = mode == "none" and record.asked.get("HostConfig", {}).get("NetworkMode", mode) != mode
    if mode == "none" and not left:
        raise BadRequestError(
            "container cannot be connected to multiple networks with one of the networks in private "
            f"(none) mode: {record.name} has network mode none"
        )
    if mode == "host" or ":" in mode:
        raise BadRequestError(
            "container sharing network namespace with another container or host cannot be connected to "
            f"any other network: {record.name} has network mode {mode}"
        )
