"""Releases the resources of a container that has ended: runtime state, namespaces, links, mounts."""

from __future__ import annotations

import asyncio
import contextlib

from agent import mounts
from agent.containers import userns
from agent.contract.failpoints import failpoint
from agent.engine import mount_sources, prepare, sharing
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import AgentError


async def release(context: EngineContext, record: Record, *, removed: bool = False) -> None:
    """Release all that a container holds on the host. Namespaces that other containers are in stay, unless it is *removed*."""
    await context.runtime.delete(record.id, context.cgroup_parent(record))
    if removed or not sharing.users(context.containers, record):
        await release_namespaces(context, record)
    failpoint("container.unmount")
    memory = removed or not sharing.users(context.containers, record, "ipc")
    # beside the loop: an unmount waits for a grace period of RCU, and many that come at once wait for the same one
    await asyncio.to_thread(_unmount, context, record, memory)
    await _leave_shared_namespaces(context, record)


def _unmount(context: EngineContext, record: Record, memory: bool) -> None:
    """Unmount all of the container's bundle; *memory*: its shared memory too, which nobody else has."""
    bundle = context.paths.bundle(record.id)
    images = [mount_sources.image_point(m) for m in record.container.mounts if m.kind == "image"]
    for point in (mount_sources.SECRETS, prepare.ETC, *images, "rootfs", *((prepare.SHM,) if memory else ())):
        mounts.unmount(bundle / point)
    if (mapped := bundle / mount_sources.MAPPED).is_dir():
        for inner in mounts.below(mapped):
            mounts.unmount(inner)


async def release_namespaces(context: EngineContext, record: Record) -> None:
    """Remove the namespaces of a container that does not run."""
    with contextlib.suppress(AgentError):
        await context.networks.detach(record)
    userns.delete(context.paths.user_namespace(record.id))
    record.ids = 0


async def _leave_shared_namespaces(context: EngineContext, record: Record) -> None:
    """Remove namespaces that *record* was the last to hold, where their owners do not run either."""
    containers = context.containers
    owners, record.joined = set(record.joined.values()), {}
    for ident in owners:
        owner = containers.records.get(ident)
        if owner is None:
            continue
        async with containers.lock(owner):
            if owner.running:
                continue
            if not sharing.users(containers, owner, "ipc"):
                await asyncio.to_thread(mounts.unmount, context.paths.bundle(owner.id) / prepare.SHM)
            if owner.id in context.networks.endpoints.attached and not sharing.users(containers, owner):
                await release_namespaces(context, owner)
