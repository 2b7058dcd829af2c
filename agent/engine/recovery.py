"""What the agent finds when it starts: containers that run on, what became of the others, and what nobody owns."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from agent import files, mounts
from agent.containers import runtime, userns
from agent.engine import health, releasing, restart_policy
from agent.engine.engine import UNKNOWN_EXIT_CODE, Engine
from agent.engine.records import load, now
from agent.errors import AgentError
from netplugins.linux import netns

log = logging.getLogger(__name__)


async def recover(engine: Engine) -> None:
    """Take over what runs, note what ended meanwhile, and sweep what nobody owns."""
    await engine.builder.recover()
    engine.images.sweep()
    for path in list(engine.paths.containers.iterdir()):
        record = load(path) if not path.name.endswith(".tmp") else None
        if record is None:
            await engine.runtime.delete(path.name.removesuffix(".tmp"))
            await asyncio.to_thread(files.remove_tree, path)
        else:
            engine.containers.records[record.id] = record
            with contextlib.suppress(AgentError):  # its runtime may be none of the settings' any more
                engine.runtime.assign(record.id, record.container.runtime)
    for path in list(engine.paths.bundles.iterdir()):
        if path.name not in engine.containers.records:
            for point in mounts.below(path):
                mounts.unmount(point)
            await asyncio.to_thread(files.remove_tree, path)
    alive = [r for r in engine.containers.records.values() if r.process and r.process.alive() and r.started and r.running]
    # a namespace may have outlived the container that it was made for
    held = {ident for record in alive for ident in record.joined.values()}
    engine.networks.adopt([*alive, *(r for r in engine.containers.records.values() if r.id in held and r not in alive)])
    engine.networks.watch()
    for record in alive:
        if record.state == "stopping":
            record.state = "running"
        wanted = set() if engine.context.healthcheck_of(record) else health.tcp_targets(record)
        if record.process and not wanted <= health.listening(record.process.pid):
            engine.containers.not_listening.add(record.id)
        engine.supervisor.watch(record)
    for record in engine.containers.records.values():
        if record in alive:
            continue
        was_up = record.running or record.state in ("starting", "restarting")
        code = runtime.exit_code(engine.paths.bundle(record.id), record.id)
        await releasing.release(engine.context, record)
        if was_up:
            half = record.state == "starting"
            code = UNKNOWN_EXIT_CODE if code is None else code
            engine.containers.transition(
                record,
                state="created" if half else "exited",
                process=None,
                monitor=None,
                exit_code=None if half else code,
                finished="" if half else record.finished or now(),
            )
            if not half and restart_policy.restarts(record, code):
                engine.recover_restart(record)
    _sweep(engine)
    if engine.builder.torn:
        await asyncio.to_thread(engine.images.collect)
    try:
        await engine.networks.sync()
    except AgentError as error:  # running containers go on; the next start or change reports it
        log.warning("networks: %s", error)


def _sweep(engine: Engine) -> None:
    """Namespaces and runtime state that belong to no container of ours."""
    known = {ident[:16] for ident in engine.containers.records}
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
