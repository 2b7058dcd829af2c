"""How a container starts: root, namespaces and bundle, then runtime and networks at once, then its first instruction."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING

from agent import mounts
from agent.containers import userns
from agent.containers.runtime import ContainerStreams
from agent.contract.container import Healthcheck
from agent.engine import health, hooks, prepare
from agent.engine.records import Record, now
from agent.errors import BadRequestError
from agent.images.types import RunConfig
from agent.isolation import paths

if TYPE_CHECKING:
    from agent.engine.engine import Engine

ATTACH_S = 60.0
"""How long to wait for an attached client: a loaded host takes its time, and a client that has gone ends the wait."""


async def start(engine: Engine, record: Record) -> None:
    """Everything between the order and the first instruction, and the hooks after it; whoever calls takes away what it leaves
    where it raises."""
    engine.runtime.anticipate()
    c = record.container
    engine.runtime.assign(record.id, c.runtime)
    networked = c.network_mode != "host" and not prepare.shares_network(record)
    if networked:
        engine.networks.reserve(record)
    check = await _prepare_rootfs_and_bundle(engine, record, networked=networked)
    if networked and prepare.sysctls(record):  # one of them may say how a link is to be
        await engine.networks.attach(record)
        await _create(engine, record)
    elif networked:
        await gather_all(engine.networks.attach(record), _create(engine, record))
    else:
        prepare.switch_on_host_sysctls(record)
        await _create(engine, record)
    for one in engine.attaching.pop(record.id, ()):
        one.ready.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ATTACH_S):
                await one.connected.wait()
    await engine.runtime.start(record.id)
    await hooks.run(engine, record, "post_start", c.post_start)
    if networked and not check and health.tcp_targets(record):
        engine.not_listening.add(record.id)
    for endpoint in record.endpoints if networked else ():
        engine.tell_network(record, "connect", endpoint.network)
    engine.transition(record, "start", state="running", started=now(), finished="", health="starting" if check else "")
    engine.watch(record)


def status_of(error: BaseException) -> int:
    """What a shell would say of a program that could not be run, which Docker says too: 127, 126, and 128 of all else."""
    text = str(error).lower()
    if "executable file" in text or "no such file or directory" in text:
        return 127
    return 126 if "permission denied" in text or "is a directory" in text else 128


async def _prepare_rootfs_and_bundle(engine: Engine, record: Record, *, networked: bool) -> Healthcheck | None:
    """All that the runtime needs to create a container: its root, its namespaces, its bundle. Returns its healthcheck."""
    image = engine.images.image(record.image_id)
    rootfs = engine.mount_root(record)
    record.ids, user = prepare.user_namespace(engine, record)
    if record.ids:  # the runtime enters as its root, who is in this group, and nobody else is
        os.chown(engine.bundle(record), 0, record.ids)
        engine.bundle(record).chmod(0o710)
    kept = engine.networks.holds(record)
    owns = user == engine.userns_path(record)
    if user and owns and not kept:
        await asyncio.to_thread(userns.create, user, Path(engine.networks.netns(record)), record.ids)
    write = prepare.write_bundle(engine, record, image.config, rootfs, user)
    if networked:
        await gather_all(engine.networks.open(record, made=owns or kept), write)
    else:
        await write
    if user:
        # what was made in it until now was made by the host's root, whom the mapping does not know
        mounts.unmount(rootfs)
        await asyncio.to_thread(
            userns.root,
            rootfs,
            engine.images.lower(image),
            engine.directory(record),
            user,
            record.ids,
            engine.bundle(record) / prepare.MAPPED,
        )
    engine.log_limits(record)
    engine.syslog_target(record)  # raises before anything runs
    return prepare.healthcheck(record, image.config.config or RunConfig())


async def _create(engine: Engine, record: Record) -> None:
    c = record.container
    record.monitor, record.process = await engine.runtime.create(
        record.id,
        engine.bundle(record),
        ContainerStreams(
            tty=c.tty,
            stdin=c.stdin_open,
            stdin_once=c.stdin_once and not c.tty,  # a client that leaves a terminal may come back to it
            log=engine.directory(record) / "log",
            log_max=engine.log_limits(record).guard,
            log_driver=c.log_driver,
        ),
    )
    if point := paths.covered(record.process.pid):
        raise BadRequestError(
            f"a mount of {record.name} lies on {point}, and /proc is the kernel's own: mount it elsewhere; "
            "where its path leads through a symbolic link, give the path itself"
        )


async def gather_all(*work: Awaitable[None]) -> None:
    """Wait for all of *work*, even if one fails; then raise the error of the first that failed."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
