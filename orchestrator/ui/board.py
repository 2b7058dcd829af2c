"""What a page shows, as rows by key, kept up to date for as long as somebody looks.

Nothing is asked in a rhythm: the store's watch, the statuses of tasks and the liveness of nodes say when to look again, and a
page gets the rows that differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from agent.contract.network import Network
from agent.contract.status import TaskStatus
from agent.contract.volume import Volume
from orchestrator.server.api.nodes import node_row
from orchestrator.server.api.rollouts import rollout_row
from orchestrator.server.api.stacks import stack_row, task_row
from orchestrator.server.plane import ControlPlane
from orchestrator.store.interface import CompactedError, StoreError

SETTLE_S = 0.15
"""How long changes are gathered before the rows are made again."""
KEPT_EVENTS = 300
RETRY_S = 1.0
Rows = dict[str, dict[str, Any]]
"""kind → key → row"""
SILENT = ("auditlog/", "contents/", "seals/", "manifests/")
"""Prefixes of the store in which nothing is that a page shows."""


class Board:
    """The rows of *plane*, built again after a change while a page follows."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._rows: Rows = {}
        self._version = 0
        self._stale = asyncio.Event()
        self._renewed = asyncio.Condition()
        self._followers = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._before: Callable[[str], None] | None = None
        self._queues: set[asyncio.Queue[dict[str, Any]]] = set()
        self._stopping: set[str] = set()
        """Tasks that stop because somebody wants it: how they end is not a failure."""
        self.events: deque[dict[str, Any]] = deque(maxlen=KEPT_EVENTS)
        """The last changes of tasks, the oldest first."""

    def start(self) -> None:
        """Begin to listen to changes."""
        cluster = self._plane.cluster
        self._plane.statuses.listeners.add(self._on_status)
        self._before, cluster.on_liveness = cluster.on_liveness, self._on_liveness

    def close(self) -> None:
        """Stop."""
        self._plane.statuses.listeners.discard(self._on_status)
        if self._before:
            self._plane.cluster.on_liveness = self._before
        for task in self._tasks:
            task.cancel()

    def _on_status(self, status: TaskStatus) -> None:
        task = self._plane.state.tasks.get(status.task)
        event = {
            "at": time.time(),
            "task": status.task,
            "stack": task.stack if task else "",
            "node": task.node if task else "",
            "state": status.state,
            "health": status.health,
            "exit_code": status.exit_code,
            "asked": status.state == "exited" and status.task in self._stopping,
            "reason": status.reason,
        }
        (self._stopping.add if status.state == "stopping" else self._stopping.discard)(status.task)
        self.events.append(event)
        for queue in self._queues:
            if not queue.full():
                queue.put_nowait(event)
        self._stale.set()

    def _on_liveness(self, node: str) -> None:
        if self._before:
            self._before(node)
        self._stale.set()

    async def changes(self) -> AsyncIterator[dict[str, Any]]:
        """Each change of a task as it comes; never ends. A reader that is too slow misses some."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(KEPT_EVENTS)
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    async def _watch_store(self) -> None:
        store = self._plane.store
        while True:
            with contextlib.suppress(CompactedError, StoreError):
                async for changes in store.watch("", after=await store.revision()):
                    if any(not c.key.startswith(SILENT) for c in changes):
                        self._stale.set()
            await asyncio.sleep(RETRY_S)
            self._stale.set()

    async def _renew(self) -> None:
        while True:
            await self._stale.wait()
            await asyncio.sleep(SETTLE_S)
            self._stale.clear()
            await self._make()

    async def _make(self) -> None:
        """Make all rows; those that are as they were stay the same objects, so that to compare them costs nothing."""
        fresh = rows_of(self._plane)
        for kind, rows in fresh.items():
            known = self._rows.get(kind, {})
            for key, row in rows.items():
                if known.get(key) == row:
                    rows[key] = known[key]
        async with self._renewed:
            self._rows = fresh
            self._version += 1
            self._renewed.notify_all()

    async def follow(self) -> AsyncIterator[Rows]:
        """All rows, and all of them again whenever some changed. Never ends."""
        if not self._followers:
            self._tasks = [asyncio.create_task(self._watch_store()), asyncio.create_task(self._renew())]
        self._followers += 1
        try:
            await self._make()
            seen = -1
            while True:
                async with self._renewed:
                    await self._renewed.wait_for(lambda known=seen: self._version != known)  # type: ignore[misc]
                    seen, rows = self._version, self._rows
                yield rows
        finally:
            self._followers -= 1
            if not self._followers:
                for task in self._tasks:
                    task.cancel()


def rows_of(plane: ControlPlane) -> Rows:
    """Everything that a page shows of itself, from memory."""
    by_stack: dict[str, list[Any]] = {}
    tasks = {}
    for task in plane.state.tasks.values():
        by_stack.setdefault(task.stack, []).append(task)
        if task.desired != "oneoff":
            tasks[task.name] = dict(task_row(plane, task)) | {"desired": task.desired}
    return {
        "nodes": {name: dict(node_row(plane, name)) for name in plane.cluster.members},
        "stacks": {n: dict(stack_row(plane, r, by_stack.get(n, ()))) | _of_stack(r) for n, r in plane.state.stacks.items()},
        "tasks": tasks,
        "rollouts": {name: msgspec.to_builtins(rollout_row(plane, record)) for name, record in plane.rollouts.records.items()},
        "networks": {n.name: _network(n) for n in plane.state.networks.values()},
        "volumes": {v.name: _volume(v) for v in plane.state.volumes.values()},
    }


def _of_stack(record: Any) -> dict[str, Any]:
    return {
        "services": [
            {"name": s.name, "image": s.container.image, "needs": [d.service for d in s.depends_on]}
            for s in record.stack.services
        ],
        "user": record.user,
        "message": record.message,
        "source": record.source,
    }


def _network(one: Network) -> dict[str, Any]:
    return {
        "name": one.name,
        "stack": one.stack,
        "driver": one.driver,
        "internal": one.internal,
        "subnets": [s.cidr for s in one.subnets],
        "nodes": [h.name for h in one.hosts],
        "vips": {v.name: v.ipv4 or v.ipv6 for v in one.vips},
    }


def _volume(one: Volume) -> dict[str, Any]:
    return {"name": one.name, "stack": one.stack, "driver": one.driver, "node": one.node, "follow": one.follow}


def difference(before: Rows, after: Rows) -> dict[str, Any]:
    """What a page that has *before* needs to have *after*: rows to put, and keys that are gone, by kind."""
    put: dict[str, dict[str, Any]] = {}
    gone: dict[str, list[str]] = {}
    for kind in after.keys() | before.keys():
        old, new = before.get(kind, {}), after.get(kind, {})
        if changed := {key: row for key, row in new.items() if old.get(key) is not row and old.get(key) != row}:
            put[kind] = changed
        if left := [key for key in old if key not in new]:
            gone[kind] = left
    return {"put": put, "gone": gone} if put or gone else {}


def visible(rows: Rows, sees: Callable[[str], bool]) -> Rows:
    """*rows* of what somebody may see; nodes have no stack, and are for all."""
    return {
        kind: {key: row for key, row in found.items() if kind == "nodes" or sees(_stack_of(row))}
        for kind, found in rows.items()
    }


def _stack_of(row: Mapping[str, Any]) -> str:
    return str(row.get("stack", ""))
