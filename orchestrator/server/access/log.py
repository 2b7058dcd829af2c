"""The log of changes: who, from where, what, by which plan, and what became of it.

It is kept in the store, so that whichever server leads has all of it; `audit_log:` in config.yml sends it to a syslog too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from agent.contract.wire import WireStruct
from orchestrator.store.interface import Delete, Op, Put, Store, StoreError, batches

KEPT = 5000
"""Lines; the oldest give way."""
STEPS = 50
"""Steps of a plan that a line names at most."""
PREFIX = "auditlog/"
log = logging.getLogger(__name__)


class AuditLine(WireStruct, frozen=True, kw_only=True):
    """One change. *time* is in seconds since 1970. *outcome* is `begun` until it has ended, then `done`, `failed` or `refused`;
    *status* is HTTP's. *steps* are those of the plan that was carried out (`replace task shop-web-1`)."""

    id: str
    time: float
    user: str
    role: str
    way: str
    source: str
    action: str
    stack: str = ""
    target: str = ""
    outcome: str = "begun"
    status: int = 0
    message: str = ""
    steps: tuple[str, ...] = ()
    more_steps: int = 0
    seconds: float = 0.0


class AuditLog:
    """Lines in *store*, written a few at a time. *ship* is called with each that has ended."""

    def __init__(self, store: Store, ship: Callable[[AuditLine], None] | None = None) -> None:
        self.ship = ship
        self._store = store
        self._keys: deque[str] = deque()
        self._waiting: dict[str, AuditLine] = {}
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._last = 0
        self._busy = asyncio.Lock()

    async def load(self) -> None:
        """Learn which lines there are, and begin to write. Raises StoreError."""
        self._keys = deque(e.key for e in await self._store.scan(PREFIX))
        self._last = int(self._keys[-1].removeprefix(PREFIX)) if self._keys else 0
        self._writer = asyncio.create_task(self._write(), name="audit log")

    def next_id(self) -> str:
        """An ID for a line that begins now: their order is that of time."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return f"{self._last:020d}"

    def put(self, line: AuditLine) -> None:
        """Write *line*, in a moment; one of the same ID gives way to it."""
        self._waiting[line.id] = line
        self._wake.set()
        if line.outcome != "begun" and self.ship:
            self.ship(line)

    async def lines(self, last: int) -> list[AuditLine]:
        """The newest *last* lines, the oldest first. Raises StoreError."""
        async with self._busy:
            await self._write_waiting()
        return [msgspec.json.decode(e.value, type=AuditLine) for e in (await self._store.scan(PREFIX))[-last:]]

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            async with self._busy:
                await self._write_waiting()

    async def _write_waiting(self) -> None:
        lines, self._waiting = self._waiting, {}
        try:
            await self._put(list(lines.values()))
        except StoreError as error:  # a full disk, for instance: they are not lost, the server's own log has them
            for line in lines.values():
                log.warning("not in the audit log (%s): %s", error, msgspec.json.encode(line).decode())

    async def _put(self, lines: Sequence[AuditLine]) -> None:
        operations: list[Op] = []
        for line in lines:
            key = PREFIX + line.id
            operations.append(Put(key, msgspec.json.encode(line)))
            if not self._keys or key > self._keys[-1]:
                self._keys.append(key)
        while len(self._keys) > KEPT:
            operations.append(Delete(self._keys.popleft()))
        for batch in batches(operations):
            await self._store.transact((), batch)

    async def close(self) -> None:
        """Write what waits, and stop."""
        if self._writer:
            async with self._busy:
                self._writer.cancel()
                await self._write_waiting()
            await asyncio.gather(self._writer, return_exceptions=True)
