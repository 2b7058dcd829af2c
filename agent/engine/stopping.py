"""Stops, kills, freezes and thaws containers; `supervision` notices their end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal

from agent.containers.runtime import ended
from agent.contract.failpoints import failpoint
from agent.engine import hooks
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import AgentError, BadRequestError, ConflictError, NotModifiedError, user_message


async def stop(
    context: EngineContext, record: Record, *, grace_s: float | None = None, number: int = 0, event: str = "stop"
) -> None:
    """Ask the container to end by signal *number* (0: its own), and kill it after *grace_s* (None: its own). It is not
    restarted by its policy until it is started. Raises NotModifiedError if it does not run."""
    containers = context.containers
    if record.state == "starting":
        async with containers.lock(record):
            pass  # it runs, or could not be started
    if not record.running:
        if record.state == "restarting":
            containers.transition(record, state="exited", stopped=True)
            return
        containers.transition(record, stopped=True)
        raise NotModifiedError(f"container {record.name} does not run")
    async with containers.lock(record):
        await _thaw(context, record)
        if not record.running:  # it has ended while another had the lock, or while it was thawed
            containers.transition(record, stopped=True)
            raise NotModifiedError(f"container {record.name} does not run")
        containers.transition(record, state="stopping", stopped=True)
        grace = record.container.stop_grace_s if grace_s is None else grace_s
        number = number or stop_signal(context, record)
        failpoint("container.stop")
        failed = ""
        if record.container.pre_stop and grace > 0:
            try:
                await hooks.pre_stop(context, record, grace)
            except (AgentError, OSError) as error:  # it stops anyway, and the caller gets the error
                failed = user_message(error)
                containers.transition(
                    record, error=failed, pre_stop_failed=True
                )  # before its end is known, so that waiters see both
        try:
            if number == signal.SIGKILL:
                raise TimeoutError
            if record.process:
                containers.tell(record, "kill", {"signal": str(number)})
                record.process.signal(number)
            async with asyncio.timeout(grace):
                await containers.wait(record)
        except TimeoutError:
            containers.tell(record, "kill", {"signal": str(int(signal.SIGKILL))})
            await kill_all(context, record)
            await containers.wait(record)
        containers.transition(record, event, state="exited", error=failed)


async def kill(context: EngineContext, record: Record, number: int) -> None:
    """Send the signal *number*. One that ends the container leaves its restart policy in force, as in Docker. Raises
    ConflictError if it does not run."""
    if not record.running or not record.process:
        raise ConflictError(f"Container {record.id} is not running")
    if number in (signal.SIGKILL, stop_signal(context, record)):
        await _thaw(context, record)
    context.containers.tell(record, "kill", {"signal": str(int(number))})
    if number == signal.SIGKILL:
        record.stopped = True
        await kill_all(context, record)
        await context.containers.wait(record)
    else:
        record.process.signal(number)


async def kill_all(context: EngineContext, record: Record) -> None:
    """Send SIGKILL; the kernel ends every process of the PID namespace with its init."""
    if record.process and not record.container.pid_mode:
        record.process.signal(signal.SIGKILL)
    else:
        with contextlib.suppress(AgentError):
            await context.runtime.signal(record.id, signal.SIGKILL)


async def end_all(context: EngineContext) -> None:
    """The host goes down: end every container by its own signal, hook and grace period, all at once. Records stay as after
    a power cut: when the host is back, the containers run again."""

    async def end(record: Record) -> None:
        await _thaw(context, record)
        if record.container.pre_stop:
            with contextlib.suppress(AgentError, OSError):
                await hooks.pre_stop(context, record, record.container.stop_grace_s)
        assert record.process
        record.process.signal(stop_signal(context, record))
        try:
            async with asyncio.timeout(record.container.stop_grace_s):
                await ended(record.process)
        except TimeoutError:
            await kill_all(context, record)

    running = [r for r in context.containers.records.values() if r.process and r.process.alive()]
    await asyncio.gather(*(end(r) for r in running), return_exceptions=True)


async def pause(context: EngineContext, record: Record) -> None:
    """Freeze a running container. Raises ConflictError if it does not run."""
    async with context.containers.lock(record):
        if record.state != "running":
            why = "already paused" if record.state == "paused" else "not running"
            raise ConflictError(f"Container {record.id} is {why}")
        await context.runtime.pause(record.id)
        if record.state != "running" or record.stopped:  # it was killed meanwhile, which a frozen one does not notice
            with contextlib.suppress(AgentError):
                await context.runtime.resume(record.id)
            raise ConflictError(f"Container {record.id} is not running")
        context.containers.transition(record, "pause", state="paused")


async def resume(context: EngineContext, record: Record) -> None:
    """Thaw a paused container. Raises ConflictError if it is not paused."""
    async with context.containers.lock(record):
        await _resume(context, record)


async def _resume(context: EngineContext, record: Record) -> None:
    if record.state != "paused":
        raise ConflictError(f"Container {record.id} is not paused")
    await context.runtime.resume(record.id)
    if record.state == "paused":  # its end may have been noticed meanwhile
        context.containers.transition(record, "unpause", state="running")


async def _thaw(context: EngineContext, record: Record) -> None:
    """Before a container is to end: a paused one takes no signal, on cgroup v1 not even SIGKILL."""
    if record.state == "paused":
        with contextlib.suppress(AgentError):  # others may have thawed it with the runtime's own command
            await _resume(context, record)


def stop_signal(context: EngineContext, record: Record) -> int:
    """The number of the signal that stops the container: its own, its image's, or SIGTERM.

    Raises BadRequestError if its own is unknown, ImageError if the image is gone."""
    if record.container.stop_signal:
        return signal_number(record.container.stop_signal)
    try:
        return signal_number(context.image_config(record).stop_signal or "SIGTERM")
    except BadRequestError:
        return signal.SIGTERM  # the container can be stopped even if its image names an unknown signal


def signal_number(name: str) -> int:
    """The number of the signal SIGTERM, TERM or 15. Raises BadRequestError."""
    if re.fullmatch(r"[0-9]{1,2}", name) and 0 < int(name) < 65:
        return int(name)
    text = name.upper().removeprefix("SIG")
    if (above := re.fullmatch(r"RTMIN\+([0-9]{1,2})", text)) and int(above[1]) <= signal.SIGRTMAX - signal.SIGRTMIN:
        return int(signal.SIGRTMIN) + int(above[1])
    try:
        return int(signal.Signals[f"SIG{text}"])
    except KeyError:
        raise BadRequestError(f"Invalid signal: {name[:40]}") from None
