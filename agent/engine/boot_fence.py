"""After a boot, tasks of the cluster wait for the control plane's word: they may run on other nodes by now.

A control plane that is lost must not keep a node from its work, so each task waits for a bound time only; one whose fence is
strict waits for as long as it takes. A restart of the agent alone stops no container, and holds none back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from agent import files
from agent.contract.manifest import Manifest
from agent.contract.task import Task

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Source: random(4)."""
log = logging.getLogger(__name__)


class BootFence:
    """*marker* is a file in a folder that a boot empties; it has the boot's identity once the fence is open. *clock* gives
    seconds."""

    def __init__(self, marker: Path, clock: Callable[[], float]) -> None:
        self._marker = marker
        self._clock = clock
        self._closed_at: float | None = None
        self._tasks: Mapping[str, Task] = {}
        self._gone: frozenset[str] = frozenset()
        self._confirmed = asyncio.Event()

    def close_after_boot(self, manifest: Manifest) -> None:
        """Close the fence if the host was booted since it was last open, and others could have the tasks of *manifest*."""
        boot = BOOT_ID.read_text().strip()
        with contextlib.suppress(OSError):
            if self._marker.read_text() == boot:
                return self._confirmed.set()
        if len(manifest.nodes) < 2 or not manifest.tasks:
            return self.confirm(manifest.tasks)
        log.warning("this host was booted: tasks of the cluster wait until the control plane says which are still this node's")
        self._closed_at = self._clock()
        self._tasks = {t.name: t for t in manifest.tasks}

    def confirm(self, tasks: Iterable[Task]) -> None:
        """The control plane says that *tasks* are this node's: they start, and no others."""
        if self._confirmed.is_set():
            return
        self._gone = frozenset(self._tasks) - {t.name for t in tasks}
        try:
            files.write_atomically(self._marker, BOOT_ID.read_text().strip().encode(), 0o644)
        except OSError as error:  # a full disk: the next agent waits once more
            log.warning("%s: %s", self._marker, error)
        self._confirmed.set()

    def holds(self, task: str) -> bool:
        """Whether *task* must not start now. Tasks that the node did not have at the boot are none of the fence's."""
        if self._confirmed.is_set() or self._closed_at is None:
            return False
        return task in self._tasks and self._left_s(task) > 0

    def _left_s(self, task: str) -> float:
        wait = self._tasks[task].boot_wait_s
        return float("inf") if wait is None else (self._closed_at or 0.0) + wait - self._clock()

    async def wait(self, task: str) -> bool:
        """Return when *task* need not wait any more: whether it is still this node's, as far as anybody said."""
        while self.holds(task):
            left = self._left_s(task)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if left == float("inf") else left):
                    await self._confirmed.wait()
        return task not in self._gone
