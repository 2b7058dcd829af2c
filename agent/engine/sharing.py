"""Containers that have namespaces of another one, their owner: they outlive its restarts, or follow them.

A network or IPC namespace lives as long as somebody is in it, so an owner that starts again finds its own as it was. A PID
namespace ends with its first process, and the kernel ends all that is in it: its users are started again with their owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING

from agent.engine.records import Record
from agent.errors import AgentError, NotFoundError, user_message

if TYPE_CHECKING:
    from agent.engine.engine import Engine

KINDS = ("network", "ipc", "pid")
KILLED = 128 + signal.SIGKILL
NOTICED_S = 0.5
"""Within this time of its user's end the end of an owner is noticed: the kernel ends both at once."""
log = logging.getLogger(__name__)


def modes(record: Record) -> dict[str, str]:
    """What the container asks for, by the kind of namespace."""
    c = record.container
    return {"network": c.network_mode, "ipc": c.ipc_mode, "pid": c.pid_mode}


def owner_of(engine: Engine, record: Record, mode: str) -> Record | None:
    """The container that `container:X` or `service:X` names, None where *mode* names none. Raises NotFoundError."""
    kind, _, name = mode.partition(":")
    if kind == "container":
        return engine.find(name)
    if kind != "service":
        return None
    # a one-off container of the service shares nothing
    found = [r for r in engine.records.values() if r.task and r.stack == record.stack and r.service == name]
    if not found:
        raise NotFoundError(f"{mode}: that service has no container on this node: bring it up first")
    return next((r for r in found if r.running), found[0])


def running_owner(engine: Engine, record: Record, mode: str) -> Record | None:
    """As `owner_of`. Raises NotFoundError where the owner does not run."""
    found = owner_of(engine, record, mode)
    if found is not None and not found.running:
        raise NotFoundError(f"{mode}: {found.name} does not run, so its namespace cannot be joined: start it first")
    return found


def users(engine: Engine, owner: Record, *kinds: str) -> list[Record]:
    """The running containers that are in namespaces of *owner*, of these *kinds* or of any that can outlive it."""
    wanted = kinds or ("network", "ipc")
    return [
        r
        for r in engine.records.values()
        if (r.running or r.state == "starting") and any(r.joined.get(kind) == owner.id for kind in wanted)
    ]


async def leave(engine: Engine, record: Record) -> None:
    """*record* has ended: a namespace that it was the last to hold of an owner that does not run either is let go."""
    owners, record.joined = set(record.joined.values()), {}
    for ident in owners:
        owner = engine.records.get(ident)
        if owner is None:
            continue
        async with engine.lock(owner):
            if not owner.running and owner.id in engine.networks.endpoints.attached and not users(engine, owner):
                await engine.let_go(owner)


async def dies_with_its_owner(engine: Engine, record: Record, code: int) -> bool:
    """Whether *record*, which ended with *code*, was ended by the kernel since the owner of its PID namespace ended, and that
    one is about to run again."""
    owner = engine.records.get(record.joined.get("pid", ""))
    if owner is None or code != KILLED or record.stopped:
        return False
    process = owner.process
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(NOTICED_S):
            while owner.process is process and owner.running and owner.id in engine.records:
                await engine.wait_for_change(owner)
    if owner.process is process and owner.running:
        return False
    return owner.state in ("restarting", "starting", "running") or owner.id in engine.coming_back


def waits(engine: Engine, record: Record) -> bool:
    """Whether an owner of a namespace that *record* is to be in does not run, though it may come back."""
    with contextlib.suppress(NotFoundError):
        owners = [owner_of(engine, record, mode) for mode in modes(record).values()]
        return any(o is not None and not o.running for o in owners)
    return False


async def follow(engine: Engine, owner: Record) -> None:
    """*owner* runs: start those that wait for it."""
    for ident in list(engine.waiting):
        record = engine.records.get(ident)
        if record is None or record.stopped or record.state != "restarting":
            engine.waiting.discard(ident)
        elif not waits(engine, record):
            engine.waiting.discard(ident)
            try:
                await engine.start(record)
            except (AgentError, OSError) as error:
                log.warning("container %s does not follow %s: %s", record.name, owner.name, user_message(error))
