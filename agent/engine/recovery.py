"""The start of the agent: takes over running containers, records which have ended, and removes state without a container."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from agent import files, mounts
from agent.containers import runtime, userns
from agent.contract.times import timestamp
from agent.engine import health, releasing, restart_policy
from agent.engine.engine import UNKNOWN_EXIT_CODE, Engine
from agent.engine.records import Record, load
from agent.errors import AgentError
from netplugins.linux import netns

log = logging.getLogger(__name__)


async def recover(engine: Engine) -> None:
    """Take over running containers, record which have ended, and remove state that belongs to no container."""
    engine.images.sweep()
    await _load_records(engine)
    await _sweep_bundles(engine)
    records = list(engine.containers.records.values())
    alive = [r for r in records if r.process and r.process.alive() and r.started and r.running]
    # a namespace may have outlived the container that it was made for
    held = {ident for record in alive for ident in record.joined.values()}
    engine.networks.adopt([*alive, *(r for r in records if r.id in held and r not in alive)])
    engine.networks.watch()
    for record in alive:
        _take_over(engine, record)
    for record in records:
        if record not in alive:
            await _note_end(engine, record)
    _sweep(engine)
    try:
        await engine.networks.sync()
    except AgentError as error:  # running containers go on; the next start or change reports it
        log.warning("networks: %s", error)
    await engine.backups.recover()


async def _load_records(engine: Engine) -> None:
    """Load the records of containers; a directory without one is removed, with its state in the runtime."""
    for path in list(engine.paths.containers.iterdir()):
        record = load(path) if not path.name.endswith(".tmp") else None
        if record is None:
            await engine.runtime.delete(path.name.removesuffix(".tmp"))
            await asyncio.to_thread(files.remove_tree, path)
        else:
            engine.containers.adopt(record)
            with contextlib.suppress(AgentError):  # its runtime may not be configured any more
                engine.runtime.assign(record.id, record.container.runtime)


async def _sweep_bundles(engine: Engine) -> None:
    for path in list(engine.paths.bundles.iterdir()):
        if path.name not in engine.containers.records:
            for point in mounts.below(path):
                mounts.unmount(point)
            await asyncio.to_thread(files.remove_tree, path)


def _take_over(engine: Engine, record: Record) -> None:
    """Supervise a container that ran on while there was no agent."""
    if record.state == "stopping":
        record.state = "running"
    wanted = set() if engine.context.healthcheck_of(record) else health.tcp_targets(record)
    if record.process and not wanted <= health.listening(record.process.pid):
        engine.containers.not_listening.add(record.id)
    engine.supervisor.watch(record)


async def _note_end(engine: Engine, record: Record) -> None:
    """Release the resources of a container that does not run; if it ran before, record its end and apply its restart policy."""
    was_up = record.running or record.state in ("starting", "restarting")
    exit_code = runtime.exit_code(engine.paths.bundle(record.id), record.id)
    code = UNKNOWN_EXIT_CODE if exit_code is None else exit_code
    await releasing.release(engine.context, record)
    if not was_up:
        return
    half = record.state == "starting"
    engine.containers.transition(
        record,
        state="created" if half else "exited",
        process=None,
        monitor=None,
        exit_code=None if half else code,
        finished="" if half else record.finished or timestamp(),
    )
    if not half and restart_policy.restarts(record, code):
        engine.recover_restart(record)


def _sweep(engine: Engine) -> None:
    """Remove namespaces and runtime state that belong to no container."""
    known = {engine.paths.network_namespace(ident).name for ident in engine.containers.records}
    if engine.paths.netns.is_dir():
        for path in engine.paths.netns.iterdir():
            if path.name not in known:
                netns.delete(path)
    if engine.paths.userns.is_dir():
        for path in engine.paths.userns.iterdir():
            if path.name not in known:
                userns.delete(path)
    for path in engine.paths.runc.iterdir():
        if path.name not in engine.containers.records:
            files.remove_tree(path)
