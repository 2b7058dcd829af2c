"""The state that all builds of a node share: the cache of steps, cache mounts, and steps that several builds wait for.

build/cache/          results of steps
build/mounts/<hex>/   RUN --mount=type=cache
build/contexts/<hex>/ contexts that clients sent a file at a time, for their next build
build/outputs/<hex>    what a client is to fetch of a build
build/jobs/<hex>/     a build that runs: what was sent, fetched and mounted for it; swept where its agent is gone
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files, mounts
from agent.build.agent_doors import AgentDoors
from agent.build.cache import Cache, Entry
from agent.build.kept import KeptContexts
from agent.build.layers import Layers
from agent.build.running import kill_group
from agent.build.sent import SentContexts
from agent.build.spool import Spool
from agent.errors import AgentError

if TYPE_CHECKING:
    from agent.engine.context import EngineContext

MOUNT_NAME = 40
UNUSED_S = 60 * 86_400.0
"""Results unused for so long are forgotten, by the same rule as dockerd's; the next prune of images frees their layers."""


class CacheMounts:
    """The folders of `RUN --mount=type=cache`, shared by builds, by their IDs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.locks: dict[str, asyncio.Lock] = {}
        self.used: Counter[Path] = Counter()

    def name(self, ident: str) -> str:
        """The name of the folder of *ident*."""
        return hashlib.sha256(ident.encode("utf-8", "surrogateescape")).hexdigest()[:MOUNT_NAME]

    def place(self, ident: str, *, private: bool) -> tuple[Path, bool]:
        """The folder of *ident*, and whether it is new. A *private* one is not shared while it is in use."""
        number = 0
        while True:
            folder = self.folder / (self.name(ident) + (f".{number}" if number else ""))
            if not private or not self.used[folder]:
                break
            number += 1
        fresh = not (folder / "data").exists()
        (folder / "data").mkdir(parents=True, exist_ok=True, mode=0o755)
        os.utime(folder)
        return folder / "data", fresh

    def lock(self, ident: str) -> asyncio.Lock:
        """The lock of *ident*, for steps that use it one at a time."""
        return self.locks.setdefault(ident, asyncio.Lock())


class Builder:
    """What the builds of the node share."""

    def __init__(self, engine: EngineContext) -> None:
        self.engine = engine
        self.root = engine.paths.root / "build"
        self.jobs = self.root / "jobs"
        self.jobs.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for old in ("storage", "run", "provided"):  # of the builder that was here before
            shutil.rmtree(self.root / old, ignore_errors=True)
        self.cache = Cache(self.root / "cache", lambda name: (engine.paths.layers / name).is_dir())
        self.cache_mounts = CacheMounts(self.root / "mounts")
        self.contexts = KeptContexts(self.root / "contexts")
        self.doors = AgentDoors()
        self.spool = Spool(self.root / "outputs")
        self.sent = SentContexts(self.contexts, self.jobs)
        self.transient: set[str] = set()
        self.layers = Layers(engine.images, self.cache, self.transient)
        engine.images.held = self.held
        self._active = 0
        self._flights: dict[str, asyncio.Future[Entry]] = {}
        self.torn = False
        """Whether an earlier agent ended during a build."""

    def held(self) -> set[str]:
        """The names of layers and archives that builds and the cache need: a prune of images keeps them."""
        entries = self.cache.entries.values()
        return self.transient | {e.layer for e in entries} | {e.digest[7:27] for e in entries if e.digest}

    async def recover(self) -> None:
        """Kill and remove what builds of an earlier agent left behind."""
        for job in list(self.jobs.iterdir()):
            self.torn = True
            slots = job / "slots"
            for slot in list(slots.iterdir()) if slots.is_dir() else ():
                kill_group(f"{self.engine.paths.cgroup_parent}/{slot.name}")
                with contextlib.suppress(AgentError):  # where there are no groups, the runtime knows its processes
                    await self.engine.runtime.signal(slot.name, signal.SIGKILL)
                for point in mounts.below(self.engine.paths.bundles / slot.name):
                    mounts.unmount(point)
                await self.engine.runtime.delete(slot.name)
            for point in mounts.below(job):
                mounts.unmount(point)
            await asyncio.to_thread(files.remove_tree, job)

    def begin(self) -> Path:
        """The folder of a build that begins; `end` takes it away."""
        folder = self.jobs / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        self._active += 1
        return folder

    async def end(self, folder: Path) -> None:
        """Remove the *folder* of a build that has ended, and, if no other goes on, results that nobody has used for long."""
        self._active -= 1
        await asyncio.to_thread(files.remove_tree, folder)
        self.cache.settle()
        if not self._active:
            self.transient.clear()
            for entry in self.cache.doomed(older_s=UNUSED_S):
                self.cache.drop(entry.key)
            self.contexts.drop(UNUSED_S, time.time())

    async def result(
        self,
        key: str,
        note: str,
        make: Callable[[], Awaitable[str]],
        *,
        cached: bool,
        elsewhere: Callable[[str], Awaitable[Entry | None]] | None = None,
    ) -> tuple[Entry, bool]:
        """The result of the step *key*, and whether it was known: from the cache, from another build that is making it, from
        caches *elsewhere*, or by *make*, which returns the name of a layer."""
        while cached:
            if entry := self.cache.find(key):
                return entry, True
            flight = self._flights.get(key)
            if flight is None:
                break
            await asyncio.wait({flight})
            if not flight.cancelled():
                return flight.result(), True
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        mine = self._flights.setdefault(key, future) is future
        try:
            if cached and elsewhere and (found := await elsewhere(key)):
                self.cache.keep(found)
                future.set_result(found)
                return found, True
            layer = await make()
            disk = await asyncio.to_thread(files.used, self.engine.paths.layers / layer) if layer else 0
            entry = self.cache.put(key, note, layer, disk)
            future.set_result(entry)
            return entry, False
        finally:
            if not future.done():
                future.cancel()
            if mine:
                del self._flights[key]

    async def prune(self, *, older_s: float = 0.0, keep_bytes: int = 0, everything: bool = True) -> tuple[list[str], int]:
        """Remove what Cache.doomed selects; returns the keys and the number of bytes freed. Nothing that a running build uses
        is removed."""
        busy = set(self.transient)
        shared = {
            name for image in self.engine.images.everything() for name in (d.removeprefix("sha256:")[:20] for d in image.layers)
        }
        gone = self.cache.doomed(
            older_s=older_s, keep_bytes=keep_bytes, everything=everything, busy=busy if self._active else set(), shared=shared
        )
        before = await asyncio.to_thread(self._bytes)
        for entry in gone:
            self.cache.drop(entry.key)
        self.contexts.drop(older_s, time.time())
        if not older_s and not keep_bytes:
            for folder in list(self.cache_mounts.folder.glob("*")):
                if not self._active:
                    await asyncio.to_thread(files.remove_tree, folder)
        self.engine.images.collect()
        return [e.key for e in gone], max(0, before - await asyncio.to_thread(self._bytes))

    def _bytes(self) -> int:
        """Bytes of layers, archives and cache mounts on disk."""
        return sum(files.used(p) for p in (self.engine.paths.layers, self.engine.paths.images, self.root))
