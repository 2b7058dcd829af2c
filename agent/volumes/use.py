"""How much the volumes of a node hold, for its metrics."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import NamedTuple

from agent import quotas
from agent.contract.volume import is_shared
from agent.files import used
from agent.volumes.volumes import VolumeRecord, Volumes

AGAIN_S = 60.0
SHARE = 100
"""Counting takes at most this part of the time."""


class Use(NamedTuple):
    """Bytes of the files of a volume, and its limit, 0 for none."""

    volume: str
    used: int
    limit: int


class VolumeUse:
    """What the volumes hold whose data lie on this node. Those with a size are known to the file system. The files of the
    others are counted in the background, when somebody asks: a look has what was counted before."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._counted: dict[str, int] = {}
        self._due = 0.0
        self._counting: asyncio.Task[None] | None = None
        self._over = threading.Event()

    def look(self) -> list[Use]:
        """What is known now."""
        found, uncounted = [], []
        for record in self._own():
            try:
                space, limit = quotas.used(self._volumes.data(record.name)) if record.options.get("size") else (0, 0)
            except OSError:
                continue  # it goes at this moment
            if not limit:
                uncounted.append(record.name)
                if record.name not in self._counted:
                    continue
                space = self._counted[record.name]
            found.append(Use(record.name, space, limit))
        if uncounted and not self._counting and time.monotonic() >= self._due:
            self._counting = asyncio.create_task(self._count(uncounted), name="count what volumes hold")
        return sorted(found)

    def _own(self) -> list[VolumeRecord]:
        records = list(self._volumes.all.values())
        return [r for r in records if not is_shared(r.driver, r.options.items()) and not self._volumes.is_served(r.name)]

    async def _count(self, names: list[str]) -> None:
        began = time.monotonic()
        try:
            data = self._volumes.data
            self._counted = await asyncio.to_thread(lambda: {n: used(data(n), self._over.is_set) for n in names})
        finally:
            took = time.monotonic() - began
            self._due = time.monotonic() + max(AGAIN_S, took * SHARE)
            self._counting = None

    async def close(self) -> None:
        """End the counting."""
        self._over.set()
        if self._counting:
            await self._counting
