"""Starts a container: root, namespaces and bundle, then runtime and networks concurrently, then its first instruction."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable

from agent import mounts
from agent.containers import userns
from agent.containers.runtime import ContainerStreams
from agent.contract.container import Healthcheck
from agent.contract.times import timestamp
from agent.engine import health, hooks, limits, log_options, mount_sources, prepare, selinux_labels
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import BadRequestError
from agent.images.types import RunConfig
from agent.isolation import observation, paths

ATTACH_S = 60.0
"""How long to wait for an attached client: a loaded host takes its time, and a client that has gone ends the wait."""


async def start(context: EngineContext, record: Record) -> None:
    """Start a created container and run its post_start hooks. On an exception the caller removes what this has made."""
    await context.require_trusted(record)
    context.runtime.anticipate()
    c = record.container
    context.runtime.assign(record.id, c.runtime)
    selinux_labels.assign(context, record)
    networked = c.network_mode != "host" and not prepare.shares_network(record)
    if networked:
        context.networks.endpoints.reserve(record)
    check = await _prepare_rootfs_and_bundle(context, record, networked=networked)
    if networked and prepare.sysctls(record):  # one of them may configure a link
        await context.networks.attach(record)
        await _create(context, record)
    elif networked:
        await gather_all(context.networks.attach(record), _create(context, record))
    else:
        prepare.switch_on_host_sysctls(record)
        await _create(context, record)
    for one in context.containers.attaching.pop(record.id, ()):
        one.ready.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ATTACH_S):
                await one.connected.wait()
    await context.runtime.start(record.id)
    await hooks.post_start(context, record)
    if networked and not check and health.tcp_targets(record):
        context.containers.not_listening.add(record.id)
    for endpoint in record.endpoints if networked else ():
        context.tell_network(record, "connect", endpoint.network)
    context.containers.transition(
        record, "start", state="running", started=timestamp(), finished="", health="starting" if check else ""
    )


def status_of(error: BaseException) -> int:
    """The exit status for a program that could not be run, as of a shell and Docker: 127, 126, and 128 for other errors."""
    text = str(error).lower()
    if "executable file" in text or "no such file or directory" in text:
        return 127
    return 126 if "permission denied" in text or "is a directory" in text else 128


async def _prepare_rootfs_and_bundle(context: EngineContext, record: Record, *, networked: bool) -> Healthcheck | None:
    """Prepare what the runtime needs to create a container: root, namespaces, bundle. Returns its health check."""
    image = context.images.image(record.image_id)
    rootfs = context.mount_root(record)
    record.ids, user = prepare.user_namespace(context, record)
    if record.ids:  # the runtime enters as its root, which alone is in this group
        os.chown(context.paths.bundle(record.id), 0, record.ids)
        context.paths.bundle(record.id).chmod(0o710)
    kept = record.id in context.networks.endpoints.attached
    owns = user == context.paths.user_namespace(record.id)
    if user and owns and not kept:
        await asyncio.to_thread(userns.create, user, context.networks.endpoints.netns(record), record.ids)
    write = prepare.write_bundle(context, record, image.config, rootfs, user)
    if networked:
        await gather_all(context.networks.open(record, made=owns or kept), write)
    else:
        await write
    if user:
        # all in it was made by the host's root until now, which is not in the mapping
        mounts.unmount(rootfs)
        await asyncio.to_thread(
            userns.root,
            rootfs,
            context.images.lower(image),
            context.paths.container(record.id),
            user,
            record.ids,
            context.paths.bundle(record.id) / mount_sources.MAPPED,
            record.mount_label,
        )
    log_options.limits(record.container, context.settings.log_max_size)
    log_options.syslog_server(record.container, record.name)  # both raise before anything runs
    return health.effective(record.container, image.config.config or RunConfig())


async def _create(context: EngineContext, record: Record) -> None:
    c = record.container
    if observation.asked(c.security_opt):
        observation.begin(context.paths.listener(record.id), context.paths.bundle(record.id))
    record.monitor, record.process = await context.runtime.create(
        record.id,
        context.paths.bundle(record.id),
        ContainerStreams(
            tty=c.tty,
            stdin=c.stdin_open,
            stdin_once=c.stdin_once and not c.tty,  # a client that leaves a terminal may come back to it
            log=context.paths.container(record.id) / "log",
            log_max=log_options.limits(c, context.settings.log_max_size).guard,
            log_driver=c.log_driver,
        ),
    )
    limits.begin(context, record)
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
