"""Keeps the store from growing with each change: the history behind a while ago is deleted. Source: kube-apiserver's compactor,
which deletes what is older than five minutes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from orchestrator.store.interface import Store, StoreError

KEEP_S, EVERY_S = 600.0, 60.0
log = logging.getLogger(__name__)


class Compactor:
    """Deletes revisions of *store* that are older than *keep_s*, every *every_s*. A watch from an earlier one ends with
    CompactedError, and what watches reads all of it again."""

    def __init__(self, store: Store, keep_s: float = KEEP_S, every_s: float = EVERY_S) -> None:
        self._store, self._keep_s, self._every_s = store, keep_s, every_s

    async def run(self) -> None:
        """Never returns. What fails is tried again the next time."""
        loop, marks, compacted = asyncio.get_running_loop(), deque[tuple[float, int]](), 0
        while True:
            await asyncio.sleep(self._every_s)
            try:
                marks.append((loop.time(), await self._store.revision()))
                while len(marks) > 1 and marks[1][0] <= loop.time() - self._keep_s:
                    marks.popleft()
                when, revision = marks[0]
                if when <= loop.time() - self._keep_s and revision > compacted:
                    await self._store.compact(revision)
                    compacted = revision
            except StoreError as error:
                log.warning("the history of the store grows: %s", error)
