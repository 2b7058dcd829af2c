"""Supervises each running container until its end: ships and rotates its log, and runs its health check."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine

from agent.containers import runtime, syslog
from agent.containers.rotation import Rotation
from agent.engine import health, log_options
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import AgentError

RETRY_S = 1.0
"""After how long an end is looked at again that could not be."""
log = logging.getLogger(__name__)


async def _through_shortage(record: Record, work: Callable[[], Awaitable[None]]) -> None:
    """Do *work*, again and again where files cannot be opened now: an end that nobody notices leaves the container as it was.
    What has recorded the end of *record* is not repeated."""
    while True:
        try:
            return await work()
        except OSError as error:
            if record.process is None:
                raise
            log.warning("container %s: its end cannot be looked at now: %s", record.name, error)
            await asyncio.sleep(RETRY_S)


class Supervisor:
    """One task for each running container, which awaits *ended* when its processes have ended."""

    def __init__(self, context: EngineContext, ended: Callable[[Record], Awaitable[None]]) -> None:
        self._context = context
        self._ended = ended
        self._rotation = Rotation()
        self._syslog = syslog.SyslogForwarder()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """By the container's ID, the task that waits for its end, or that starts it again."""

    def watch(self, record: Record) -> None:
        """Begin to supervise a running container."""
        paths = self._context.paths
        log, bundle = paths.container(record.id) / "log", paths.bundle(record.id)
        with contextlib.suppress(AgentError):
            if server := log_options.syslog_server(record.container, record.name):
                self._syslog.add(record.id, log, server, lambda: not record.running)
        with contextlib.suppress(AgentError):
            limits = log_options.limits(record.container, self._context.settings.log_max_size)
            self._rotation.add(record.id, log, bundle / "ctl", limits)
        self.run(record, self._follow(record))

    def run(self, record: Record, work: Coroutine[None, None, None]) -> None:
        """Run *work* as the container's task."""
        self._tasks[record.id] = asyncio.create_task(work, name=f"watch {record.name}")

    async def _follow(self, record: Record) -> None:
        helpers = self._begin_helpers(record)
        try:
            assert record.monitor
            assert record.process
            for process in (record.monitor, record.process):
                await _through_shortage(record, functools.partial(runtime.ended, process))
        finally:
            for helper in helpers:
                helper.cancel()
        self._rotation.drop(record.id)
        self._context.containers.not_listening.discard(record.id)
        await _through_shortage(record, functools.partial(self._ended, record))

    def _begin_helpers(self, record: Record) -> list[asyncio.Task[None]]:
        context = self._context
        if record.id in context.containers.not_listening:
            return [asyncio.create_task(self._wait_until_listening(record))]
        if check := context.healthcheck_of(record):
            probe = functools.partial(health.run_probe, context.runtime, record.id, context.paths.bundle(record.id))
            report = functools.partial(self._report_health, record)
            return [asyncio.create_task(health.watch(record, check, probe, report))]
        return []

    def _report_health(self, record: Record, state: str) -> None:
        self._context.containers.transition(record, f"health_status: {state}", health=state)

    async def _wait_until_listening(self, record: Record) -> None:
        process, containers = record.process, self._context.containers
        await health.wait_until_listening(record)
        containers.not_listening.discard(record.id)
        if record.process is process:
            containers.changed(record)

    def drop(self, record: Record) -> None:
        """Stop supervising a container that is removed; a task that removes its own container goes on."""
        if (task := self._tasks.pop(record.id, None)) and task is not asyncio.current_task():
            task.cancel()

    def pause_all(self) -> None:
        """Stop supervising; logs are still shipped and rotated."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """Stop supervising. Containers run on, and the next agent takes them over."""
        self._rotation.close()
        await self._syslog.close()
        self.pause_all()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
