"""Containers in namespaces of another one, their owner: they outlive its restarts, or restart with it.

A network or IPC namespace lives as long as a process is in it, so a restarted owner finds its own unchanged. A PID namespace
ends with its first process, and the kernel kills all its processes: its users are restarted with their owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

from agent.engine.container_table import ContainerTable
from agent.engine.records import Record
from agent.errors import ConflictError, NotFoundError

KINDS = ("network", "ipc", "pid")
KILLED = 128 + signal.SIGKILL
NOTICED_S = 0.5
"""Within this time of its user's end the end of an owner is noticed: the kernel ends both at once."""


def modes(record: Record) -> dict[str, str]:
    """The requested mode for each kind of namespace."""
    c = record.container
    return {"network": c.network_mode, "ipc": c.ipc_mode, "pid": c.pid_mode}


def owner_of(containers: ContainerTable, record: Record, mode: str) -> Record | None:
    """The container that `container:X` or `service:X` names, None if *mode* names none. Raises NotFoundError."""
    kind, _, name = mode.partition(":")
    if kind == "container":
        return containers.find(name)
    if kind != "service":
        return None
    # a one-off container of the service shares nothing
    found = [r for r in containers.records.values() if r.task and r.stack == record.stack and r.service == name]
    if not found:
        raise NotFoundError(f"{mode}: that service has no container on this node: bring it up first")
    return next((r for r in found if r.running), found[0])


def running_owner(containers: ContainerTable, record: Record, mode: str, kind: str = "namespace") -> Record | None:
    """As `owner_of`. Raises ConflictError if the owner does not run; *kind* is what of it would be joined."""
    found = owner_of(containers, record, mode)
    if found is not None and not found.running:
        raise ConflictError(
            f"cannot join {kind} of a non running container: {found.id}: {mode}: {found.name} does not run: start it first"
        )
    return found


def users(containers: ContainerTable, owner: Record, *kinds: str) -> list[Record]:
    """The running containers that are in namespaces of *owner*, of these *kinds* or of any that can outlive it."""
    wanted = kinds or ("network", "ipc")
    return [
        r
        for r in containers.records.values()
        if r.joined and (r.running or r.state == "starting") and any(r.joined.get(kind) == owner.id for kind in wanted)
    ]


async def dies_with_its_owner(containers: ContainerTable, record: Record, code: int) -> bool:
    """Whether the kernel ended *record* (with *code*) because the owner of its PID namespace ended, and the owner is about to
    run again."""
    owner = containers.records.get(record.joined.get("pid", ""))
    if owner is None or code != KILLED or record.stopped:
        return False
    process = owner.process
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(NOTICED_S):
            while owner.process is process and owner.running and owner.id in containers.records:
                await containers.wait_for_change(owner)
    if owner.process is process and owner.running:
        return False
    return owner.state in ("restarting", "starting", "running") or owner.id in containers.coming_back


def waits(containers: ContainerTable, record: Record) -> bool:
    """Whether an owner of a namespace that *record* is to be in does not run, though it may come back."""
    with contextlib.suppress(NotFoundError):
        owners = [owner_of(containers, record, mode) for mode in modes(record).values()]
        return any(o is not None and not o.running for o in owners)
    return False


def ready_to_follow(containers: ContainerTable) -> list[Record]:
    """The containers that waited for an owner, and need not wait any more: they are to be started."""
    ready = []
    for ident in list(containers.waiting):
        record = containers.records.get(ident)
        if record is None or record.stopped or record.state != "restarting":
            containers.waiting.discard(ident)
        elif not waits(containers, record):
            containers.waiting.discard(ident)
            ready.append(record)
    return ready
